"""The model from the Hub into the shared cache: verified, once, and complete or not at all."""

from __future__ import annotations

import json
import logging
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from huggingface_hub import HfApi, constants, errors, get_token, set_client_factory, snapshot_download
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import httpx

# The client's own hook, which enforces HF_HUB_OFFLINE; it is exported nowhere else.
from huggingface_hub.utils._http import hf_request_event_hook
from tqdm import tqdm

from clip_app.checkpoint import choose_files, list_files, missing_files, variant_of, within
from clip_app.engines import preferred_format
from clip_app.errors import CheckpointError, HubError, PinFileError, Reason, TLSConfigError
from clip_app.hub.cache import (
    COMMIT,
    RepoCache,
    Snapshot,
    cache_root,
    candidate_revisions,
    explain_file_error,
    find_snapshot,
    git_blob_hash,
    hash_file,
)
from clip_app.hub.pins import BUILT_IN, Pin, Pins, read_pins
from clip_app.hub.tls import unverified_context, verified_context
from clip_app.settings import Settings
from clip_app.telemetry import HUB_DOWNLOAD_BYTES, HUB_FAILURES, TLS_VERIFIED

__all__ = ["Hub", "endpoint_shown", "explain"]

logger = logging.getLogger("clip_app")

DEADLINE_SECONDS = 900.0
# Without a word from the Hub when to come back. The client tries several times itself within one download.
UNREACHABLE_TRIES = 3
DOWNLOAD_TRIES = 6
TIMEOUT = {"connect": 5.0, "read": 15.0, "write": 15.0, "pool": 15.0}
LONGEST_PAUSE = 30.0
SPARE_BYTES = 16_000_000
CREDENTIALS = re.compile(r"//[^/@\s]*@")
# By OpenSSL's X509_V_ERR_* numbers.
WEAK = "A certificate on the way has a key or a signature that is too weak. Ask whoever runs the server or the proxy."
UNKNOWN_AUTHORITY = (
    "The Hub's certificate is not signed by a trusted authority. Set CLIP_APP_CA_BUNDLE to your network's CA file; "
    "where it is set, the server does not send its intermediate certificates, or another authority signed it."
)
CERTIFICATE_ADVICE = {
    9: "The Hub's certificate is not valid yet. Set this machine's clock.",
    10: "The Hub's certificate has expired. Check this machine's clock, then ask whoever runs the proxy.",
    21: "The server does not send its intermediate certificates. Ask its owner for the whole chain.",
    47: "The authority may not sign for this host name (name constraint). Ask whoever runs the proxy.",
    48: "The authority may not sign for this host name (name constraint). Ask whoever runs the proxy.",
    62: "The Hub's certificate is for another host name. Check HF_ENDPOINT.",
    64: "The Hub's certificate is for another address. Check HF_ENDPOINT.",
    66: WEAK,
    67: WEAK,
    68: WEAK,
}
NOT_THE_HUB = (
    "It may be a login or block page of the network. Open it in a browser, or check HF_ENDPOINT and the proxy."
)
# What the Hub's client raises of a connection or a file that broke off, beside its own library's errors.
BROKEN = (
    ConnectionError,
    TimeoutError,
    errors.LocalEntryNotFoundError,
    errors.HfHubHTTPError,
    errors.FileMetadataError,
)
UNREACHABLE = {
    "refused": "connection refused",
    "Name or service not known": "its name is not known",
    "name resolution": "its name is not known",
    "timed out": "no answer in time",
    "unreachable": "no route",
}

Progress = Callable[[int, int], None]  # bytes so far, and in all
T = TypeVar("T")


@dataclass(frozen=True)
class _Listed:
    """What the Hub's tree says of a file: SHA-256 for large ones, git's SHA-1 for the others."""

    size: int
    sha256: str | None
    git_sha1: str

    def matches(self, path: Path, found: Pin) -> bool:
        if self.sha256 is not None:
            return found == Pin(self.size, self.sha256)
        return found.size == self.size and git_blob_hash(path) == self.git_sha1


class Hub:
    """Fetches models under one set of settings."""

    def __init__(self, settings: Settings, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._settings = settings
        self._deadline_seconds = deadline_seconds
        self._format, self._variant = preferred_format(settings), variant_of(settings.precision)
        self._part = ""
        self._verified = True
        self._own_pins: Mapping[tuple[str, str], Pins] | None = None

    @property
    def verified(self) -> bool:
        """False once a certificate failed and the operator let it go on."""
        return self._verified

    def fetch(self, repo: str, revision: str | None, progress: Progress = lambda done, total: None) -> Snapshot:
        """Return a complete, verified snapshot, from the cache or from the Hub.

        Raises:
            HubError: with the reason, and what to change.
        """
        if (snapshot := find_snapshot(repo, revision, self._variant)) is not None:
            return snapshot
        repo, _, self._part = repo.partition(":")
        try:
            if _is_offline():
                return self._accept_unmarked(repo, revision)
            self._use_client()
            return self._first_found(repo, revision, progress)
        except Exception as error:
            failure = explain(error, repo, revision or "main")
            if failure is None:
                raise
            HUB_FAILURES.labels(failure.reason).inc()
            raise failure from error

    def reach(self, repo: str, revision: str | None) -> None:
        """Ask the Hub for a repository once, verified.

        Raises:
            HubError: it cannot be reached, is not trusted, or has no such repository.
        """
        repo, _, self._part = repo.partition(":")
        self._use_client()
        candidate = candidate_revisions(repo, revision)[0]
        try:
            self._list(repo, candidate)
        except Exception as error:
            if (failure := explain(error, repo, candidate)) is None:
                raise
            raise failure from error

    def _first_found(self, repo: str, revision: str | None, progress: Progress) -> Snapshot:
        candidates = candidate_revisions(repo, revision)
        for candidate in candidates[:-1]:
            try:
                return self._fetch(repo, candidate, progress)
            except HubError as error:
                if error.reason != "not_found":
                    raise
        return self._fetch(repo, candidates[-1], progress)

    def _fetch(self, repo: str, revision: str, progress: Progress) -> Snapshot:
        deadline = time.monotonic() + self._deadline_seconds
        commit, listing = self._with_retries(
            lambda: self._list(repo, revision), repo, revision, deadline, preflight=True
        )
        cache = RepoCache(cache_root(), repo, self._part)
        with cache.lock(deadline):
            files: Pins | None = cache.read_marker(commit, self._variant)
            if files is None:  # else another process was faster
                files = self._fill(cache, commit, listing, progress, deadline)
            cache.write_ref(revision, commit)
        return Snapshot(cache, commit, files)

    def _fill(
        self, cache: RepoCache, commit: str, listing: Mapping[str, _Listed], progress: Progress, deadline: float
    ) -> Pins:
        cache.sweep()
        _check_space(cache, commit, listing)
        cache.wait_for_blobs((listed.sha256 or listed.git_sha1 for listed in listing.values()), deadline)
        names = sorted(listing)
        for last_try in (False, True):
            self._with_retries(
                lambda: self._download(cache.repo, commit, names, progress), cache.repo, commit, deadline
            )
            found, wrong = self._hash(cache, commit, listing)
            if not wrong:
                break
            for name in wrong:
                cache.remove_file(commit, name)
            if last_try:
                cache.share()
                raise HubError(
                    "integrity",
                    f"{', '.join(wrong)} of {cache.repo} came twice with other bytes than "
                    f"{self._expected(cache, commit)} and was removed. "
                    "Something on the way changes files: try another network, or check HF_ENDPOINT.",
                )
        seen = within(listing, self._part)
        cache.write_view(commit, {name: seen[name] for name in self._wanted(seen)})
        cache.share()
        return cache.write_marker(commit, found, self._variant)

    def _hash(self, cache: RepoCache, commit: str, listing: Mapping[str, _Listed]) -> tuple[dict[str, Pin], list[str]]:
        """Hash every file; return what was found, and the names that do not match pin or tree."""
        pins = self._pins(cache.repo, commit)
        found, wrong = {}, []
        for name, listed in listing.items():
            path = cache.snapshot(commit) / name
            found[name] = hash_file(path)
            expected = pins.get(name)
            if not (found[name] == expected if expected else listed.matches(path, found[name])):
                wrong.append(name)
        return found, wrong

    def _expected(self, cache: RepoCache, commit: str) -> str:
        return "the pinned hashes" if self._pins(cache.repo, commit) else "the Hub lists"

    def _accept_unmarked(self, repo: str, revision: str | None) -> Snapshot:
        """Offline and without a marker: take what matches the pins, else say what is missing."""
        cache = RepoCache(cache_root(), repo, self._part)
        commits = [
            cache.read_ref(name) or self._pinned_commit(repo, name) for name in candidate_revisions(repo, revision)
        ]
        commit = next((commit for commit in commits if cache.snapshot(commit).is_dir()), commits[0])
        pins = self._chosen(self._whole_pins(repo, commit)) or cache.listed(commit) or {}
        missing = cache.wrong_sizes(commit, pins)
        if cache.listed(commit) and self._variant not in cache.variants(commit):
            missing = [f"the {self._variant} ONNX files"]
        if not missing:
            missing = [name for name, pin in pins.items() if hash_file(cache.snapshot(commit) / name) != pin]
        if pins and not missing:
            return Snapshot(cache, commit, pins)
        if not pins:
            missing = missing_files(list_files(cache.view(commit))) or ["the mark of a complete download"]
        raise HubError(
            "offline",
            f"{_offline_switch()}, and the cache lacks {', '.join(missing)} of {repo}. "
            "Run clip-app prefetch once with network, or unset it.",
        )

    def _pins(self, repo: str, commit: str) -> Pins:
        if self._own_pins is None:
            try:
                self._own_pins = read_pins(self._settings.pins) if self._settings.pins else {}
            except PinFileError as error:
                raise HubError("integrity", str(error)) from None
        return self._own_pins.get((self._model(repo), commit)) or BUILT_IN.get((repo, commit)) or {}

    def _whole_pins(self, repo: str, commit: str) -> Pins:
        """The pins where they are of a whole checkpoint: of some models only those of the weights are known."""
        pins = self._pins(repo, commit)
        return {} if missing_files(within(pins, self._part)) else pins

    def _model(self, repo: str) -> str:
        """The id that pins are kept under: those of one part of a repository are not those of another."""
        return f"{repo}:{self._part}" if self._part else repo

    def _pinned_commit(self, repo: str, revision: str) -> str:
        """Return the commit that a branch was when its only pins were made; a commit is itself."""
        self._pins(repo, revision)
        pinned = [commit for name, commit in self._own_pins or {} if name == self._model(repo)]
        return revision if COMMIT.fullmatch(revision) or len(pinned) != 1 else pinned[0]

    # What talks to the Hub.

    def _with_retries(
        self, action: Callable[[], Any], repo: str, revision: str, deadline: float, *, preflight: bool = False
    ) -> Any:
        """Try until it works, the deadline comes, or the failure is not worth another try."""
        pause, tries = 0.5, 0
        while True:
            try:
                return action()
            except HubError:
                raise
            except Exception as error:
                failure = explain(error, repo, revision)
                if failure is None:  # one of ours: another try would end the same
                    raise
                tries += 1
                if failure.reason == "tls" and self._verified and not self._settings.tls_verify:
                    self._go_unverified(repo, revision)
                    continue
                few = failure.after is None and not failure.patient
                hopeless = few and tries >= (UNREACHABLE_TRIES if preflight else DOWNLOAD_TRIES)
                wait = max(pause, failure.after or 0.0)
                if not failure.retry or hopeless or time.monotonic() + wait >= deadline:
                    raise failure from error
                logger.warning("%s Trying again in %.1f s.", failure, wait)
                logger.debug("it was %s: %s", type(error).__name__, _short(error))
                time.sleep(wait)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _list(self, repo: str, revision: str) -> tuple[str, dict[str, _Listed]]:
        """Resolve a revision to its commit and list the files that are wanted of it."""
        api = HfApi(token=self._token())
        commit = api.model_info(repo, revision=revision, timeout=TIMEOUT["read"]).sha or revision
        if not self._verified:  # nothing that came over this connection is believed, only the pins
            commit = self._pinned_commit(repo, revision)
            pins = self._chosen(self._whole_pins(repo, commit))
            return commit, {name: _Listed(pin.size, pin.sha256, "") for name, pin in pins.items()}
        listing = {
            entry.path: _Listed(entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
            for entry in api.list_repo_tree(repo, recursive=True, revision=commit)
            if isinstance(entry, RepoFile)
        }
        if missing := missing_files(within(listing, self._part)):
            text = f"{repo} has no {', '.join(missing)} at this revision. Change CLIP_APP_REVISION or CLIP_APP_MODEL."
            raise HubError("not_found", text)
        return commit, self._chosen(listing)

    def _chosen(self, files: Mapping[str, T]) -> dict[str, T]:
        """The files of a repository that the settings need; all of them where they are no whole checkpoint."""
        seen = within(files, self._part)
        return {seen[name]: files[seen[name]] for name in self._wanted(seen)}

    def _wanted(self, seen: Mapping[str, str]) -> list[str]:
        if missing_files(seen):
            return list(seen)
        try:
            return choose_files(seen, self._format, self._variant)
        except CheckpointError as error:
            raise HubError("not_found", error.message) from error

    def _download(self, repo: str, commit: str, names: list[str], progress: Progress) -> None:
        folder = Path(
            snapshot_download(
                repo, revision=commit, allow_patterns=names, token=self._token(), tqdm_class=_progress_bar(progress)
            )
        )
        # Where the Hub fails half-way, the client is content with what the cache happens to hold.
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise ConnectionError(f"{missing[0]} did not arrive")

    def _token(self) -> bool | None:
        """Send the token only over verified TLS."""
        return None if self._verified and _endpoint().startswith("https://") else False

    def _use_client(self) -> None:
        """Give the Hub client the one verified context.

        Raises:
            HubError: a certificate file is unusable, or the endpoint is not encrypted.
        """
        parts = urlsplit(_endpoint())
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise HubError("tls", f"HF_ENDPOINT={endpoint_shown()} is not encrypted. Use https://.")
        try:
            context = verified_context(self._settings)
        except TLSConfigError as error:
            raise HubError("tls", str(error)) from None
        _set_client(context)

    def _go_unverified(self, repo: str, revision: str) -> None:
        if not self._whole_pins(repo, self._pinned_commit(repo, revision)):
            raise HubError(
                "tls",
                f"The Hub's certificate is not trusted, and CLIP_APP_TLS_VERIFY=false needs pinned hashes of {repo} "
                f"at revision {revision}. Make them on a trusted network with clip-app prefetch --write-pins FILE, "
                "then set CLIP_APP_PINS=FILE.",
            )
        logger.warning(
            "CERTIFICATES ARE NOT VERIFIED: CLIP_APP_TLS_VERIFY=false, and the Hub's certificate failed. No token is "
            "sent, and every file must match its pinned hash. Set CLIP_APP_CA_BUNDLE to your network's CA instead."
        )
        self._verified = False
        TLS_VERIFIED.set(0)
        _set_client(unverified_context())


def explain(error: BaseException, repo: str, revision: str) -> HubError | None:
    """Find the reason in the whole chain of causes; a certificate failure hides three levels down.

    Returns None for an error that is none of the network, the Hub or the volume: it is to go up as what it is.
    """
    chain = list(_causes(error))

    def first(kind: type[BaseException]) -> Any:
        return next((cause for cause in chain if isinstance(cause, kind)), None)

    if (known := first(HubError)) is not None:  # of a redirect, inside the client's own
        return cast(HubError, known)
    if (cause := first(ssl.SSLCertVerificationError)) is not None:
        return HubError("tls", _certificate_advice(cause))
    if (broken := first(ssl.SSLError)) is not None:
        return _explain_handshake(broken)
    answers: tuple[tuple[type[BaseException], Reason, str], ...] = (
        (errors.OfflineModeIsEnabled, "offline", f"{_offline_switch()} and {repo} is not in the cache. Unset it."),
        (errors.GatedRepoError, "not_found", f"{repo} needs a login. Set HF_TOKEN to a token that may read it."),
        (errors.RevisionNotFoundError, "not_found", f"{repo} has no revision {revision}. Change CLIP_APP_REVISION."),
        (
            errors.RepositoryNotFoundError,
            "not_found",
            f"There is no {repo} on the Hub, or it is private. Change CLIP_APP_MODEL.",
        ),
        (errors.RemoteEntryNotFoundError, "not_found", f"{repo} lacks a file. Change CLIP_APP_REVISION."),
        (errors.HFValidationError, "not_found", f"{repo[:80]!r} is no repository's name. Change CLIP_APP_MODEL."),
    )
    for kind, reason, message in answers:
        if first(kind):
            return HubError(reason, message)
    return _explain_system(chain, repo)


def _explain_system(chain: list[BaseException], repo: str) -> HubError | None:
    lost = next((cause for cause in chain if isinstance(cause, (httpx.TransportError, httpx.InvalidURL))), None)
    if lost is None and (failure := explain_file_error(*chain)) is not None:  # a firewall's EPERM is no file's
        return failure
    response = next((r for cause in chain if (r := getattr(cause, "response", None)) is not None), None)
    if response is not None:
        return _explain_answer(response)
    if lost is not None or any(isinstance(cause, BROKEN) for cause in chain):
        return _explain_transport(lost, chain, repo)
    if any(isinstance(cause, json.JSONDecodeError) for cause in chain):
        return HubError("network", f"What answers at {endpoint_shown()} is not the Hub. {NOT_THE_HUB}")
    refused = next((cause for cause in chain if isinstance(cause, OSError) and cause.errno), None)
    if refused is not None:
        return HubError("permissions", f"The cache's volume answered: {refused.strerror}. Check the folder of HF_HOME.")
    return None


def _explain_answer(response: Any) -> HubError:
    code = response.status_code
    if code in (401, 403):
        what = "the token in HF_TOKEN" if _token_is_set() else "a request without a token"
        advice = "Unset it, or set one that may read this model" if _token_is_set() else "Set HF_TOKEN"
        return HubError("not_found", f"The Hub refused {what} ({code}). {advice}.")
    if code in (404, 410, 451):
        reason = "is withheld for legal reasons" if code == 451 else "is not there"
        return HubError("not_found", f"The model {reason} ({code}). Change CLIP_APP_MODEL or CLIP_APP_REVISION.")
    busy = code == 429 or code >= 500
    after = _retry_after(response) if busy else None
    return HubError("network", f"The Hub answered {code}. Try again later.", retry=busy, after=after, patient=busy)


def _explain_transport(lost: BaseException | None, chain: list[BaseException], repo: str) -> HubError:
    text = " ".join(str(cause) for cause in chain)
    if isinstance(lost, httpx.ProxyError):
        return HubError("network", f"The proxy refused the way to the Hub ({_short(lost)}). Check {_proxy_setting()}.")
    if isinstance(lost, (httpx.UnsupportedProtocol, httpx.InvalidURL)):
        setting = "HF_ENDPOINT" if "://" not in _endpoint() else f"HF_ENDPOINT and {_proxy_setting()}"
        return HubError("network", f"An address has no scheme that is known ({_short(lost)}). Check {setting}.")
    reason = next((words for mark, words in UNREACHABLE.items() if mark in text), None)
    said = f" ({reason})" if reason else ""
    return HubError(
        "network",
        f"The Hub cannot be reached{said} and {repo} is not in the cache. Check the network, the proxy or HF_ENDPOINT.",
        retry=True,
    )


def _explain_handshake(error: ssl.SSLError) -> HubError:
    reason = error.reason or ""
    if any(mark in reason for mark in ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION", "WRONG_SSL_VERSION")):
        return HubError("tls", "The server offers only an old TLS. Ask its owner for TLS 1.2 or newer.")
    if "CERTIFICATE_REQUIRED" in reason:
        return HubError("tls", "The server demands a certificate of the client, which is not supported. Ask its owner.")
    if "KEY_TOO_SMALL" in reason or "MD_TOO_WEAK" in reason:
        return HubError("tls", WEAK)
    return HubError("network", "The TLS connection to the Hub broke. Check the proxy or the network.", retry=True)


def _certificate_advice(error: ssl.SSLCertVerificationError) -> str:
    return CERTIFICATE_ADVICE.get(error.verify_code, UNKNOWN_AUTHORITY)


def _short(error: BaseException) -> str:
    """The error's own words, without a password in an address."""
    return CREDENTIALS.sub("//", str(error))[:120] or type(error).__name__


def _proxy_setting() -> str:
    names = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")
    return next((name for name in names if os.environ.get(name)), "the proxy")


def _offline_switch() -> str:
    name = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return f"{name} is set" if os.environ.get(name) else "HF_HUB_OFFLINE is set"


def _token_is_set() -> bool:
    return bool(get_token())


def _retry_after(response: Any) -> float | None:
    try:
        return min(float(response.headers["Retry-After"]), 300.0)
    except (KeyError, ValueError):
        return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_offline() -> bool:
    return bool(constants.is_offline_mode())


def _endpoint() -> str:
    return str(constants.ENDPOINT)


def endpoint_shown() -> str:
    """The Hub's address, without a password that it may hold."""
    return CREDENTIALS.sub("//", _endpoint())


def _check_space(cache: RepoCache, commit: str, listing: Mapping[str, _Listed]) -> None:
    """Refuse before the first byte what cannot fit."""
    missing = cache.wrong_sizes(commit, {name: Pin(listed.size, "") for name, listed in listing.items()})
    needed = sum(listing[name].size for name in missing)
    status = os.statvfs(cache.folder)
    free = status.f_bavail * status.f_frsize
    needed += SPARE_BYTES if needed else 0
    if free < needed:
        raise HubError(
            "disk_full",
            f"{cache.repo} needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free. "
            "Free space where HF_HOME points, or give it a larger volume.",
        )


def _set_client(context: ssl.SSLContext) -> None:
    def fill_in_timeout(request: Any) -> None:
        """Some calls of the client ask for no timeout at all, and a stalled server would hang them for ever."""
        if not any((request.extensions.get("timeout") or {}).values()):
            request.extensions["timeout"] = dict(TIMEOUT)

    def stay_encrypted(request: Any) -> None:
        """Follow nobody from https to http, where anybody on the way answers; each request comes by here."""
        if request.url.scheme != "https" and _endpoint().startswith("https://"):
            target = f"{request.url.scheme}://{request.url.host}"
            text = f"The Hub sends on to {target}, which is not encrypted. Check HF_ENDPOINT and the proxy."
            raise HubError("tls", text)

    def factory() -> Any:
        # The first hook is the client's own: it enforces HF_HUB_OFFLINE.
        hooks = {"request": [hf_request_event_hook, stay_encrypted, fill_in_timeout]}
        return httpx.Client(verify=context, event_hooks=hooks, follow_redirects=True, timeout=None)

    set_client_factory(factory)


def _progress_bar(progress: Progress) -> type:
    """Make the bar class that the Hub client draws with report the bytes instead."""

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            self.counts_bytes = kwargs.get("unit") == "B"
            self.done = 0.0
            super().__init__(*args, **(kwargs | {"disable": True}))

        def update(self, n: float | None = 1) -> bool | None:
            if self.counts_bytes and n and n > 0:
                self.done += n
                HUB_DOWNLOAD_BYTES.inc(n)
                if self.total:
                    progress(min(int(self.done), int(self.total)), int(self.total))
            return None

    return Bar
