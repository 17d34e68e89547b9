"""Who is trusted: real certificates and real handshakes, in memory."""

from __future__ import annotations

import os
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import certifi
import pytest
import trustme
from certificates import handshake, write_authority
from fake_hub import Authority

from clip_app.errors import TLSConfigError
from clip_app.hub.tls import find_operator_files, sources, unverified_context, verified_context
from clip_app.settings import Settings, load_settings

NOBODY = 65534


def settings(**given: object) -> Settings:
    return load_settings(tls_roots="certifi", **given)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    return authority.write(tmp_path)


def test_every_file_that_is_named_is_added_once() -> None:
    both = {"SSL_CERT_FILE": "/ssl.pem", "REQUESTS_CA_BUNDLE": "/requests.pem"}
    ssl_file, requests_file = ("SSL_CERT_FILE", Path("/ssl.pem")), ("REQUESTS_CA_BUNDLE", Path("/requests.pem"))
    own = ("CLIP_APP_CA_BUNDLE", Path("/own.pem"))
    assert find_operator_files(settings(ca_bundle="/own.pem"), both) == [own, ssl_file, requests_file]
    assert find_operator_files(settings(), both) == [ssl_file, requests_file]
    assert find_operator_files(settings(), both | {"SSL_CERT_FILE": ""}) == [requests_file]
    assert find_operator_files(settings(ca_bundle="/ssl.pem"), both) == [
        ("CLIP_APP_CA_BUNDLE", Path("/ssl.pem")),
        requests_file,
    ]
    assert find_operator_files(settings(), {"CURL_CA_BUNDLE": "/curl.pem"}) == []


def test_two_variables_trust_both_their_authorities(authority: Authority, ca: Path) -> None:
    """As many images have it: one variable for the system's file, the other for the company's."""
    both = {"SSL_CERT_FILE": certifi.where(), "REQUESTS_CA_BUNDLE": str(ca)}
    handshake(verified_context(settings(), both), authority.context())
    handshake(verified_context(settings(), dict(zip(both, reversed(both.values()), strict=True))), authority.context())


def test_every_source_says_what_it_holds_and_when_the_first_of_it_ends(tmp_path: Path) -> None:
    soon = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=10)
    path = write_authority(tmp_path / "ca.pem", soon + timedelta(days=1), soon, soon + timedelta(days=2))
    first, own = sources(settings(ca_bundle=path), {})
    assert (first.setting, first.path) == ("certifi", Path(certifi.where()))
    assert first.count > 50
    assert (own.setting, own.path, own.count, own.valid_until) == ("CLIP_APP_CA_BUNDLE", path, 3, soon)


def test_the_systems_store_is_added_unless_certifi_alone_is_asked_for() -> None:
    names = [source.setting for source in sources(load_settings(tls_roots="certifi+system"), {})]
    assert set(names) <= {"certifi", "system"}
    assert [source.setting for source in sources(settings(), {})] == ["certifi"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operating system's store, in a file of the test."""
    path = tmp_path / "store.pem"
    found = ssl.get_default_verify_paths()._replace(openssl_cafile=str(path))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: found)
    return path


def test_a_company_certificate_in_the_systems_store_is_trusted(authority: Authority, store: Path, ca: Path) -> None:
    ca.rename(store)
    everything = load_settings(tls_roots="certifi+system")
    assert ("system", store) in [(source.setting, source.path) for source in sources(everything, {})]
    handshake(verified_context(everything, {}), authority.context())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(verified_context(settings(), {}), authority.context())


def test_a_damaged_system_store_stops_nothing(store: Path) -> None:
    store.write_text("garbage")
    found = sources(load_settings(tls_roots="certifi+system"), {})
    assert found[0].setting == "certifi"
    assert store not in [source.path for source in found]


def test_a_private_authority_is_trusted_once_it_is_named(authority: Authority, ca: Path) -> None:
    server = authority.context()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(verified_context(settings(), {}), server)
    handshake(verified_context(settings(ca_bundle=ca), {}), server)
    handshake(verified_context(settings(), {"REQUESTS_CA_BUNDLE": str(ca)}), server)


def test_a_trusted_certificate_for_another_host_or_another_time_is_refused(authority: Authority, ca: Path) -> None:
    context = verified_context(settings(ca_bundle=ca), {})
    for server in (authority.context("other.example"), authority.context(expired=True)):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(context, server)


def test_the_unverified_context_takes_any_certificate(authority: Authority) -> None:
    handshake(unverified_context(), authority.context("other.example", expired=True))


@pytest.mark.parametrize("name", ["ca.pem", "company.crt", "0a1b2c3d.0"])
def test_a_folder_of_certificates_will_do(authority: Authority, ca: Path, name: str) -> None:
    """As c_rehash names them, or as Kubernetes mounts a ConfigMap: links through a dotted folder."""
    data = ca.parent / "mount" / "..2026_11_26"
    data.mkdir(parents=True)
    ca.rename(data / name)
    (data.parent / "..data").symlink_to(data.name)
    (data.parent / name).symlink_to(Path("..data", name))
    (data.parent / "README").write_text("not one of them")
    own = sources(settings(ca_bundle=data.parent), {})[-1]
    assert (own.path, own.count) == (data.parent, 1)
    handshake(verified_context(settings(ca_bundle=data.parent), {}), authority.context())


def test_a_folder_without_an_authority_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TLSConfigError, match=r"CLIP_APP_CA_BUNDLE=.*empty: there is no usable authority"):
        verified_context(settings(ca_bundle=tmp_path / "empty"), {})


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_damaged_certificate_is_named_by_its_place_and_the_others_are_used(
    authority: Authority, ca: Path, place: int, caplog: pytest.LogCaptureFixture
) -> None:
    later = datetime.now(timezone.utc) + timedelta(days=99)
    blocks = [ca.read_text(), write_authority(ca.with_name("other.pem"), later).read_text()]
    lines = blocks[1].splitlines()
    blocks.insert(place, "\n".join([lines[0], "AAAA" + lines[1][4:], *lines[2:], ""]))
    ca.write_text("".join(blocks))
    own = sources(settings(ca_bundle=ca), {})[-1]
    assert own.count == 2
    assert f"certificate {place + 1} of 3 is damaged and was left out" in caplog.text
    handshake(verified_context(settings(ca_bundle=ca), {}), authority.context())


def test_a_servers_own_certificate_is_no_authority(authority: Authority, tmp_path: Path) -> None:
    leaf = trustme.CA().issue_cert("hub.example").cert_chain_pems[0]
    leaf.write_to_path(tmp_path / "leaf.pem")
    with pytest.raises(TLSConfigError, match="no usable authority in it, only a server's own"):
        sources(settings(ca_bundle=tmp_path / "leaf.pem"), {})


def test_what_is_named_twice_is_no_fault() -> None:
    handshake_roots = sources(settings(), {"SSL_CERT_FILE": certifi.where()})
    assert [source.setting for source in handshake_roots] == ["certifi", "SSL_CERT_FILE"]
    verified_context(settings(), {"SSL_CERT_FILE": certifi.where()})


def test_authorities_that_have_ended_are_counted_and_do_not_end_the_file(tmp_path: Path) -> None:
    now = datetime.now(timezone.utc).replace(microsecond=0)
    path = write_authority(tmp_path / "ca.pem", now - timedelta(days=3), now + timedelta(days=400))
    own = sources(settings(ca_bundle=path), {})[-1]
    assert (own.count, own.ended, own.valid_until) == (2, 1, now + timedelta(days=400))


@pytest.mark.parametrize(("content", "complaint"), [(None, "there is no such file"), ("garbage", "no certificates")])
def test_a_file_that_cannot_be_used_is_named_with_its_setting(
    tmp_path: Path, content: str | None, complaint: str
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    for look in (sources, verified_context):
        with pytest.raises(TLSConfigError) as caught:
            look(settings(), {"SSL_CERT_FILE": str(path)})
        assert str(caught.value).startswith(f"SSL_CERT_FILE={path}: ")
        assert complaint in str(caught.value)


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_file_that_may_not_be_read_says_so(ca: Path, closed: str) -> None:
    folder = ca.parent / "closed"
    folder.mkdir()
    path = ca.rename(folder / "ca.pem")
    (path if closed == "file" else folder).chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # who may read everything
            os.seteuid(NOBODY)
        with pytest.raises(TLSConfigError, match=r"CLIP_APP_CA_BUNDLE=.*ca\.pem: the file may not be read"):
            sources(settings(ca_bundle=path), {})
    finally:
        if user == 0:
            os.seteuid(0)
        folder.chmod(0o700)
