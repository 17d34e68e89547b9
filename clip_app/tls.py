"""One verified TLS context for every outgoing connection of the process.

The roots are certifi's bundle, the operating system's store, where company
certificates are installed, and the operator's own file.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import certifi

from clip_app.errors import TLSConfigError
from clip_app.settings import PREFIX, Settings

__all__ = ["Certificates", "find_operator_file", "sources", "unverified_context", "verified_context"]

# The first that is set is the operator's file.
OPERATOR_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class Certificates:
    """One source of roots: what named it, where it is, and what it holds."""

    setting: str
    path: Path
    count: int
    valid_until: datetime | None


def find_operator_file(settings: Settings, environ: Mapping[str, str] = os.environ) -> tuple[str, Path] | None:
    """Return the operator's CA file and the setting that names it: CA_BUNDLE, then the usual variables."""
    if settings.ca_bundle is not None:
        return f"{PREFIX}CA_BUNDLE", settings.ca_bundle
    for name in OPERATOR_VARIABLES:
        if value := environ.get(name):
            return name, Path(value)
    return None


def sources(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[Certificates]:
    """Load every source on its own and say what it holds.

    Raises:
        TLSConfigError: a file is missing or holds no certificates.
    """
    found = [_inspect("certifi", Path(certifi.where()))]
    if settings.tls_roots == "certifi+system":
        for path in _system_paths():
            with suppress(TLSConfigError):  # not the operator's doing, and certifi's are there
                found.append(_inspect("system", path))
    if (operator := find_operator_file(settings, environ)) is not None:
        found.append(_inspect(*operator))
    return found


def verified_context(settings: Settings, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Make the context: host names checked, every chain verified up to one of the roots.

    Raises:
        TLSConfigError: a file is missing or holds no certificates.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for source in sources(settings, environ):
        _load(context, source.setting, source.path)
    return context


def unverified_context() -> ssl.SSLContext:
    """Make a context that accepts any certificate. Only for bytes that a pinned hash verifies."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _system_paths() -> list[Path]:
    """The operating system's store; SSL_CERT_FILE, which replaces it in OpenSSL, adds to it here."""
    paths = ssl.get_default_verify_paths()
    candidates = [Path(paths.openssl_cafile), Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/cert.pem")]
    existing = [path.resolve() for path in candidates if path.is_file()]
    return list(dict.fromkeys(existing))


def _inspect(setting: str, path: Path) -> Certificates:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, setting, path)
    certificates = context.get_ca_certs()
    ends = [ssl.cert_time_to_seconds(str(certificate["notAfter"])) for certificate in certificates]
    until = datetime.fromtimestamp(min(ends), timezone.utc) if ends else None
    return Certificates(setting, path, len(certificates), until)


def _load(context: ssl.SSLContext, setting: str, path: Path) -> None:
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except FileNotFoundError:
        raise TLSConfigError(f"{setting}={path}: there is no such file. Give the path of a PEM file.") from None
    except PermissionError:
        raise TLSConfigError(f"{setting}={path}: the file may not be read. Give this user read access.") from None
    except (ssl.SSLError, OSError):
        raise TLSConfigError(f"{setting}={path}: there are no certificates in it. It must be a PEM file.") from None
