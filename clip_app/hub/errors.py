"""What an error of the network, the Hub or the volume means, and the one thing to change.

An error that is none of them is not translated: it goes up as what it is.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants, errors, get_token

from clip_app.errors import HubError, Reason
from clip_app.hub.unpromised import httpx
from clip_app.hub.volume import explain_file_error

__all__ = ["causes", "endpoint", "endpoint_shown", "explain", "not_the_hub", "offline_switch", "proxy_setting", "short"]

E = TypeVar("E", bound=BaseException)

LONGEST_RETRY_AFTER = 300.0
CREDENTIALS = re.compile(r"//[^/@\s]*@")
# By OpenSSL's X509_V_ERR_* numbers.
WEAK = "A certificate on the way has a key or a signature that is too weak. Ask whoever runs the server or the proxy."
CONSTRAINED = "The authority may not sign for this host name (name constraint). Ask whoever runs the proxy."
UNKNOWN_AUTHORITY = (
    "The Hub's certificate is not signed by a trusted authority. Set CLIP_APP_CA_BUNDLE to your network's CA file; "
    "where it is set, the server does not send its intermediate certificates, or another authority signed it."
)
CERTIFICATE_ADVICE = {
    9: "The Hub's certificate is not valid yet. Set this machine's clock.",
    10: "The Hub's certificate has expired. Check this machine's clock, then ask whoever runs the proxy.",
    21: "The server does not send its intermediate certificates. Ask its owner for the whole chain.",
    47: CONSTRAINED,
    48: CONSTRAINED,
    62: "The Hub's certificate is for another host name. Check HF_ENDPOINT.",
    64: "The Hub's certificate is for another address. Check HF_ENDPOINT.",
    66: WEAK,
    67: WEAK,
    68: WEAK,
}
# By the marks of OpenSSL's reasons.
HANDSHAKE_ADVICE = {
    ("UNSUPPORTED_PROTOCOL", "PROTOCOL_VERSION", "WRONG_SSL_VERSION"): (
        "The server offers only an old TLS. Ask its owner for TLS 1.2 or newer."
    ),
    ("CERTIFICATE_REQUIRED",): "The server demands a certificate of the client, which is not supported. Ask its owner.",
    ("KEY_TOO_SMALL", "MD_TOO_WEAK"): WEAK,
}
# What the Hub's client raises of a connection or a file that broke off, beside its own library's errors.
BROKEN = (
    ConnectionError,
    TimeoutError,
    errors.LocalEntryNotFoundError,
    errors.HfHubHTTPError,
)
UNREACHABLE = {
    "refused": "connection refused",
    "Name or service not known": "its name is not known",
    "name resolution": "its name is not known",
    "timed out": "no answer in time",
    "unreachable": "no route",
}


def explain(error: BaseException, repo: str, revision: str) -> HubError | None:
    """Find the reason in the whole chain of causes; a certificate failure hides three levels down.

    Returns None for an error that is none of the network, the Hub or the volume.
    """
    chain = list(causes(error))
    if (known := _first(chain, HubError)) is not None:  # of a redirect, inside the client's own
        return known
    if (cause := _first(chain, ssl.SSLCertVerificationError)) is not None:
        return HubError("tls", CERTIFICATE_ADVICE.get(cause.verify_code, UNKNOWN_AUTHORITY))
    if (broken := _first(chain, ssl.SSLError)) is not None:
        return _explain_handshake(broken)
    return _explain_repository(chain, repo, revision) or _explain_system(chain)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came of, each once."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first(chain: list[BaseException], kind: type[E]) -> E | None:
    return next((cause for cause in chain if isinstance(cause, kind)), None)


def _explain_handshake(error: ssl.SSLError) -> HubError:
    for marks, advice in HANDSHAKE_ADVICE.items():
        if any(mark in (error.reason or "") for mark in marks):
            return HubError("tls", advice)
    return HubError("network", "The TLS connection to the Hub broke. Check the proxy or the network.", retry=True)


def _explain_repository(chain: list[BaseException], repo: str, revision: str) -> HubError | None:
    answers: tuple[tuple[type[BaseException], Reason, str], ...] = (
        (errors.OfflineModeIsEnabled, "offline", f"{offline_switch()} and {repo} is not in the cache. Unset it."),
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
    return next((HubError(reason, text) for kind, reason, text in answers if _first(chain, kind)), None)


def _explain_system(chain: list[BaseException]) -> HubError | None:
    lost = _first(chain, httpx.TransportError) or _first(chain, httpx.InvalidURL)
    if lost is None and (failure := explain_file_error(*chain)) is not None:  # a firewall's EPERM is no file's
        return failure
    response = next((r for cause in chain if (r := getattr(cause, "response", None)) is not None), None)
    if response is not None:
        return _explain_answer(response)
    strange = any(_is_strange(cause) for cause in chain)
    if strange or _first(chain, json.JSONDecodeError):
        return not_the_hub(retry=strange)
    if lost is not None or any(isinstance(cause, BROKEN) for cause in chain):
        return _explain_transport(lost, chain)
    refused = next((cause for cause in chain if isinstance(cause, OSError) and cause.errno), None)
    if refused is not None:
        return HubError("permissions", f"The cache's volume answered: {refused.strerror}. Check the folder of HF_HOME.")
    return None


def not_the_hub(*, retry: bool = False) -> HubError:
    """Somebody else answers at the Hub's address."""
    return HubError(
        "network",
        f"What answers at {endpoint_shown()} is not the Hub. It may be a login or block page of the network. Open it "
        "in a browser, or check HF_ENDPOINT and the proxy.",
        retry=retry,
    )


def _is_strange(cause: BaseException) -> bool:
    """Whether a file came without what the Hub says of each, or, in words of the client's own, with another size."""
    return isinstance(cause, errors.FileMetadataError) or (type(cause) is OSError and cause.errno is None)


def _explain_answer(response: Any) -> HubError:
    code, host = response.status_code, str(response.url.host)
    busy = code == 429 or code >= 500
    if host != urlsplit(endpoint()).hostname and not busy:  # its token and its repositories have no part in it
        return HubError("network", f"{host}, where the Hub sends on to, answered {code}. Let it through the firewall.")
    if code in (401, 403):
        token = bool(get_token())
        what = "the token in HF_TOKEN" if token else "a request without a token"
        advice = "Unset it, or set one that may read this model" if token else "Set HF_TOKEN"
        return HubError("not_found", f"The Hub refused {what} ({code}). {advice}.")
    if code in (404, 410, 451):
        reason = "is withheld for legal reasons" if code == 451 else "is not there"
        return HubError("not_found", f"The model {reason} ({code}). Change CLIP_APP_MODEL or CLIP_APP_REVISION.")
    after = _retry_after(response) if busy else None
    return HubError("network", f"The Hub answered {code}. Try again later.", retry=busy, after=after, patient=busy)


def _retry_after(response: Any) -> float | None:
    try:
        return min(float(response.headers["Retry-After"]), LONGEST_RETRY_AFTER)
    except (KeyError, ValueError):
        return None


def _explain_transport(lost: BaseException | None, chain: list[BaseException]) -> HubError:
    if isinstance(lost, httpx.ProxyError):
        return HubError("network", f"The proxy refused the way to the Hub ({short(lost)}). Check {proxy_setting()}.")
    if isinstance(lost, (httpx.UnsupportedProtocol, httpx.InvalidURL)):
        return HubError("network", f"An address has no scheme that is known ({short(lost)}). Check HF_ENDPOINT.")
    text = " ".join(str(cause) for cause in chain)
    reason = next((words for mark, words in UNREACHABLE.items() if mark in text), None)
    said = f" ({reason})" if reason else ""
    if (proxy := proxy_setting()) and isinstance(lost, (httpx.ConnectError, httpx.ConnectTimeout)):
        return HubError("network", f"The proxy that {proxy} names cannot be reached{said}. Check {proxy}.", retry=True)
    return HubError(
        "network",
        f"The Hub cannot be reached{said}. Check the network, the proxy or HF_ENDPOINT.",
        retry=True,
    )


def short(error: BaseException) -> str:
    """Return the error's own words, without a password in an address."""
    return CREDENTIALS.sub("//", str(error))[:120] or type(error).__name__


def proxy_setting() -> str | None:
    """Return the variable that names the proxy on the way to the Hub; None where there is none."""
    address = urlsplit(endpoint())
    proxies = getproxies()
    scheme = next((name for name in (address.scheme, "all") if proxies.get(name)), None)
    if scheme is None or proxy_bypass(address.hostname or ""):
        return None
    return next((name for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY") if os.environ.get(name)), "the proxy")


def offline_switch() -> str:
    """Say which of the variables keeps it offline."""
    name = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    return f"{name} is set" if os.environ.get(name) else "HF_HUB_OFFLINE is set"


def endpoint() -> str:
    """The Hub's address."""
    return str(constants.ENDPOINT)


def endpoint_shown() -> str:
    """The Hub's address, without a password that it may hold."""
    return CREDENTIALS.sub("//", endpoint())
