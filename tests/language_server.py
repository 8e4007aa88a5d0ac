"""Asks pyright's language server what an editor shows (Pylance is built on it)."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from tests.child_process import ChildProcess
from tests.contract.peer import PEERS

_SECONDS = 120.0


class Signature(NamedTuple):
    """What an editor shows while the arguments of a call are typed.

    Attributes:
        label: The whole signature.
        parameters: The parameters as they stand in it.
        text: The documentation.
    """

    label: str
    parameters: list[str]
    text: str


class LanguageServer(ChildProcess):
    """A language server with one open document.

    Args:
        folder: An empty folder for the document.
        source: Its text.
    """

    def __init__(self, folder: Path, source: str) -> None:
        path = folder / "document.py"
        path.write_text(source)
        self._uri = path.as_uri()
        self._count = 0
        self._received: queue.Queue[dict[str, Any]] = queue.Queue()
        super().__init__(
            [sys.executable, "-m", "pyright.langserver", "--stdio"],
            cwd=folder,
            env={**os.environ, "PYRIGHT_PYTHON_CACHE_DIR": str(PEERS / "pyright")},
        )
        threading.Thread(target=self._read, name="language-server", daemon=True).start()
        plain = {"contentFormat": ["plaintext"]}
        self._call(
            "initialize",
            {
                "processId": os.getpid(),
                "rootUri": folder.as_uri(),
                "workspaceFolders": [{"uri": folder.as_uri(), "name": "folder"}],
                "capabilities": {
                    "workspace": {"configuration": True},
                    "textDocument": {
                        "hover": plain,
                        "signatureHelp": {
                            "signatureInformation": {"documentationFormat": ["plaintext"]}
                        },
                    },
                },
            },
        )
        self._send({"method": "initialized", "params": {}})
        document = {"uri": self._uri, "languageId": "python", "version": 1, "text": source}
        self._send({"method": "textDocument/didOpen", "params": {"textDocument": document}})

    def close(self) -> None:
        """Ask it to end, which its input does not make it do, and wait for that."""
        self._process.terminate()
        super().close()

    def hover(self, line: int, column: int) -> str:
        """What is shown for the name at a place; lines and columns count from 0."""
        found = self._call("textDocument/hover", self._place(line, column))
        return _text(found["contents"]) if found else ""

    def signatures(self, line: int, column: int) -> list[Signature]:
        """What is shown at a place between the parentheses of a call."""
        found = self._call("textDocument/signatureHelp", self._place(line, column))
        return [
            Signature(
                one["label"],
                [_part(one["label"], parameter["label"]) for parameter in one["parameters"]],
                _text(one.get("documentation", "")),
            )
            for one in (found or {}).get("signatures", ())
        ]

    def _place(self, line: int, column: int) -> dict[str, Any]:
        return {
            "textDocument": {"uri": self._uri},
            "position": {"line": line, "character": column},
        }

    def _call(self, method: str, params: dict[str, Any]) -> Any:
        self._count += 1
        self._send({"id": self._count, "method": method, "params": params})
        while True:
            message = self._received.get(timeout=_SECONDS)
            if "method" not in message and message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") == "workspace/configuration":
                settings = {"python": {"pythonPath": sys.executable}}
                items = [settings.get(one.get("section"), {}) for one in message["params"]["items"]]
                self._send({"id": message["id"], "result": items})
            elif "method" in message and "id" in message:
                self._send({"id": message["id"], "result": None})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._stdin.flush()

    def _read(self) -> None:
        pipe = self._stdout
        while True:
            size = 0
            while header := pipe.readline().strip():
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
            if not size:
                return
            self._received.put(json.loads(pipe.read(size)))


def _text(content: Any) -> str:
    return str(content["value"] if isinstance(content, dict) else content)


def _part(label: str, part: Any) -> str:
    """A parameter, which is given as a text or as its place in the label."""
    return part if isinstance(part, str) else label[part[0] : part[1]]
