"""Where the local server keeps its resources: SQLite, in a file or in memory.

A resource is a serialized protobuf message in a collection, with the few columns beside it that
lists filter and sort by. All access goes through one connection under one lock: the work between
two statements is small, and a writer never sees another writer's half.

Durability: write-ahead log with synchronous=NORMAL. A commit is in the operating system's hands
before the server acknowledges it, so SIGKILL loses nothing; only a power cut can lose the last
commits, which a development server accepts in return for not waiting for the disk at each call.

A statement or a commit that fails (full disk, input/output error) undoes the whole transaction, in
the database and in what was remembered of it: the next transaction begins from what was committed
last.
"""

from __future__ import annotations

import enum
import json
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from clarigrpc.local.user_app import UserApp

_SCHEMA = """
CREATE TABLE IF NOT EXISTS collections (
    number INTEGER PRIMARY KEY,
    kind TEXT NOT NULL, user_id TEXT NOT NULL, app_id TEXT NOT NULL, parent TEXT NOT NULL,
    UNIQUE (kind, user_id, app_id, parent)
);
CREATE TABLE IF NOT EXISTS resources (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL,
    id TEXT NOT NULL,
    key TEXT,
    status INTEGER NOT NULL,
    doomed INTEGER NOT NULL DEFAULT 0,
    body BLOB NOT NULL,
    UNIQUE (collection, id)
);
CREATE INDEX IF NOT EXISTS by_time ON resources (collection, seq);
CREATE INDEX IF NOT EXISTS by_status ON resources (status, collection, seq);
CREATE INDEX IF NOT EXISTS by_collection_status ON resources (collection, status, seq);
CREATE INDEX IF NOT EXISTS by_key ON resources (collection, key) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS to_delete ON resources (seq) WHERE doomed;
CREATE TABLE IF NOT EXISTS contents (
    seq INTEGER PRIMARY KEY REFERENCES resources (seq) ON DELETE CASCADE,
    data BLOB NOT NULL
);
-- Places of deleted resources, so that a walk whose cursor was deleted goes on where it was.
CREATE TABLE IF NOT EXISTS gone (
    collection INTEGER NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (collection, id)
) WITHOUT ROWID;
-- What searches look up, see `Indexed`.
CREATE TABLE IF NOT EXISTS terms (
    collection INTEGER NOT NULL, term INTEGER NOT NULL, value REAL NOT NULL,
    seq INTEGER NOT NULL REFERENCES resources (seq) ON DELETE CASCADE,
    PRIMARY KEY (collection, term, value, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS terms_of ON terms (seq);
CREATE TABLE IF NOT EXISTS places (
    seq INTEGER PRIMARY KEY REFERENCES resources (seq) ON DELETE CASCADE,
    collection INTEGER NOT NULL, latitude REAL NOT NULL, longitude REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS by_place ON places (collection, latitude, longitude);
-- Files outside, and what they belong to; nothing, once that is deleted.
CREATE TABLE IF NOT EXISTS files (
    name TEXT PRIMARY KEY, seq INTEGER REFERENCES resources (seq) ON DELETE SET NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS files_of ON files (seq);
CREATE TABLE IF NOT EXISTS tags (
    collection INTEGER NOT NULL, id TEXT NOT NULL, positive INTEGER NOT NULL,
    status INTEGER NOT NULL,
    seq INTEGER NOT NULL REFERENCES resources (seq) ON DELETE CASCADE,
    name TEXT NOT NULL,
    PRIMARY KEY (collection, id, positive, status, seq)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_of ON tags (seq);
-- What is compared is in lower case already, by Python's rules and not by SQLite's.
CREATE VIRTUAL TABLE IF NOT EXISTS texts USING fts5 (
    text, tokenize = 'trigram case_sensitive 1'
);
CREATE TRIGGER IF NOT EXISTS text_gone AFTER DELETE ON resources BEGIN
    DELETE FROM texts WHERE rowid = old.seq;
END;
"""

# Tells a database of this program from those of others.
_APPLICATION_ID = 0x636C6772
_TABLES = frozenset(("collections", "resources"))

# Raised with what the tables of `Indexed` hold: a folder of an earlier version is then indexed
# anew.
_INDEX_VERSION = 3
_EMPTY_INDEX = (
    "DELETE FROM terms",
    "DELETE FROM places",
    "DELETE FROM tags",
    "DELETE FROM texts",
)
# The index of texts knows stretches of three characters, and asks for no more than so many.
_MIN_INDEXED_TEXT, _MAX_INDEXED_TEXT = 3, 64


PARENT_SEPARATOR = "\x1f"
"""Between the ids in the parent of a resource that lies deeper than one level."""

# A condition that so many resources hold is not used where another one has fewer.
_COMMON = 512

_logger = logging.getLogger(__name__)

_DELETE_SECONDS = 0.1
"""After so long a transaction that deletes ends, and others have their turn."""

_MANY_BYTES = 16 << 20
"""With more content, a transaction that can be split ends."""

MAX_PAGE_BYTES = 128 << 20
"""Longest messages of a page together: no response could take more."""

_CLEARED = ""
"""Kind of the collections that were cleared, and whose resources are yet to be deleted."""

MAX_INDEX_ROWS = 40_000
"""Values that one transaction may add to the index: less than half a second, in which all wait."""

# Rows that a walk reads at once: few at first, since many callers stop early.
_ROWS_OF_FIRST_READ, _ROWS_PER_READ = 32, 512

BYTES_PER_READ = 16 << 20
"""After so many bytes what is read a stretch at a time has enough rows at once."""


class StoredCollection(NamedTuple):
    """Where resources of one kind live: under a user, an app and perhaps other resources.

    ``app_id`` is empty for what belongs to a user; ``parent`` are the ids of the parent resources.
    """

    kind: str
    user_id: str
    app_id: str
    parent: str = ""

    @classmethod
    def of_app(cls, kind: str, app: UserApp, parent: str = "") -> Self:
        """The collection of a kind in an app."""
        return cls(kind, app.user_id, app.app_id, parent)

    @property
    def app(self) -> UserApp:
        """The app; its id is empty for what belongs to a user."""
        return UserApp(self.user_id, self.app_id)


class Row(NamedTuple):
    """A stored resource. ``seq`` grows with every insert and never changes."""

    seq: int
    id: str
    status: int
    body: bytes


class Candidate(NamedTuple):
    """What may be found: its place, its id and its second name."""

    seq: int
    id: str
    key: str | None


class DuplicateIdError(Exception):
    """The collection has a resource of that id."""


class TransactionTooLargeError(Exception):
    """The transaction would add more to the index than MAX_INDEX_ROWS."""


class PageTooLargeError(Exception):
    """The messages of a page are longer than MAX_PAGE_BYTES together."""


class StoreError(OSError):
    """The database cannot be read or written; the transaction that ran is undone."""


class Tag(NamedTuple):
    """A concept that a resource carries, as there or as not there."""

    id: str
    positive: bool
    name: str


class TagCount(NamedTuple):
    """How many resources of a status carry a concept so."""

    id: str
    positive: bool
    status: int
    name: str
    total: int


class Indexed(NamedTuple):
    """What a resource can be looked up by.

    Attributes:
        terms: Numbers with a value each.
        place: Latitude and longitude.
        text: What it says.
        tags: The concepts that it is counted for.
    """

    terms: set[tuple[int, float]]
    place: tuple[float, float] | None
    text: str = ""
    tags: frozenset[Tag] = frozenset()


M = TypeVar("M", bound=Message)
Indexer: TypeAlias = Callable[[bytes], Indexed]
"""Says how to find a resource, from its message; DecodeError where that is damaged."""


class HasTerm(NamedTuple):
    """Looks up what has a term with a value from ``low`` to ``high``."""

    term: int
    low: float
    high: float


class InBox(NamedTuple):
    """Looks up what is at a place in a box, in degrees."""

    south: float
    north: float
    west: float
    east: float


class HasText(NamedTuple):
    """Looks up what says something, in whatever case."""

    text: str


class HasStatus(NamedTuple):
    """Looks up what has a status."""

    status: int


class HasId(NamedTuple):
    """Looks up the resource of an id."""

    id: str


class Relation(enum.Enum):
    """How what is looked up belongs to what is searched for."""

    SELF = enum.auto()
    CHILD = enum.auto()
    """Its second name is the id of what is searched for."""
    PARENT = enum.auto()
    """Its id is the second name of what is searched for."""


class Lookup(NamedTuple):
    """A step of a search: resources of a collection, and what they say about those sought."""

    where: StoredCollection
    test: HasTerm | InBox | HasText | HasStatus | HasId
    relation: Relation = Relation.SELF


class Store:
    """Resources in SQLite.

    Args:
        path: Database file; None keeps everything in memory.
        indexers: For each kind that can be looked up, what by.

    Raises:
        OSError: Another process has the file, it is damaged, or another program's.
    """

    def __init__(
        self, path: Path | None = None, indexers: Mapping[str, Indexer] | None = None
    ) -> None:
        self._indexers = indexers or {}
        self._lock = threading.RLock()
        self._depth = 0
        self._index_rows = self._content_bytes = 0
        self._is_bounded = False
        self._failure: sqlite3.Error | None = None
        self._after: list[Callable[[], object]] = []
        self._undone: list[Callable[[], object]] = []
        self._told_of_damage: set[int] = set()
        self._told_of_clearing: list[Callable[[], object]] = []
        self._numbers: dict[StoredCollection, int] = {}
        if path is not None:
            # The ids of keys are secrets.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        # Autocommit, because transactions are begun and ended here.
        self._db = sqlite3.connect(
            path if path is not None else ":memory:",
            timeout=1.0,
            check_same_thread=False,
            isolation_level=None,
        )
        try:
            self._open(path)
        except (sqlite3.Error, OSError, ValueError, DecodeError) as error:
            self._db.close()
            raise OSError(_unusable(path, error)) from error
        except BaseException:
            self._db.close()
            raise

    def _open(self, path: Path | None) -> None:
        # One server a folder: files of uploads lie beside, which a second one would write, too.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        # Before anything is written: the file may be another program's.
        names = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master")}
        (owner,) = self._db.execute("PRAGMA application_id").fetchone()
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if names and (owner not in (0, _APPLICATION_ID) or not names >= _TABLES):
            raise ValueError("it belongs to another program")
        if names:
            self._db.execute("SELECT seq, collection, id, key, status, body FROM resources LIMIT 0")
        if version > _INDEX_VERSION:
            raise ValueError("it was written by a later version of clarigrpc")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        with self.transaction():
            for statement in _statements(_SCHEMA):
                self._change(statement)
            if owner != _APPLICATION_ID:
                self._change(f"PRAGMA application_id = {_APPLICATION_ID}")
        self._index_anew()

    def close(self) -> None:
        """Closes the database; further use is an error."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self, *, bounded: bool = False) -> Iterator[None]:
        """Everything inside happens at once or not at all; may be nested.

        Args:
            bounded: The outermost one refuses more index rows than MAX_INDEX_ROWS. Where work can
                be split, it is not bounded, and ends early when the store is ``crowded``.

        Raises:
            StoreError: A statement inside or the commit failed, and nothing happened.
            TransactionTooLargeError: It is bounded, and nothing happened.
        """
        with self._lock:
            if self._depth == 0:
                self._change("BEGIN IMMEDIATE")
                self._index_rows = self._content_bytes = 0
                self._is_bounded = bounded
            self._depth += 1
            try:
                yield
                if self._depth == 1:
                    self._change("COMMIT")
            except BaseException:
                if self._depth == 1:
                    self._undo()
                raise
            finally:
                self._depth -= 1
            if self._depth:
                return
            after, self._after = self._after, []
        for work in after:
            self._do(work)

    @property
    def crowded(self) -> bool:
        """Whether the running transaction has added so much that it had better end."""
        return self._index_rows > MAX_INDEX_ROWS // 4 or self._content_bytes > _MANY_BYTES

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Inside a transaction: what fails inside is undone alone."""
        with self.transaction():
            name = f"at_{self._depth}"
            self._change(f"SAVEPOINT {name}")
            known = len(self._after)
            try:
                yield
            except BaseException:
                # After a failure of the database the whole transaction is undone, at its end.
                if self._failure is None:
                    self._change(f"ROLLBACK TO {name}")
                    self._change(f"RELEASE {name}")
                    del self._after[known:]
                    self._forget()
                raise
            self._change(f"RELEASE {name}")

    def after_commit(self, work: Callable[[], object]) -> None:
        """Does what cannot be undone once the running transaction is committed.

        Outside of a transaction that is at once; nothing is done when the transaction is undone.

        Args:
            work: What it raises is logged: it does not concern what was committed.
        """
        with self._lock:
            if self._depth:
                self._after.append(work)
                return
        self._do(work)

    @staticmethod
    def _do(work: Callable[[], object]) -> None:
        try:
            work()
        except Exception:
            _logger.exception("something was not tidied up after a transaction")

    def when_undone(self, forget: Callable[[], object]) -> None:
        """Calls ``forget`` whenever something is undone that may have been read before."""
        self._undone.append(forget)

    def when_cleared(self, tell: Callable[[], object]) -> None:
        """Calls ``tell`` whenever there may be work for ``delete_doomed``."""
        self._told_of_clearing.append(tell)

    def _undo(self) -> None:
        self._failure = None
        self._after.clear()
        self._forget()
        try:
            # After some failures SQLite has done so itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            # Tried again by the next statement, which fails where this fails again.
            _logger.exception("a transaction could not be undone")

    def _forget(self) -> None:
        self._numbers.clear()
        for forget in self._undone:
            forget()

    def _check(self) -> None:
        """Refuses statements that would not be part of the transaction that they belong to."""
        if self._failure is not None:
            raise StoreError(f"the transaction is undone: {self._failure}") from self._failure
        if self._db.in_transaction is not (self._depth > 0):
            if self._depth:
                self._failure = sqlite3.OperationalError("SQLite has ended the transaction")
                raise StoreError(str(self._failure))
            self._db.execute("ROLLBACK")

    def _change(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Carries out a statement that changes something; under the lock."""
        try:
            self._check()
            return self._db.execute(statement, values)
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _change_each(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        try:
            self._check()
            self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """What a query finds."""
        with self._lock:
            try:
                self._check()
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise self._failed(error) from error

    def _bounded_rows(self, query: str, values: Sequence[object]) -> list[Row]:
        """What a query finds; refuses messages of more than MAX_PAGE_BYTES together."""
        rows, is_cut = self._first_rows(query, values, MAX_PAGE_BYTES)
        if is_cut:
            raise PageTooLargeError
        return rows

    def _first_rows(
        self, query: str, values: Sequence[object], most_bytes: int
    ) -> tuple[list[Row], bool]:
        """What a query finds, up to the row that exceeds a size; and whether one does."""
        rows: list[Row] = []
        size = 0
        with self._lock:
            try:
                self._check()
                for found in self._db.execute(query, values):
                    rows.append(Row(*found))
                    size += len(rows[-1].body)
                    if size > most_bytes:
                        return rows, True
            except sqlite3.Error as error:
                raise self._failed(error) from error
        return rows, False

    def _row(self, query: str, values: Sequence[object] = ()) -> Any:
        """The one row that a query finds, None where it finds none."""
        rows = self._rows(query, values)
        return rows[0] if rows else None

    def _failed(self, error: sqlite3.Error) -> StoreError:
        if self._depth:
            self._failure = error
        return StoreError(f"the database failed: {' '.join(str(error).split())}")

    def insert(
        self,
        where: StoredCollection,
        resource_id: str,
        body: bytes,
        *,
        status: int = 0,
        key: str | None = None,
        content: bytes | None = None,
    ) -> None:
        """Adds a resource.

        Args:
            where: Its collection.
            resource_id: Its id, unique there.
            body: The serialized message.
            status: Status code to filter by.
            key: A second name to find it by, such as the URL of an input.
            content: Bytes that belong to it and are read apart from the body.

        Raises:
            DuplicateIdError: The id is taken.
        """
        with self.transaction():
            try:
                cursor = self._change(
                    "INSERT INTO resources (collection, id, key, status, body)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (self._numbered(where), resource_id, key, status, body),
                )
            except sqlite3.IntegrityError:
                raise DuplicateIdError(resource_id) from None
            assert cursor.lastrowid is not None
            if content is not None:
                self._content_bytes += len(content)
                self._change("INSERT INTO contents VALUES (?, ?)", (cursor.lastrowid, content))
            if where.kind in self._indexers:
                self._index(where.kind, self._numbered(where), cursor.lastrowid, body, status)

    def get(self, where: StoredCollection, resource_id: str) -> Row | None:
        """The resource of that id, None where there is none."""
        with self._lock:
            row = self._row(
                "SELECT seq, id, status, body FROM resources WHERE collection = ? AND id = ?",
                (self._number(where), resource_id),
            )
        return Row(*row) if row else None

    def message(self, cls: type[M], row: Row) -> M | None:
        """The message of a resource; None where it is damaged, which is logged once."""
        try:
            return cls.FromString(row.body)
        except DecodeError:
            if row.seq not in self._told_of_damage:
                self._told_of_damage.add(row.seq)
                _logger.warning(
                    "%r is left out of lists, since what is stored is no %s (said once)",
                    row.id,
                    cls.__name__,
                )
            return None

    def set_status(self, seq: int, status: int) -> None:
        """Replaces the status of a resource alone, whose message may be damaged."""
        with self.transaction():
            self._change("UPDATE resources SET status = ? WHERE seq = ?", (status, seq))

    def content(self, seq: int) -> bytes | None:
        """The bytes that belong to a resource."""
        with self._lock:
            row = self._row("SELECT data FROM contents WHERE seq = ?", (seq,))
        return row[0] if row else None

    def set_content(self, seq: int, content: bytes) -> None:
        """Replaces the bytes that belong to a resource."""
        with self.transaction():
            self._change("INSERT OR REPLACE INTO contents VALUES (?, ?)", (seq, content))

    def set_key(self, seq: int, key: str | None) -> None:
        """Changes the second name of a resource."""
        with self.transaction():
            self._change("UPDATE resources SET key = ? WHERE seq = ?", (key, seq))

    def key(self, seq: int) -> str | None:
        """The second name of a resource."""
        with self._lock:
            row = self._row("SELECT key FROM resources WHERE seq = ?", (seq,))
        return row[0] if row else None

    def has_key(self, where: StoredCollection, key: str) -> bool:
        """Whether a resource of the collection has that second name."""
        with self._lock:
            row = self._row(
                "SELECT 1 FROM resources WHERE collection = ? AND key = ?",
                (self._number(where), key),
            )
        return row is not None

    def update(self, seq: int, body: bytes, status: int) -> None:
        """Replaces the message and the status of a resource."""
        with self.transaction():
            self._change(
                "UPDATE resources SET body = ?, status = ? WHERE seq = ?", (body, status, seq)
            )
            found = self._row(
                "SELECT c.kind, c.number FROM resources r JOIN collections c"
                " ON c.number = r.collection WHERE r.seq = ?",
                (seq,),
            )
            if found is not None and found[0] in self._indexers:
                kind, number = found
                self._index(kind, number, seq, body, status)

    def doom(self, where: StoredCollection, ids: Sequence[str]) -> list[str]:
        """Marks resources for deletion; returns the ids that are there."""
        with self.transaction():
            number = self._number(where)
            return [
                i
                for i in ids
                if self._change(
                    "UPDATE resources SET doomed = 1 WHERE collection = ? AND id = ?", (number, i)
                ).rowcount
            ]

    def delete_doomed(self, limit: int) -> int:
        """Deletes what is marked, at most ``limit`` resources; returns how many it were.

        Those of a collection that was cleared are marked, too. With much in the index it are fewer.
        """
        deleted = 0
        end = time.monotonic() + _DELETE_SECONDS
        with self.transaction():
            rows = self._rows("SELECT seq FROM resources WHERE doomed LIMIT ?", (limit,))
            rows += self._rows(
                "SELECT r.seq FROM collections c JOIN resources r ON r.collection = c.number"
                " WHERE c.kind = ? LIMIT ?",
                (_CLEARED, limit - len(rows)),
            )
            if len(rows) < limit:
                self._change(
                    "DELETE FROM collections WHERE kind = ? AND NOT EXISTS"
                    " (SELECT 1 FROM resources WHERE collection = number)",
                    (_CLEARED,),
                )
            for (seq,) in rows:
                if time.monotonic() > end:
                    break
                deleted += 1
                self._change(
                    "INSERT OR REPLACE INTO gone SELECT collection, id, seq FROM resources"
                    " WHERE seq = ?",
                    (seq,),
                )
                self._change("DELETE FROM resources WHERE seq = ?", (seq,))
        return deleted

    def delete(self, where: StoredCollection, resource_id: str) -> bool:
        """Deletes a resource at once; False where there is none."""
        with self.transaction():
            return bool(
                self._change(
                    "DELETE FROM resources WHERE collection = ? AND id = ?",
                    (self._number(where), resource_id),
                ).rowcount
            )

    def keep_newest(self, where: StoredCollection, limit: int) -> None:
        """Deletes the oldest resources of a collection beyond a number, at once."""
        with self.transaction():
            number = self._number(where)
            self._change(
                "DELETE FROM resources WHERE collection = ? AND seq <= (SELECT seq FROM resources"
                " WHERE collection = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
                (number, number, limit),
            )

    def page(
        self,
        where: StoredCollection,
        offset: int,
        limit: int,
        *,
        newest_first: bool = True,
        status: int | None = None,
        ids: Sequence[str] = (),
        keys: Sequence[str] = (),
    ) -> list[Row]:
        """A stretch of a collection in the order of adding.

        Args:
            where: The collection.
            offset: Resources to skip.
            limit: Most resources to return; -1 for all.
            newest_first: Direction.
            status: Only resources with this status.
            ids: Only these; empty means all.
            keys: Only those with one of these second names; empty means all.
        """
        query = "SELECT seq, id, status, body FROM resources WHERE collection = ?"
        with self._lock:
            values: list[object] = [self._number(where)]
            if status is not None:
                query += " AND status = ?"
                values.append(status)
            if ids:
                query += f" AND id IN ({', '.join('?' * len(ids))})"
                values += ids
            if keys:
                query += f" AND key IN ({', '.join('?' * len(keys))})"
                values += keys
            query += f" ORDER BY seq {'DESC' if newest_first else 'ASC'} LIMIT ? OFFSET ?"
            return self._bounded_rows(query, (*values, limit, offset))

    def after(
        self,
        where: StoredCollection,
        last_id: str,
        limit: int,
        *,
        by_id: bool = False,
        descending: bool = False,
    ) -> list[Row] | None:
        """What follows a resource in a walk over the collection.

        Args:
            where: The collection.
            last_id: Where the walk is, a deleted resource included; empty for the start.
            limit: Most resources to return.
            by_id: Order by id instead of the time of adding.
            descending: Walk backwards.

        Returns:
            The next resources, none at the end; None when there never was a ``last_id``.
        """
        column, sign = ("id" if by_id else "seq"), ("<" if descending else ">")
        query = "SELECT seq, id, status, body FROM resources WHERE collection = ?"
        with self._lock:
            number = self._number(where)
            values: list[object] = [number]
            if last_id:
                query += f" AND {column} {sign} ?"
                if by_id:
                    values.append(last_id)
                else:
                    place = self._row(
                        "SELECT seq FROM resources WHERE collection = ? AND id = ? UNION ALL"
                        " SELECT seq FROM gone WHERE collection = ? AND id = ?",
                        (number, last_id, number, last_id),
                    )
                    if place is None:
                        return None
                    values.append(place[0])
            query += f" ORDER BY {column} {'DESC' if descending else 'ASC'} LIMIT ?"
            return self._bounded_rows(query, (*values, limit))

    def waiting(
        self, kind: str, status: int, limit: int
    ) -> list[tuple[StoredCollection, int, str]]:
        """Resources of a kind, in any app, that have the status; of each app the oldest first.

        Returns:
            Where each is, its place in the order of adding, and its id.
        """
        with self._lock:
            rows = self._rows(
                "SELECT c.kind, c.user_id, c.app_id, c.parent, r.seq, r.id"
                " FROM resources r JOIN collections c ON c.number = r.collection"
                " WHERE r.status = ? AND c.kind = ? ORDER BY r.collection, r.seq LIMIT ?",
                (status, kind, limit),
            )
        return [(StoredCollection(*row[:4]), *row[4:]) for row in rows]

    def by_seq(self, seq: int) -> Row | None:
        """The resource at a place of the order of adding."""
        with self._lock:
            row = self._row(
                "SELECT r.seq, r.id, r.status, r.body FROM resources r"
                " JOIN collections c ON c.number = r.collection"
                " WHERE r.seq = ? AND c.kind != ?",
                (seq, _CLEARED),
            )
        return Row(*row) if row else None

    def walk(
        self,
        where: StoredCollection,
        *,
        newest_first: bool = True,
        status: int | None = None,
        key: str | None = None,
    ) -> Iterator[Row]:
        """All of a collection in the order of adding, read in stretches.

        What is added or deleted meanwhile may or may not come.

        Args:
            where: The collection.
            newest_first: Direction.
            status: Only resources with this status.
            key: Only those with this second name.
        """
        sign, order = ("<", "DESC") if newest_first else (">", "ASC")
        last: int | None = None
        size = _ROWS_OF_FIRST_READ
        while True:
            query = "SELECT seq, id, status, body FROM resources WHERE collection = ?"
            with self._lock:
                values: list[object] = [self._number(where)]
                for column, value, compared in (
                    ("status", status, "="),
                    ("key", key, "="),
                    ("seq", last, sign),
                ):
                    if value is not None:
                        query += f" AND {column} {compared} ?"
                        values.append(value)
                query += f" ORDER BY seq {order} LIMIT ?"
                rows, is_cut = self._first_rows(query, (*values, size), BYTES_PER_READ)
            yield from rows
            if len(rows) < size and not is_cut:
                return
            last = rows[-1].seq
            size = min(2 * size, _ROWS_PER_READ)

    def count(self, where: StoredCollection) -> int:
        """How many resources the collection has."""
        with self._lock:
            (number,) = self._row(
                "SELECT count(*) FROM resources WHERE collection = ?", (self._number(where),)
            )
        return int(number)

    def extent(self, where: StoredCollection) -> tuple[int, int]:
        """Size of a collection and its last place; what is added or deleted changes one of them."""
        with self._lock:
            size, last = self._row(
                "SELECT count(*), max(seq) FROM resources WHERE collection = ?",
                (self._number(where),),
            )
        return size, last or 0

    def collections(
        self, kind: str = "", user_id: str = "", app_id: str = "", parent: str | None = None
    ) -> list[StoredCollection]:
        """The collections that were ever used, narrowed by what is given."""
        query = "SELECT kind, user_id, app_id, parent FROM collections WHERE 1"
        values: list[object] = []
        for column, value in (("kind", kind), ("user_id", user_id), ("app_id", app_id)):
            if value:
                query += f" AND {column} = ?"
                values.append(value)
        if parent is not None:
            query += " AND (parent = ? OR substr(parent, 1, ?) = ?)"
            nested = parent + PARENT_SEPARATOR
            values += [parent, len(nested), nested]
        with self._lock:
            rows = self._rows(query, values)
        return [StoredCollection(*row) for row in rows]

    def clear(self, where: StoredCollection) -> None:
        """Takes all resources of a collection away; ``delete_doomed`` then deletes them."""
        with self.transaction():
            number = self._number(where)
            self._change(
                "UPDATE collections SET kind = ?, user_id = '', app_id = '', parent = number"
                " WHERE number = ?",
                (_CLEARED, number),
            )
            self._change(
                "UPDATE files SET seq = NULL WHERE seq IN (SELECT r.seq FROM resources r"
                " WHERE r.seq = files.seq AND r.collection = ?)",
                (number,),
            )
            self._numbers.pop(where, None)
            for tell in self._told_of_clearing:
                self.after_commit(tell)

    def move(self, where: StoredCollection, to: StoredCollection) -> None:
        """Gives a collection another place, which must be empty."""
        if where == to:
            return
        with self.transaction():
            self.clear(to)
            self._change(
                "UPDATE collections SET kind = ?, user_id = ?, app_id = ?, parent = ?"
                " WHERE number = ?",
                (*to, self._number(where)),
            )
            self._numbers.clear()

    def rename(self, where: StoredCollection, resource_id: str, new_id: str) -> None:
        """Gives a resource another id.

        Raises:
            DuplicateIdError: The new id is taken.
        """
        with self.transaction():
            try:
                self._change(
                    "UPDATE resources SET id = ? WHERE collection = ? AND id = ?",
                    (new_id, self._number(where), resource_id),
                )
            except sqlite3.IntegrityError:
                raise DuplicateIdError(new_id) from None

    def count_by_status(self, where: StoredCollection) -> dict[int, int]:
        """How many resources of the collection have which status."""
        with self._lock:
            return dict(
                self._rows(
                    "SELECT status, count(*) FROM resources WHERE collection = ? GROUP BY status",
                    (self._number(where),),
                )
            )

    def own_file(self, name: str, seq: int) -> None:
        """Notes that a file belongs to a resource, which may have been deleted meanwhile."""
        with self.transaction():
            self._change(
                "INSERT OR REPLACE INTO files"
                " VALUES (?, (SELECT seq FROM resources WHERE seq = ?))",
                (name, seq),
            )

    def abandoned_files(self) -> list[str]:
        """The files whose resources are deleted."""
        with self._lock:
            rows = self._rows("SELECT name FROM files WHERE seq IS NULL")
        return [name for (name,) in rows]

    def forget_file(self, name: str) -> None:
        """Drops the note of a file."""
        with self.transaction():
            self._change("DELETE FROM files WHERE name = ?", (name,))

    def count_tags(self, where: StoredCollection) -> list[TagCount]:
        """How many resources carry which concept, by the concepts' ids."""
        with self._lock:
            rows = self._rows(
                "SELECT id, positive, status, max(name), count(*) FROM tags"
                " WHERE collection = ? GROUP BY id, positive, status",
                (self._number(where),),
            )
        return [TagCount(*row) for row in rows]

    # Looking up

    def matching(
        self, where: StoredCollection, wanted: Sequence[Sequence[Lookup]]
    ) -> list[Candidate]:
        """The resources of a collection that may fit, the newest first.

        Those that do fit are among them.

        Args:
            where: The collection.
            wanted: Conditions that all have to hold; each holds where one of its lookups does.
        """
        with self._lock:
            number = self._number(where)
            rare: list[set[int]] = []
            tests, values = "", []
            for alternatives in wanted:
                parts = [self._lookup(where, lookup, "seq") for lookup in alternatives]
                either = " UNION ALL ".join(text for text, _ in parts)
                given = [value for _, one in parts for value in one]
                found = self._rows(f"{either} LIMIT {_COMMON}", given)
                if len(found) < _COMMON:
                    rare.append({seq for (seq,) in found})
                tests += f" AND seq IN ({either})"
                values += given
            query = "SELECT seq, id, key FROM resources WHERE"
            if rare:
                # What is common would have to be gone through to rule out a few of these.
                places = json.dumps(list(set.intersection(*rare)))
                query += " seq IN (SELECT value FROM json_each(?))"
                rows = self._rows(f"{query} ORDER BY seq DESC", (places,))
            else:
                # Unary plus keeps SQLite from going through the whole collection.
                query += f" {'+' if wanted else ''}collection = ?{tests} ORDER BY seq DESC"
                rows = self._rows(query, (number, *values))
        return [Candidate(*row) for row in rows]

    def values(self, where: StoredCollection, wanted: Sequence[Lookup]) -> dict[str, float]:
        """The largest value of the terms that are looked up, by the id of what has them."""
        found: dict[str, float] = {}
        with self._lock:
            for lookup in wanted:
                query, values = self._lookup(where, lookup, "id, t.value")
                for resource_id, value in self._rows(query, values):
                    found[resource_id] = max(value, found.get(resource_id, value))
        return found

    def _lookup(
        self, where: StoredCollection, lookup: Lookup, columns: str
    ) -> tuple[str, list[object]]:
        test = lookup.test
        table = {HasTerm: "terms", InBox: "places", HasText: "texts"}.get(type(test), "resources")
        seq = "t.rowid" if isinstance(test, HasText) else "t.seq"
        joined = "s" if lookup.relation is Relation.SELF else "o"
        # The order of a CROSS JOIN is kept: from what is looked up to what is searched for.
        query = f"SELECT s.{columns}"
        query += f" FROM {table} t CROSS JOIN resources {joined} ON {joined}.seq = {seq}"
        if lookup.relation is not Relation.SELF:
            link = "s.id = o.key" if lookup.relation is Relation.CHILD else "s.key = o.id"
            query += f" CROSS JOIN resources s ON {link}"
        # The index of texts is one of all collections.
        inside = joined if isinstance(test, HasText) else "t"
        query += f" WHERE s.collection = ? AND {inside}.collection = ?"
        if isinstance(test, HasTerm):
            query += " AND t.term = ? AND t.value BETWEEN ? AND ?"
        elif isinstance(test, InBox):
            query += " AND t.latitude BETWEEN ? AND ? AND t.longitude BETWEEN ? AND ?"
        elif isinstance(test, HasText):
            query += " AND t.text MATCH ?"
            test = HasText(_phrase(test.text))
        else:
            query += f" AND t.{'id' if isinstance(test, HasId) else 'status'} = ?"
        return query, [self._number(where), self._number(lookup.where), *test]

    def rows(self, places: Sequence[int]) -> Iterator[Row]:
        """The resources at some places, in that order, read in stretches; without deleted ones."""
        start, size = 0, _ROWS_OF_FIRST_READ
        while stretch := places[start : start + size]:
            query = "SELECT seq, id, status, body FROM resources WHERE seq IN"
            query += f" ({', '.join('?' * len(stretch))})"
            found, is_cut = self._first_rows(query, stretch, BYTES_PER_READ)
            if is_cut and len(stretch) > 1:  # which are missing depends on SQLite
                size = len(stretch) // 2
                continue
            start, size = start + len(stretch), min(2 * size, _ROWS_PER_READ)
            by_place = {row.seq: row for row in found}
            yield from (by_place[place] for place in stretch if place in by_place)

    def _index(self, kind: str, number: int, seq: int, body: bytes, status: int) -> None:
        found = self._indexers[kind](body)
        terms = {(term, value) for term, value in found.terms if not math.isnan(value)}
        kept = set(self._rows("SELECT term, value FROM terms WHERE seq = ?", (seq,)))
        self._index_rows += len(terms - kept) + len(found.tags)
        if self._is_bounded and self._index_rows > MAX_INDEX_ROWS:
            raise TransactionTooLargeError
        self._change_each(
            "DELETE FROM terms WHERE collection = ? AND term = ? AND value = ? AND seq = ?",
            [(number, term, value, seq) for term, value in kept - terms],
        )
        self._change_each(
            "INSERT INTO terms VALUES (?, ?, ?, ?)",
            [(number, term, value, seq) for term, value in terms - kept],
        )
        if found.place is None:
            self._change("DELETE FROM places WHERE seq = ?", (seq,))
        else:
            self._change(
                "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)", (seq, number, *found.place)
            )
        self._change("DELETE FROM tags WHERE seq = ?", (seq,))
        self._change_each(
            "INSERT OR IGNORE INTO tags VALUES (?, ?, ?, ?, ?, ?)",
            [(number, tag.id, tag.positive, status, seq, tag.name) for tag in found.tags],
        )
        text = _folded(found.text)
        was = self._row("SELECT text FROM texts WHERE rowid = ?", (seq,))
        if (was[0] if was else "") != text:
            self._change("DELETE FROM texts WHERE rowid = ?", (seq,))
            if text:
                self._change("INSERT INTO texts (rowid, text) VALUES (?, ?)", (seq, text))

    def _index_anew(self) -> None:
        """Indexes what an earlier version kept without the present index."""
        (version,) = self._row("PRAGMA user_version")
        if version == _INDEX_VERSION:
            return
        with self.transaction():
            for statement in _EMPTY_INDEX:
                self._change(statement)
            for kind in self._indexers:
                for where in self.collections(kind):
                    for row in self.walk(where):
                        try:
                            self._index(kind, self._number(where), row.seq, row.body, row.status)
                        except DecodeError:
                            _logger.warning("%s %r is damaged, and not indexed", kind, row.id)
            self._change(f"PRAGMA user_version = {_INDEX_VERSION}")

    def _number(self, where: StoredCollection) -> int:
        """The number of a collection; 0, which none has, where it was never used."""
        with self._lock:
            number = self._numbers.get(where)
            if number is None:
                row = self._row(
                    "SELECT number FROM collections"
                    " WHERE kind = ? AND user_id = ? AND app_id = ? AND parent = ?",
                    where,
                )
                if row is None:
                    return 0
                number = self._numbers[where] = row[0]
            return number

    def _numbered(self, where: StoredCollection) -> int:
        """The number of a collection, which is made where it was never used."""
        number = self._number(where)
        if not number:
            self._change(
                "INSERT INTO collections (kind, user_id, app_id, parent) VALUES (?, ?, ?, ?)",
                where,
            )
            number = self._number(where)
        return number


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; each ends at the end of a line."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _unusable(path: Path | None, error: Exception) -> str:
    """Why a database cannot be opened."""
    failure = error.__cause__ if isinstance(error, StoreError) else error
    code = getattr(failure, "sqlite_errorcode", 0) & 0xFF
    text = " ".join(str(failure).split())  # it may quote the schema
    if code == sqlite3.SQLITE_BUSY:
        return f"{path} is in use by another server"
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return f"{path} is damaged, or not a database: {text}"
    return f"{path} cannot be used: {text}"


def is_lookup(text: str) -> bool:
    """Whether texts can be looked up by this one, which must not be too short."""
    return len(_folded(text)) >= _MIN_INDEXED_TEXT


def _folded(text: str) -> str:
    """A text as the index has it: without case, and without the character that ends SQLite's."""
    return text.lower().replace("\0", " ")


def _phrase(text: str) -> str:
    """An expression of the index for texts that have this one in them, or its beginning."""
    return '"' + _folded(text)[:_MAX_INDEXED_TEXT].replace('"', '""') + '"'
