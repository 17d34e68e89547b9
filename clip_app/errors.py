"""What can go wrong with a picture or a checkpoint, and what whoever brought it should do."""

from __future__ import annotations

from typing import Literal

__all__ = [
    "BadOption",
    "Busy",
    "CheckpointError",
    "ClipAppError",
    "EncodingFailed",
    "ImageTooLarge",
    "NotReady",
    "Outcome",
    "UndecodableImage",
]

Outcome = Literal["ok", "invalid", "rejected", "error"]


class ClipAppError(Exception):
    """An error whose message is safe to show: it names what to change, never a server path."""

    code = "error"
    status = 500
    outcome: Outcome = "error"

    @property
    def message(self) -> str:
        return str(self)


class UndecodableImage(ClipAppError):
    """The bytes are no picture, or a damaged one."""

    code, status, outcome = "undecodable_image", 400, "invalid"


class ImageTooLarge(ClipAppError):
    """The picture has more bytes or pixels than MAX_UPLOAD_MB or MAX_PIXELS allow."""

    code, status, outcome = "too_large", 413, "invalid"


class BadOption(ClipAppError):
    """A label, group, template or number is not of the form it should be."""

    code, status, outcome = "bad_option", 422, "invalid"


class Busy(ClipAppError):
    """QUEUE_SIZE pictures are already being worked on."""

    code, status, outcome = "busy", 503, "rejected"
    retry_after = 1


class NotReady(ClipAppError):
    """No model is loaded yet, or none could be."""

    code, status, outcome = "not_ready", 503, "rejected"
    retry_after = 5


class EncodingFailed(ClipAppError):
    """The image encoder failed on this picture."""

    code, status, outcome = "encoding_failed", 500, "error"


class CheckpointError(ValueError):
    """A checkpoint cannot be served; the message says what is missing, never a server path."""
