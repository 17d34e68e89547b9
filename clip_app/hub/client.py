"""The real Hub client under one TLS context and one deadline: what it is asked, and how often."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import HfApi, get_token, set_client_factory, snapshot_download
from huggingface_hub.hf_api import RepoFile
from tqdm import tqdm

from clip_app.errors import HubError, TLSConfigError
from clip_app.hub.errors import endpoint, endpoint_shown, explain, not_the_hub, proxy_setting, short
from clip_app.hub.files import Pin, git_blob_hash
from clip_app.hub.tls import unverified_context, verified_context
from clip_app.hub.unpromised import hf_request_event_hook, httpx
from clip_app.settings import Settings
from clip_app.telemetry import HUB_DOWNLOAD_BYTES

__all__ = ["Client", "Listed", "Progress"]

logger = logging.getLogger("clip_app")

# Without a word from the Hub when to come back. The client tries several times itself within one download.
UNREACHABLE_TRIES = 3
DOWNLOAD_TRIES = 6
TIMEOUT = {"connect": 5.0, "read": 15.0, "write": 15.0, "pool": 15.0}
LONGEST_PAUSE = 30.0
TOO_SLOW = "The Hub is too slow: it was not done before the deadline. Run clip-app prefetch with a longer --deadline."

Progress = Callable[[int, int], None]  # bytes so far, and in all
T = TypeVar("T")


@dataclass(frozen=True)
class Listed:
    """What the Hub says of a file: SHA-256 for large ones, git's SHA-1 for the others."""

    size: int
    sha256: str | None
    git_sha1: str

    def matches(self, path: Path, found: Pin) -> bool:
        """Say whether a file, of the size and SHA-256 ``found``, is this one."""
        if self.sha256 is not None:
            return found == Pin(self.size, self.sha256)
        return found.size == self.size and git_blob_hash(path) == self.git_sha1


class Client:
    """The way to the Hub until a deadline, on time.monotonic's clock; verified or not for its whole life."""

    def __init__(self, settings: Settings, deadline: float, *, verified: bool = True) -> None:
        """Give the Hub's client the context.

        Raises:
            HubError: a certificate file is unusable, the endpoint is not encrypted, or the token cannot be sent.
        """
        parts = urlsplit(endpoint())
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise HubError("tls", f"HF_ENDPOINT={endpoint_shown()} is not encrypted. Use https://.")
        try:
            context = verified_context(settings) if verified else unverified_context()
        except TLSConfigError as error:
            raise HubError("tls", str(error)) from error
        self.verified = verified
        self._deadline = deadline
        self._token = _token() if verified and parts.scheme == "https" else False
        set_client_factory(lambda: _make(context, deadline))

    def commit(self, repo: str, revision: str) -> str:
        """Ask which commit a branch or tag is."""
        with _of_the_hubs_form():
            return str(HfApi(token=self._token).model_info(repo, revision=revision).sha or revision)

    def listing(self, repo: str, commit: str) -> dict[str, Listed]:
        """Ask for the files of a commit."""
        with _of_the_hubs_form():
            return {
                entry.path: Listed(entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
                for entry in HfApi(token=self._token).list_repo_tree(repo, recursive=True, revision=commit)
                if isinstance(entry, RepoFile)
            }

    def download(self, repo: str, commit: str, names: Sequence[str], progress: Progress) -> None:
        """Put files into the cache, as often as it takes.

        Raises:
            HubError: they did not come before the deadline.
        """

        def once() -> None:
            bar = _progress_bar(progress)
            found = snapshot_download(
                repo, revision=commit, allow_patterns=list(names), token=self._token, tqdm_class=bar
            )
            # Where the Hub fails half-way, the client is content with what the cache happens to hold.
            if missing := [name for name in names if not Path(found, name).is_file()]:
                raise ConnectionError(f"{missing[0]} did not arrive")

        self.patiently(once, repo, commit, DOWNLOAD_TRIES)

    def patiently(self, action: Callable[[], T], repo: str, revision: str, most: int = UNREACHABLE_TRIES) -> T:
        """Try until it works, the deadline comes, or the failure is not worth another try.

        Raises:
            HubError: it did not work; its cause is what was raised last.
        """
        pause, tries = 0.5, 0
        while True:
            try:
                return action()
            except Exception as error:
                failure = explain(error, repo, revision)
                if failure is None or failure is error:  # none of the Hub's: another try would end the same
                    raise
                tries += 1
                wait = max(pause, failure.after or 0.0)
                hopeless = failure.after is None and not failure.patient and tries >= most
                if not failure.retry or hopeless or time.monotonic() + wait >= self._deadline:
                    raise failure from error
                logger.warning("%s Trying again in %.1f s.", failure, wait)
                logger.debug("it was %s: %s", type(error).__name__, short(error))
                time.sleep(wait)
                pause = min(2 * pause, LONGEST_PAUSE)


@contextmanager
def _of_the_hubs_form() -> Iterator[None]:
    """JSON of another form than the Hub's is an answer of somebody else; the Hub's client trips over it."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise not_the_hub() from error


def _token() -> bool | None:
    """The user's own, where it can be sent: a header is printable ASCII."""
    token = get_token()
    if token is not None and not (token.isascii() and token.isprintable()):
        raise HubError("not_found", "HF_TOKEN holds characters that cannot be sent. Copy the token again, or unset it.")
    return None


def _make(context: ssl.SSLContext, deadline: float) -> Any:
    def stay_encrypted(request: Any) -> None:
        """Follow nobody from https to http, where anybody on the way answers; each request comes by here."""
        if request.url.scheme != "https" and endpoint().startswith("https://"):
            target = f"{request.url.scheme}://{request.url.host}"
            text = f"The Hub sends on to {target}, which is not encrypted. Check HF_ENDPOINT and the proxy."
            raise HubError("tls", text)

    def keep_the_deadline(request: Any) -> None:
        """Some calls of the Hub's client ask for no timeout at all, and others for more than there is left."""
        left, asked = deadline - time.monotonic(), request.extensions.get("timeout") or {}
        if left <= 0:
            raise HubError("network", TOO_SLOW)
        request.extensions["timeout"] = {name: min(asked.get(name) or usual, left) for name, usual in TIMEOUT.items()}

    def read_until_the_deadline(response: Any) -> None:
        response.stream = _Timed(response.stream, deadline)

    hooks = {
        "request": [hf_request_event_hook, stay_encrypted, keep_the_deadline],
        "response": [read_until_the_deadline],
    }
    try:
        return httpx.Client(
            verify=context, mounts=_proxies(context), event_hooks=hooks, follow_redirects=True, timeout=None
        )
    except (ValueError, httpx.InvalidURL) as error:
        setting = proxy_setting() or "the variables of proxies"
        raise HubError("network", f"A proxy's address is not understood ({short(error)}). Check {setting}.") from error


def _proxies(context: ssl.SSLContext) -> dict[str, Any]:
    """The proxies that are spoken to over TLS, verified with the same context; the library knows the others."""
    proxies = getproxies()
    if "*" in (name.strip() for name in proxies.get("no", "").split(",")):
        return {}
    return {
        f"{scheme}://": httpx.HTTPTransport(verify=context, proxy=httpx.Proxy(address, ssl_context=context))
        for scheme in ("http", "https", "all")
        if (address := proxies.get(scheme, "")).startswith("https://")
    }


class _Timed(httpx.SyncByteStream):  # type: ignore[misc]
    """A body that ends with an error at the deadline, however slowly its bytes trickle in."""

    def __init__(self, stream: Any, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if time.monotonic() >= self._deadline:
                raise HubError("network", TOO_SLOW)
            yield chunk

    def close(self) -> None:
        self._stream.close()


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
