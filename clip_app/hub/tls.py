"""One verified TLS context for every outgoing connection of the process.

The roots are certifi's bundle, the operating system's store, where company
certificates are installed, and the operator's own file.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import certifi

from clip_app.errors import TLSConfigError
from clip_app.settings import PREFIX, Settings

__all__ = ["Certificates", "find_operator_files", "sources", "unverified_context", "verified_context"]

logger = logging.getLogger("clip_app")

# They are added to CLIP_APP_CA_BUNDLE and to each other: many images set one of them to the system's own file.
OPERATOR_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
IN_A_FOLDER = re.compile(r".*\.(pem|crt|cer)|[0-9a-f]{8}\.\d+")  # of a mounted ConfigMap, or as c_rehash names them
BLOCK = re.compile(
    rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----.*?-----END (?:TRUSTED |X509 )?CERTIFICATE-----", re.S
)


@dataclass(frozen=True)
class Certificates:
    """One source of roots: what named it, where it is, and what it holds.

    ``ended`` of the ``count`` authorities are over, and ``valid_until`` is when the first of the others will be.
    """

    setting: str
    path: Path
    count: int
    valid_until: datetime | None
    ended: int = 0


def find_operator_files(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[tuple[str, Path]]:
    """Return the operator's CA files and folders with the settings that name them, each once."""
    named = [(f"{PREFIX}CA_BUNDLE", settings.ca_bundle)] if settings.ca_bundle is not None else []
    named += [(name, Path(value)) for name in OPERATOR_VARIABLES if (value := environ.get(name))]
    found: dict[Path, str] = {}
    for setting, path in named:
        found.setdefault(path, setting)
    return [(setting, path) for path, setting in found.items()]


def sources(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[Certificates]:
    """Load every source on its own and say what it holds.

    Raises:
        TLSConfigError: a file is missing or holds no authority.
    """
    return [_inspect(setting, path) for setting, path in _all_sources(settings, environ)]


def verified_context(settings: Settings, environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Make the context: host names checked, every chain verified up to one of the roots.

    It is made with PROTOCOL_TLS_CLIENT, without the strictness that create_default_context asks for on Python 3.13:
    the roots of many companies lack the key identifiers that it wants.

    Raises:
        TLSConfigError: a file is missing or holds no authority.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for setting, path in _all_sources(settings, environ):
        _load(context, setting, path)
    return context


def unverified_context() -> ssl.SSLContext:
    """Make a context that accepts any certificate. Only for bytes that a pinned hash verifies."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _all_sources(settings: Settings, environ: Mapping[str, str]) -> list[tuple[str, Path]]:
    found = [("certifi", Path(certifi.where()))]
    if settings.tls_roots == "certifi+system":
        for path in _system_paths():
            with suppress(TLSConfigError):  # not the operator's doing, and certifi's are there
                _inspect("system", path)
                found.append(("system", path))
    return found + find_operator_files(settings, environ)


def _system_paths() -> list[Path]:
    """The operating system's store; SSL_CERT_FILE, which replaces it in OpenSSL, adds to it here."""
    paths = ssl.get_default_verify_paths()
    candidates = [Path(paths.openssl_cafile), Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/pki/tls/cert.pem")]
    existing = [path.resolve() for path in candidates if path.is_file()]
    return list(dict.fromkeys(existing))


def _inspect(setting: str, path: Path) -> Certificates:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, setting, path)
    ends = [ssl.cert_time_to_seconds(str(certificate["notAfter"])) for certificate in context.get_ca_certs()]
    coming = [end for end in ends if end > time.time()]
    until = datetime.fromtimestamp(min(coming), timezone.utc) if coming else None
    return Certificates(setting, path, len(ends), until, len(ends) - len(coming))


def _load(context: ssl.SSLContext, setting: str, path: Path) -> None:
    """Add a file's authorities, or those of a folder's files."""
    before = len(context.get_ca_certs())
    try:
        files = [file for file in sorted(path.iterdir()) if _may_hold_some(file)] if path.is_dir() else [path]
        for file in files:
            _load_file(context, setting, file)
    except FileNotFoundError:
        raise TLSConfigError(f"{setting}={path}: there is no such file. Give the path of a PEM file.") from None
    except PermissionError:
        raise TLSConfigError(f"{setting}={path}: the file may not be read. Give this user read access.") from None
    except OSError as error:
        raise TLSConfigError(f"{setting}={path}: it cannot be read: {error.strerror}.") from None
    if len(context.get_ca_certs()) > before:
        return
    if path.is_dir():
        raise TLSConfigError(
            f"{setting}={path}: there is no usable authority in this folder. Put .pem or .crt files in."
        )
    if BLOCK.search(path.read_bytes()) is None:
        raise TLSConfigError(f"{setting}={path}: there are no certificates in it. It must be a PEM file.")
    if not _loads_whole(path) or not _known_again(path, context):
        raise TLSConfigError(
            f"{setting}={path}: there is no usable authority in it, only a server's own or damaged certificates. "
            "Ask for the certificate of the authority that signed it."
        )


def _may_hold_some(file: Path) -> bool:
    return IN_A_FOLDER.fullmatch(file.name) is not None and file.is_file()


def _load_file(context: ssl.SSLContext, setting: str, file: Path) -> None:
    """Add what a file holds; where a certificate in it is damaged, the others, and say which was left."""
    try:
        context.load_verify_locations(cafile=file)
        return
    except ssl.SSLError:
        blocks = BLOCK.findall(file.read_bytes())
    for place, block in enumerate(blocks, 1):
        try:
            context.load_verify_locations(cadata=block.decode("ascii", "replace"))
        except ssl.SSLError:
            if len(blocks) > 1:
                logger.warning(
                    "%s=%s: certificate %d of %d is damaged and was left out", setting, file, place, len(blocks)
                )


def _loads_whole(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return False
    return True


def _known_again(path: Path, context: ssl.SSLContext) -> bool:
    """Whether a file's authorities were in the context before: the system's own file, named once more."""
    alone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    alone.load_verify_locations(cafile=path)
    authorities = alone.get_ca_certs(binary_form=True)
    known = set(context.get_ca_certs(binary_form=True))
    return bool(authorities) and known.issuperset(authorities)
