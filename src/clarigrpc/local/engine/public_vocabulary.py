"""The concepts of the public app: what Unicode's pictures show, named in many languages.

The names are those of Unicode's CLDR, as the package ``emoji`` has them. The ids are made here,
of the code points of the pictures.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from clarigrpc import v2
from clarigrpc.local.user_app import PUBLIC_APP

DEFAULT_LANGUAGE = "en"

_CONCEPT_ID_PREFIX = "emoji-"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_LETTERS = range(0x1F1E6, 0x1F200)
_FLAG_TAGS = range(0xE0020, 0xE0080)
_KEYCAP = 0x20E3


class PublicVocabulary:
    """Concepts with names in several languages, loaded when they are first asked for.

    Args:
        has_concepts: Whether there are any; without, nothing is ever loaded.
    """

    def __init__(self, *, has_concepts: bool = True) -> None:
        self._has_concepts = has_concepts
        # Held while a language is loaded.
        self._lock = threading.Lock()
        self._names: dict[str, dict[str, str]] = {}

    @property
    def languages(self) -> list[str]:
        """Codes of the languages, English first."""
        if not self._has_concepts:
            return []
        import emoji

        return list(emoji.LANGUAGES)

    def names(self, language: str) -> dict[str, str]:
        """Names of the concepts in a language, by id; empty for a language that it lacks."""
        if language not in self.languages:
            return {}
        with self._lock:
            if language not in self._names:
                self._names[language] = _names(language)
            return self._names[language]

    def concepts(
        self, language: str = "", is_wanted: Callable[[str], bool] = lambda name: True
    ) -> Iterator[v2.Concept]:
        """The concepts whose name in a language is wanted.

        Args:
            language: Code of the language; empty for English.
            is_wanted: Whether a name is.
        """
        language = language or DEFAULT_LANGUAGE
        for concept_id, name in self.names(language).items():
            if is_wanted(name):
                yield _concept(concept_id, name, language)

    def find(self, concept_id: str) -> v2.Concept | None:
        """The concept of that id, in English; None without."""
        if not concept_id.startswith(_CONCEPT_ID_PREFIX):
            return None
        name = self.names(DEFAULT_LANGUAGE).get(concept_id)
        return _concept(concept_id, name, DEFAULT_LANGUAGE) if name is not None else None

    def translations(self, concept_id: str) -> Iterator[v2.ConceptLanguage]:
        """The names of a concept in all languages."""
        for language in self.languages:
            name = self.names(language).get(concept_id)
            if name is not None:
                yield v2.ConceptLanguage(id=language, name=name)


def _concept(concept_id: str, name: str, language: str) -> v2.Concept:
    concept = v2.Concept(
        id=concept_id,
        name=name,
        language=language,
        user_id=PUBLIC_APP.user_id,
        app_id=PUBLIC_APP.app_id,
    )
    concept.visibility.gettable = v2.Visibility.PUBLIC
    return concept


def _names(language: str) -> dict[str, str]:
    import emoji

    emoji.config.load_language(language)
    names = {}
    for picture, data in emoji.EMOJI_DATA.items():
        text = data.get(language)
        if text is None or not _is_thing(picture, data):
            continue
        points = "-".join(f"{ord(char):x}" for char in picture if char != "\ufe0f")
        names[f"{_CONCEPT_ID_PREFIX}{points}"] = text.strip(":").replace("_", " ")
    return names


def _is_thing(picture: str, data: Any) -> bool:
    """Leaves out second spellings, skin tones, flags and keys."""
    import emoji

    points = [ord(char) for char in picture]
    return data["status"] == emoji.STATUS["fully_qualified"] and not any(
        point in _SKIN_TONES or point in _FLAG_LETTERS or point in _FLAG_TAGS or point == _KEYCAP
        for point in points
    )
