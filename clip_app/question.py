"""What the page asks: a picture that travels inside the question, and what to look for in it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from clip_app.errors import BadOption, ImageTooLarge
from clip_app.options import Options

__all__ = ["Question", "is_fresh", "number_of"]

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Question:
    """The bytes of a picture, its file's name and what to look for."""

    data: bytes
    name: str
    options: Options

    @classmethod
    def of(cls, value: Any, max_bytes: int) -> Question:
        """Read what the page's component holds: ``{"picture": {"url", "name"}, "options": {...}}``.

        Raises:
            BadOption: there is no picture in it, or an option cannot be used.
            ImageTooLarge: the picture has more bytes than are accepted.
        """
        picture, options = _dict(value).get("picture"), _dict(value).get("options")
        name = _dict(picture).get("name")
        data = _decode(_dict(picture).get("url"), max_bytes)
        return cls(data, name if isinstance(name, str) else "", Options.of(**_dict(options)))


def is_fresh(value: Any) -> bool:
    """Say whether the picture was not asked about before: a visitor's picture is one upload."""
    return bool(_dict(_dict(value).get("picture")).get("fresh", True))


def number_of(value: Any) -> int:
    """The page's own number of the question, by which it knows the answer."""
    number = _dict(value).get("number")
    return number if isinstance(number, int) else 0


def _decode(url: Any, max_bytes: int) -> bytes:
    """Return the bytes of a ``data:`` address, which is the only kind: nothing is fetched."""
    head, comma, body = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not comma or not head.startswith("data:") or not head.endswith(";base64"):
        raise BadOption("There is no picture in the question.")
    if len(body) > 4 * (max_bytes // 3 + 1):
        raise ImageTooLarge(f"The file has more than {max_bytes // MEGABYTE} MB. Raise CLIP_APP_MAX_UPLOAD_MB.")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise BadOption("The picture in the question is not base64.") from None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
