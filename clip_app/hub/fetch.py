"""The model from the Hub into the shared cache: verified, once, and complete or not at all."""

from __future__ import annotations

import errno
import logging
import os
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from huggingface_hub import constants

from clip_app.checkpoint import CONFIG, check_family, format_advice, missing_files, read_json, variant_of, within
from clip_app.errors import CheckpointError, HubError, PinFileError
from clip_app.hub.adopt import adopt
from clip_app.hub.cache import COMMIT, Snapshot, cached, candidate_revisions, repo_cache
from clip_app.hub.choice import Choice
from clip_app.hub.client import Client, Listed, Progress
from clip_app.hub.errors import causes, explain, offline_switch
from clip_app.hub.files import Pin, Pins, hash_file, wrong_sizes
from clip_app.hub.pins import PinBook
from clip_app.settings import Settings
from clip_app.telemetry import HUB_FAILURES, TLS_VERIFIED

__all__ = ["Fetched", "fetch", "latest", "may_move"]

logger = logging.getLogger("clip_app")

DEADLINE_SECONDS = 900.0
SPARE_BYTES = 16_000_000
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class Fetched:
    """A complete snapshot; ``verified`` is False where it came over a connection that was not."""

    snapshot: Snapshot
    verified: bool = True


def fetch(
    settings: Settings,
    progress: Progress = lambda done, total: None,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    ask: bool = False,
) -> Fetched:
    """Return the model's snapshot, from the cache or from the Hub.

    With ``ask``, the Hub is asked whether a branch has moved; where it does not answer, the cache's will do.

    Raises:
        HubError: with the reason, and what to change.
    """
    have = cached(settings.model, settings.revision, variant_of(settings.precision))
    if have is not None and not (ask and may_move(settings) and not constants.is_offline_mode()):
        return Fetched(have)
    way = _Fetch(settings, progress, time.monotonic() + deadline_seconds)
    try:
        return way.go()
    except Exception as error:
        failure = explain(error, settings.model, settings.revision or "main")
        if failure is None:
            raise
        HUB_FAILURES.labels(failure.reason).inc()
        if have is None and _cache_may_do(failure, error):
            with suppress(HubError, OSError):
                have = adopt(way.cache, settings.revision, way.pins, way.choice).snapshot
        if have is not None and failure.reason not in ("integrity", "disk_full"):
            logger.warning("%s What is in the cache serves.", failure)
            return Fetched(have)
        if failure is error:
            raise
        raise failure from error


def _cache_may_do(failure: HubError, error: BaseException) -> bool:
    """Say whether what lies in the cache will do: the Hub is not to be had, or the cache is only to be read."""
    read_only = any(isinstance(cause, OSError) and cause.errno in READ_ONLY for cause in causes(error))
    return failure.reason in ("network", "tls") or (failure.reason == "permissions" and read_only)


def may_move(settings: Settings) -> bool:
    """Say whether the revision is a branch or a tag, not a commit."""
    revisions = candidate_revisions(repo_cache(settings.model).repo, settings.revision)
    return not all(map(COMMIT.fullmatch, revisions))


def latest(settings: Settings, deadline_seconds: float) -> str:
    """Ask the Hub, verified, which commit the model is at.

    Raises:
        HubError: it cannot be reached, is not trusted, or has no such repository.
    """
    cache, deadline = repo_cache(settings.model), time.monotonic() + deadline_seconds
    revision = candidate_revisions(cache.repo, settings.revision)[0]
    client = Client(settings, deadline)
    return client.patiently(lambda: client.commit(cache.repo, revision), cache.repo, revision)


class _Fetch:
    """One model on its way: its repository, the files that are wanted, pins and deadline."""

    def __init__(self, settings: Settings, progress: Progress, deadline: float) -> None:
        self._settings = settings
        self._progress = progress
        self._deadline = deadline
        self.cache = repo_cache(settings.model)
        self.choice = Choice.under(settings, self.cache.part)
        try:
            self.pins = PinBook(settings.pins)
        except PinFileError as error:
            raise HubError("integrity", str(error)) from error
        self._revisions = candidate_revisions(self.cache.repo, settings.revision)

    def go(self) -> Fetched:
        if constants.is_offline_mode():
            return Fetched(self._offline())
        try:
            return Fetched(self._through(Client(self._settings, self._deadline)))
        except HubError as error:
            distrusted = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(error))
            if self._settings.tls_verify or not distrusted:
                raise
            self._allow_unverified(error)
        return Fetched(self._through(Client(self._settings, self._deadline, verified=False)), verified=False)

    def _offline(self) -> Snapshot:
        found = adopt(self.cache, self._settings.revision, self.pins, self.choice)
        if found.snapshot is not None:
            return found.snapshot
        if found.unproven:
            raise HubError(
                "offline",
                f"{offline_switch()}, and nothing proves {', '.join(found.unproven)} of {self.cache.model} in the "
                "cache. Set CLIP_APP_PINS to a file of its hashes, or CLIP_APP_MODEL to its folder.",
            )
        raise HubError(
            "offline",
            f"{offline_switch()}, and the cache lacks {', '.join(found.missing)} of {self.cache.model}. "
            "Run clip-app prefetch once with network, or unset it.",
        )

    def _allow_unverified(self, failed: HubError) -> None:
        revision = self._revisions[0]
        if not self.pins.whole(self.cache, self.pins.commit(self.cache, revision)):
            raise HubError(
                "tls",
                "The Hub's certificate is not trusted, and CLIP_APP_TLS_VERIFY=false needs pinned hashes of "
                f"{self.cache.model} at revision {revision}. Make them on a trusted network with clip-app prefetch "
                "--write-pins FILE, then set CLIP_APP_PINS=FILE.",
            ) from failed
        logger.warning(
            "CERTIFICATES ARE NOT VERIFIED: CLIP_APP_TLS_VERIFY=false, and the Hub's certificate failed. No token is "
            "sent, and every file must match its pinned hash. Set CLIP_APP_CA_BUNDLE to your network's CA instead."
        )
        TLS_VERIFIED.set(0)

    def _through(self, client: Client) -> Snapshot:
        for revision in self._revisions[:-1]:
            try:
                return self._revision(client, revision)
            except HubError as error:
                if error.reason != "not_found":
                    raise
        return self._revision(client, self._revisions[-1])

    def _revision(self, client: Client, revision: str) -> Snapshot:
        commit, listing = client.patiently(lambda: self._listed(client, revision), self.cache.repo, revision)
        with self.cache.lock(self._deadline):
            files: Pins | None = self.cache.read_marker(commit, self.choice.variant)
            if files is None:  # else another process was faster
                files = self._fill(client, commit, listing)
            self.cache.write_ref(revision, commit)
        return Snapshot(self.cache, commit, files)

    def _listed(self, client: Client, revision: str) -> tuple[str, dict[str, Listed]]:
        """Resolve a revision to its commit and list the files that are wanted of it."""
        if not client.verified:  # nothing that came over this connection is believed, only the pins
            commit = self.pins.commit(self.cache, revision)
            pins = self.choice.of(self.pins.whole(self.cache, commit))
            return commit, {name: Listed(pin.size, pin.sha256, "") for name, pin in pins.items()}
        commit = client.commit(self.cache.repo, revision)
        listing = client.listing(self.cache.repo, commit)
        seen = within(listing, self.cache.part)
        if missing := missing_files(seen):
            text = f"{self.cache.repo} has no {', '.join(missing)} at this revision. {format_advice(seen)}"
            raise HubError("not_found", text)
        return commit, self.choice.of(listing)

    def _fill(self, client: Client, commit: str, listing: Mapping[str, Listed]) -> Pins:
        cache, names = self.cache, sorted(listing)
        cache.sweep()
        self._check_space(commit, listing)
        cache.prepare(commit, (listed.sha256 or listed.git_sha1 for listed in listing.values()), self._deadline)
        self._check_family(client, commit, listing)
        for last_try in (False, True):
            client.download(cache.repo, commit, names, self._progress)
            found, wrong = self._verify(commit, listing)
            if not wrong:
                break
            for name in wrong:
                cache.remove_file(commit, name)
            if last_try:
                cache.share()
                raise HubError(
                    "integrity",
                    f"{', '.join(wrong)} of {cache.repo} came twice with other bytes than "
                    f"{'the pinned hashes' if self.pins.of(cache, commit) else 'the Hub lists'} and was removed. "
                    "Something on the way changes files: try another network, or check HF_ENDPOINT.",
                )
        self.choice.lay_out(cache, commit, listing)
        cache.share()
        return cache.write_marker(commit, found, self.choice.variant)

    def _check_space(self, commit: str, listing: Mapping[str, Listed]) -> None:
        """Refuse before the first byte what cannot fit."""
        sizes = {name: Pin(listed.size, "") for name, listed in listing.items()}
        needed = sum(sizes[name].size for name in wrong_sizes(self.cache.snapshot(commit), sizes))
        status = os.statvfs(self.cache.folder)
        free = status.f_bavail * status.f_frsize
        needed += SPARE_BYTES if needed else 0
        if free < needed:
            raise HubError(
                "disk_full",
                f"{self.cache.repo} needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free. "
                "Free space where HF_HOME points, or give it a larger volume.",
            )

    def _check_family(self, client: Client, commit: str, listing: Mapping[str, Listed]) -> None:
        """Fetch the config before anything large: it says whether the model is of a kind that is served."""
        seen = within(listing, self.cache.part)
        client.download(self.cache.repo, commit, [seen[CONFIG]], lambda done, total: None)
        try:
            check_family(seen, read_json(self.cache.snapshot(commit) / seen[CONFIG]))
        except CheckpointError as error:
            raise HubError("not_found", error.message) from error

    def _verify(self, commit: str, listing: Mapping[str, Listed]) -> tuple[dict[str, Pin], list[str]]:
        """Hash every file; return what was found, and the names that do not match pin or tree."""
        pins = self.pins.of(self.cache, commit)
        found, wrong = {}, []
        for name, listed in listing.items():
            path = self.cache.snapshot(commit) / name
            found[name] = hash_file(path)
            expected = pins.get(name)
            if not (found[name] == expected if expected else listed.matches(path, found[name])):
                wrong.append(name)
        return found, wrong
