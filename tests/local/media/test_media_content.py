"""Files that the local server decodes."""

from __future__ import annotations

from typing import Any

import PIL.Image
import pytest

from clarigrpc import errors, image
from clarigrpc.local.byte_budget import ByteBudget
from clarigrpc.local.media.media_content import open_image
from clarigrpc.local.service_errors import ServiceError

_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"


def test_no_file_is_run_as_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow hands EPS to Ghostscript where that is installed."""
    run: list[Any] = []

    def ghostscript(*arguments: Any) -> Any:
        run.append(arguments)
        return PIL.Image.new("RGB", (10, 10)).im

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", ghostscript)
    with pytest.raises(ServiceError, match="not an image"), open_image(_EPS, ByteBudget(1 << 20)):
        pass
    with pytest.raises(errors.InvalidArgumentError, match="EPS is a program"):
        image(_EPS, max_side=4)
    assert run == []


def test_what_is_no_picture_is_told_without_an_address_in_memory() -> None:
    with pytest.raises(errors.InvalidArgumentError, match=r"no picture that Pillow reads$"):
        image(b"nothing of the kind", max_side=4)
