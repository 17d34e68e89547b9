"""The model from the Hub into the Hugging Face cache: a pinned revision, safetensors only."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clip_app.settings import DEFAULT_MODEL
from clip_app.telemetry import HUB_DOWNLOAD_BYTES, HUB_FAILURES

__all__ = ["PINNED_REVISIONS", "HubError", "fetch"]

PINNED_REVISIONS = {DEFAULT_MODEL: "eaee4c876b93e66f7fac584b529025a96d71ad66"}
FILES = [
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
]
REQUIRED = ("config.json", "model.safetensors", "preprocessor_config.json")
PREFLIGHT_SECONDS = 5.0

Progress = Callable[[float], None]


class HubError(RuntimeError):
    """The model is not cached and cannot be fetched; the message names what to change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def fetch(repo: str, revision: str | None, progress: Progress = lambda share: None) -> Path:
    """Return the snapshot's folder, from the cache where it is complete, else from the Hub.

    TLS is verified. A revision that is a full commit hash makes no request once cached.

    Raises:
        HubError: it is neither cached nor could it be fetched.
    """
    revision = revision or PINNED_REVISIONS.get(repo, "main")
    if (cached := _cached(repo, revision)) is not None:
        return cached
    try:
        folder = _download(repo, revision, progress)
    except Exception as error:
        failure = _explain(repo, revision, error)
        HUB_FAILURES.labels(failure.reason).inc()
        raise failure from error
    if missing := [name for name in REQUIRED if not (folder / name).is_file()]:
        HUB_FAILURES.labels("not_found").inc()
        raise HubError("not_found", f"{repo} has no {', '.join(missing)} at this revision. Set CLIP_APP_REVISION.")
    return folder


def _cached(repo: str, revision: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=FILES, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return folder if all((folder / name).is_file() for name in REQUIRED) else None


def _download(repo: str, revision: str, progress: Progress) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    # Fails in seconds where there is no network; the download itself retries for over a minute.
    HfApi().model_info(repo, revision=revision, timeout=PREFLIGHT_SECONDS)
    return Path(snapshot_download(repo, revision=revision, allow_patterns=FILES, tqdm_class=_progress_bar(progress)))


def _progress_bar(progress: Progress) -> type:
    """Make the bar class the Hub client draws with report the share of bytes instead."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **(kwargs | {"disable": True}))
            self.counts_bytes = kwargs.get("unit") == "B"
            self.done = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            if self.counts_bytes and n and n > 0:
                self.done += n
                HUB_DOWNLOAD_BYTES.inc(n)
                if self.total:
                    progress(min(1.0, self.done / self.total))
            return None

    return Bar


def _explain(repo: str, revision: str, error: BaseException) -> HubError:
    """Find the cause in the whole chain; a certificate failure hides three levels down."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain = list(_causes(error))
    if any(isinstance(cause, ssl.SSLError) for cause in chain):
        return HubError(
            "tls", "The Hub's certificate is not trusted here. Set SSL_CERT_FILE to your network's CA bundle."
        )
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in chain):
        return HubError("offline", f"HF_HUB_OFFLINE is set and {repo} is not in the cache. Unset it or fill the cache.")
    if any(isinstance(cause, GatedRepoError) for cause in chain):
        return HubError("not_found", f"{repo} needs a login. Set HF_TOKEN to a token that may read it.")
    if any(isinstance(cause, RevisionNotFoundError) for cause in chain):
        return HubError("not_found", f"{repo} has no revision {revision}. Change CLIP_APP_REVISION.")
    if any(isinstance(cause, RepositoryNotFoundError) for cause in chain):
        return HubError("not_found", f"There is no {repo} on the Hub, or it is private. Change CLIP_APP_MODEL.")
    missing = [cause for cause in chain if isinstance(cause, EntryNotFoundError)]
    if missing and not any(isinstance(cause, LocalEntryNotFoundError) for cause in missing):
        return HubError("not_found", f"{repo} lacks a file at this revision. Change CLIP_APP_REVISION.")
    if any(isinstance(cause, OSError) and cause.errno == 28 for cause in chain):
        return HubError("disk_full", "The disk is full. Free space where HF_HOME points.")
    if any(isinstance(cause, PermissionError) or getattr(cause, "errno", None) == 30 for cause in chain):
        return HubError("permissions", "The cache cannot be written. Make HF_HOME writable.")
    return HubError(
        "network", f"The Hub cannot be reached and {repo} is not in the cache. Check the network or HF_ENDPOINT."
    )


def _causes(error: BaseException | None) -> Any:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
