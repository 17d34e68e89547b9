"""``clip-app doctor``: what would be used, and what is wrong with each and how to fix it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Literal

from huggingface_hub import constants
from pydantic import BaseModel

from clip_app.checkpoint import variant_of
from clip_app.engines import ENGINES, candidates
from clip_app.errors import (
    EXIT_CODES,
    CheckpointError,
    ClipAppError,
    EngineUnavailable,
    HubError,
    Reason,
    TLSConfigError,
)
from clip_app.hub.cache import cached
from clip_app.hub.errors import endpoint_shown, offline_switch
from clip_app.hub.fetch import latest, may_move
from clip_app.hub.files import changed
from clip_app.hub.locks import NO_LOCKS
from clip_app.hub.tls import sources
from clip_app.hub.volume import NO_FOLDER, cache_root, leads_to_no_folder
from clip_app.machine import available_cpus, has_bfloat16
from clip_app.serving import open_model
from clip_app.settings import Settings, insecure_variables, unknown_variables
from clip_app.source import Source, local_folder, present_source

__all__ = ["Finding", "examine", "exit_code"]

SOON = timedelta(days=30)
LITTLE_SPACE = 1_000_000_000
HUB_SECONDS = 5.0
DEAD_VARIABLES = {
    "CURL_CA_BUNDLE": "nothing here reads it; set CLIP_APP_CA_BUNDLE instead",
    "TRANSFORMERS_CACHE": "transformers 5 does not read it; set HF_HOME instead",
    "HF_HUB_ENABLE_HF_TRANSFER": "the Hub client does not read it any more; unset it",
    "SSL_CERT_DIR": "only SSL_CERT_FILE is read; set CLIP_APP_CA_BUNDLE to a file",
}


class Finding(BaseModel):
    """One thing that was looked at; a bad one says the one thing to change."""

    name: str
    level: Literal["ok", "warn", "bad"]
    text: str
    fix: str | None = None
    reason: Reason | None = None


def exit_code(findings: list[Finding]) -> int:
    """Return the code of the first bad finding, 0 where there is none."""
    return next((EXIT_CODES[f.reason] if f.reason else 1 for f in findings if f.level == "bad"), 0)


def examine(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[Finding]:
    """Look at everything, in the order a download needs it."""
    return [
        *_certificates(settings, environ),
        *_variables(environ),
        *_endpoint(settings),
        *_cache(settings),
        *_model(settings),
        *_engine(settings),
    ]


def _certificates(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    try:
        for source in sources(settings, environ):
            until = f", the next ends {source.valid_until:%Y-%m-%d}" if source.valid_until else ""
            ended = f", {source.ended} of them ended" if source.ended else ""
            text = f"{source.setting}: {source.path}, {source.count} authorities{ended}{until}"
            yield Finding(name="TLS roots", level="ok", text=text)
            if source.setting not in ("certifi", "system") and _ends_soon(source.valid_until):
                yield Finding(
                    name="TLS roots", level="warn", text=f"{source.setting} ends soon", fix="Ask for a new CA file."
                )
    except TLSConfigError as error:
        yield Finding(name="TLS roots", level="bad", text=str(error), fix="Correct the path.", reason="tls")
    if not settings.tls_verify:
        switches = ", ".join(insecure_variables(environ)) or "CLIP_APP_TLS_VERIFY=false"
        text = f"verification may be skipped ({switches}), only against pinned hashes"
        yield Finding(name="TLS", level="warn", text=text, fix="Set CLIP_APP_CA_BUNDLE and unset it.")


def _ends_soon(until: datetime | None) -> bool:
    return until is not None and until - datetime.now(timezone.utc) < SOON


def _variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name, advice in DEAD_VARIABLES.items():
        if environ.get(name):
            yield Finding(name="variables", level="warn", text=f"{name} is set, but does nothing", fix=advice)
    for name, nearest in unknown_variables(environ).items():
        fix = f"Did you mean {nearest}?" if nearest else "Unset it."
        yield Finding(name="variables", level="warn", text=f"there is no setting {name}", fix=fix)


def _endpoint(settings: Settings) -> Iterator[Finding]:
    if constants.is_offline_mode():
        yield Finding(name="Hub", level="ok", text=f"{offline_switch()}: no request is made")
        return
    if settings.model == "bundled" or local_folder(settings.model) is not None:
        yield Finding(name="Hub", level="ok", text="not needed: CLIP_APP_MODEL is not a model of the Hub")
        return
    try:
        commit = latest(settings, HUB_SECONDS)
    except HubError as error:
        yield Finding(name="Hub", level="bad", text=f"{endpoint_shown()}: {error}", reason=error.reason)
        return
    yield Finding(name="Hub", level="ok", text=f"{endpoint_shown()} answers, verified, and has {settings.model}")
    here = cached(settings.model, settings.revision, variant_of(settings.precision))
    if here is not None and may_move(settings) and here.revision != commit:
        text = f"{settings.model} has moved on to {commit}; the cache serves {here.revision}"
        yield Finding(name="Hub", level="warn", text=text, fix="To have the newer one, run clip-app prefetch.")


def _cache(settings: Settings) -> Iterator[Finding]:
    root = cache_root()
    if leads_to_no_folder(root):
        yield Finding(name="cache", level="bad", text=NO_FOLDER, reason="permissions")
        return
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    level: Literal["ok", "warn"] = "ok" if free > LITTLE_SPACE else "warn"
    fix = None if level == "ok" else "Free space, or move HF_HOME."
    yield Finding(name="cache", level=level, text=f"{root}: {free / 1e9:.1f} GB free", fix=fix)
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield Finding(name="cache", level="ok", text="writable, with file locks")
    except OSError as error:
        if error.errno in NO_LOCKS:
            text, fix = "writable, without file locks", "Let one job alone run clip-app prefetch."
        else:
            text, fix = "read-only: enough for serving a complete model", "To fetch, make HF_HOME writable."
        yield Finding(name="cache", level="warn", text=text, fix=fix)


def _model(settings: Settings) -> Iterator[Finding]:
    name = settings.model
    if name == "bundled":
        yield Finding(name="model", level="ok", text="bundled, the demonstration model")
        return
    if (folder := local_folder(name)) is not None:
        if folder.is_dir():
            yield Finding(name="model", level="ok", text=f"the folder {folder}")
        else:
            fix = "Correct CLIP_APP_MODEL."
            yield Finding(name="model", level="bad", text=f"there is no folder {name}", fix=fix, reason="not_found")
        return
    snapshot = cached(name, settings.revision, variant_of(settings.precision))
    if snapshot is None:
        yield Finding(
            name="model",
            level="bad",
            text=f"{name} is not complete in the cache",
            fix="Run clip-app prefetch.",
            reason="offline",
        )
        return
    if wrong := changed(snapshot.raw, snapshot.files):
        fix = "Remove the marker in clip_app/ of the repository's folder, then run clip-app prefetch."
        yield Finding(
            name="model",
            level="bad",
            text=f"{', '.join(wrong)}: not the bytes that were verified",
            fix=fix,
            reason="integrity",
        )
    else:
        text = f"{name} at {snapshot.revision}: complete, {len(snapshot.files)} files hashed again"
        yield Finding(name="model", level="ok", text=text)


def _engine(settings: Settings) -> Iterator[Finding]:
    try:
        source = present_source(settings)
    except CheckpointError as error:
        yield Finding(name="model", level="bad", text=error.message, reason="not_found")
        source = None
    try:
        choice = candidates(settings, source)[0]
    except EngineUnavailable as error:
        yield Finding(name="engine", level="bad", text=error.message)
        return
    engine = ENGINES[choice.engine].load()
    found_here = list(engine.findings(source, choice))
    for found in found_here:
        reason: Reason | None = "integrity" if found.integrity else None
        yield Finding(name="engine", level=found.level, text=found.text, fix=found.fix, reason=reason)
    if choice.device == "cpu" and not has_bfloat16() and choice.precision == "bfloat16":
        text = "bfloat16 on a CPU that has none of it"
        yield Finding(name="engine", level="warn", text=text, fix="Set CLIP_APP_PRECISION=auto.")
    whole = all(found.level != "bad" for found in found_here)
    if source is not None and whole and choice.device == "cpu" and engine.is_prepared(source, choice.precision):
        yield from _answers(settings, source)
    yield from _threads(settings)


def _answers(settings: Settings, source: Source) -> Iterator[Finding]:
    """Open the model as a start does: some processors report what they cannot run."""
    try:
        _, left_out = open_model(settings, source, lambda status: None)
    except ClipAppError as error:
        yield Finding(name="engine", level="bad", text=f"the model does not answer: {error.message}")
        return
    for reason in left_out:
        yield Finding(name="engine", level="warn", text=f"left: {reason}", fix="Set it to what serves instead.")


def _threads(settings: Settings) -> Iterator[Finding]:
    allowed = available_cpus()
    threads = allowed if settings.threads == "auto" else settings.threads
    text = f"{threads} for {allowed} CPUs that the cgroup allows, of {os.cpu_count()}"
    if threads > allowed:
        yield Finding(name="threads", level="warn", text=text, fix="Set CLIP_APP_THREADS=auto.")
    else:
        yield Finding(name="threads", level="ok", text=text)
