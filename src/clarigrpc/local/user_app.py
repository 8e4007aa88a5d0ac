"""The app that a request works in, and the public app."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UserApp:
    """The user and the app that a request works in. ``app_id`` is empty for all of a user's."""

    user_id: str
    app_id: str


PUBLIC_APP = UserApp("clarifai", "main")
"""The app with the models that everybody may use."""
