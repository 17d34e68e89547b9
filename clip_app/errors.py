"""One tree of everything that can go wrong and that somebody can do something about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

__all__ = [
    "EXIT_CODES",
    "BadArchive",
    "BadOption",
    "Busy",
    "CheckpointError",
    "ClipAppError",
    "CollectionError",
    "EncodingFailed",
    "EngineUnavailable",
    "HubError",
    "ImageTooLarge",
    "LabelFileError",
    "NotReady",
    "Outcome",
    "PinFileError",
    "Reason",
    "SettingsError",
    "TLSConfigError",
    "UndecodableImage",
    "UnreadablePath",
    "error_classes",
]

Outcome = Literal["ok", "invalid", "rejected", "error"]
Reason = Literal["tls", "network", "integrity", "disk_full", "permissions", "not_found", "offline"]
# The command line's exit code for each reason why the model could not be had.
EXIT_CODES: Mapping[Reason, int] = {
    "tls": 10,
    "network": 11,
    "integrity": 12,
    "disk_full": 13,
    "permissions": 14,
    "not_found": 15,
    "offline": 16,
}
SOME_FAILED, USAGE = 1, 2


class ClipAppError(Exception):
    """An error whose message is safe to show: it names what to change, never a server path.

    Every face translates it in one place: the command line exits with ``exit_code``, REST
    answers ``status`` with ``code`` and the message, Gradio shows the message, and
    ``outcome`` is what the analysis is counted as.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    outcome: ClassVar[Outcome] = "error"
    retry_after: ClassVar[int | None] = None
    advice: ClassVar[str] = "The server's log says more, under the request's id."
    exit_code: int = SOME_FAILED

    @property
    def message(self) -> str:
        """The sentence that is shown."""
        return str(self)


# A picture or a question.


class UndecodableImage(ClipAppError):
    """The bytes are no picture, or a damaged one."""

    code, status, outcome = "undecodable_image", 400, "invalid"
    advice = "Export the picture again, or send one of the formats that the message names."


class UnreadablePath(ClipAppError):
    """There is no file there, it cannot be read, or no picture is in the folder."""

    code, status, outcome = "unreadable_path", 400, "invalid"
    advice = "Correct the path, or let the user who runs clip-app read it."


class ImageTooLarge(ClipAppError):
    """The picture has more bytes or pixels than are accepted, or would take more memory."""

    code, status, outcome = "too_large", 413, "invalid"
    advice = "Send a smaller picture or a plain JPEG, or raise CLIP_APP_MAX_UPLOAD_MB or CLIP_APP_MAX_PIXELS."


class BadArchive(ClipAppError):
    """A zip archive, or a file in one, cannot be read, or it is larger than is unpacked."""

    code, status, outcome = "bad_archive", 400, "invalid"
    advice = "Pack the pictures again as the message says, or send them as files."


class BadOption(ClipAppError):
    """A label, group, template or number is not of the form it should be."""

    code, status, outcome, exit_code = "bad_option", 422, "invalid", USAGE
    advice = "Correct the option that the message names."


class CollectionError(ClipAppError):
    """There is no such collection, it is of another model, or it cannot be read or written."""

    code, status, outcome, exit_code = "bad_collection", 422, "invalid", USAGE
    advice = "Do what the message says, or name another collection."


class Busy(ClipAppError):
    """As many pictures as may be are already being worked on."""

    code, status, outcome, retry_after = "busy", 503, "rejected", 1
    advice = "Try again in a moment, or raise CLIP_APP_QUEUE_SIZE."


class NotReady(ClipAppError):
    """No model is loaded yet, or none could be."""

    code, status, outcome, retry_after = "not_ready", 503, "rejected", 5
    advice = "Wait for /readyz; where it names a reason, change what the reason names."


class EncodingFailed(ClipAppError):
    """The image encoder failed on this picture."""

    code = "encoding_failed"
    advice = "Send the picture again; if it fails again, the server's log says why."


# A start.


class SettingsError(ClipAppError):
    """A setting has a value that is not allowed; the message is one line."""

    code, exit_code = "bad_setting", USAGE
    advice = "Correct the CLIP_APP_* variable or flag that the message names."


class LabelFileError(ClipAppError):
    """A label file cannot be used; the message names the file and the line."""

    code, exit_code = "bad_label_file", USAGE
    advice = "Correct the line of the file in CLIP_APP_LABELS_DIR."


class CheckpointError(ClipAppError):
    """A checkpoint cannot be served."""

    code = "bad_checkpoint"
    advice = "Choose another with CLIP_APP_MODEL, or run clip-app prefetch again."


class EngineUnavailable(ClipAppError):
    """An engine or a precision does not work on this machine."""

    code = "engine_unavailable"
    advice = "Set CLIP_APP_ENGINE=auto and CLIP_APP_PRECISION=auto, or install the extra that the message names."


# The model from the Hub.


class TLSConfigError(ClipAppError):
    """A certificate file cannot be used; the message names the setting and the file."""

    code, exit_code = "bad_ca_file", EXIT_CODES["tls"]
    advice = "Correct CLIP_APP_CA_BUNDLE, SSL_CERT_FILE or REQUESTS_CA_BUNDLE."


class PinFileError(ClipAppError):
    """The file of pinned hashes cannot be read."""

    code, exit_code = "bad_pin_file", EXIT_CODES["integrity"]
    advice = "Correct CLIP_APP_PINS, or write the file with clip-app prefetch --write-pins."


class HubError(ClipAppError):
    """The model is not in the cache and could not be put there; the exit code tells why."""

    code = "model_unavailable"
    advice = "Change what the message names, then run clip-app prefetch; clip-app doctor looks at all of it."

    def __init__(
        self, reason: Reason, message: str, *, retry: bool = False, after: float | None = None, patient: bool = False
    ) -> None:
        """Say the reason and what to change.

        Another try may help where ``retry`` says so, after so many seconds; until the deadline where one is to be
        ``patient``: the Hub is there and says that it is busy.
        """
        super().__init__(message)
        self.reason: Reason = reason
        self.exit_code = EXIT_CODES[reason]
        self.retry = retry
        self.after = after
        self.patient = patient


def error_classes() -> Iterator[type[ClipAppError]]:
    """Yield every class of the tree, the root first."""
    pending: list[type[ClipAppError]] = [ClipAppError]
    while pending:
        found = pending.pop(0)
        yield found
        pending.extend(found.__subclasses__())
