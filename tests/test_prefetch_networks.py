"""The model on every network: authorities, proxies, slow and silent servers, tokens that cannot be sent."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme
from bad_certificates import Root, without_its_chain
from conftest import free_port, small_checkpoint
from fake_hub import Authority, FakeHub, Fault
from hub_machine import Machine
from proxies import Proxy

# Certificates.


def old(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return context


def demanding(context: ssl.SSLContext) -> ssl.SSLContext:
    context.verify_mode = ssl.CERT_REQUIRED
    return context


TOMORROW = datetime.now(timezone.utc) + timedelta(days=1)
SERVERS: dict[str, tuple[Callable[[Root], ssl.SSLContext], str]] = {
    "a certificate that is not valid yet": (lambda root: root.context(since=TOMORROW), "Set this machine's clock"),
    "an RSA key of 1024 bits": (lambda root: root.context(bits=1024), "too weak"),
    "a signature with SHA-1": (lambda root: root.context(sha1=True), "too weak"),
    "TLS 1.1 alone": (lambda root: old(root.context()), "only an old TLS"),
    "a certificate of the client is demanded": (lambda root: demanding(root.context()), "certificate of the client"),
}


@pytest.mark.parametrize("case", SERVERS)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_a_server_that_is_refused_is_told_why(tmp_path: Path, case: str) -> None:
    root = Root()
    make, says = SERVERS[case]
    with FakeHub(small_checkpoint(), tls=make(root)).running() as hub:
        code, text = Machine(tmp_path / "home", hub, root.write(tmp_path / "root.pem")).run(case=case)
    assert (code, says in text) == (10, True), text


def test_an_authority_that_may_not_sign_for_the_name_is_told(tmp_path: Path) -> None:
    root = Root(only="other.example")
    with FakeHub(small_checkpoint(), tls=root.context()).running() as hub:
        code, text = Machine(tmp_path / "home", hub, root.write(tmp_path / "root.pem")).run(case="a name constraint")
    assert (code, "name constraint" in text) == (10, True), text


def test_a_server_that_leaves_out_its_intermediate_certificates_is_told(tmp_path: Path) -> None:
    context, root = without_its_chain(tmp_path)
    with FakeHub(small_checkpoint(), tls=context).running() as hub:
        code, text = Machine(tmp_path / "home", hub, root).run(case="the intermediate certificate is missing")
    assert (code, "does not send its intermediate certificates" in text) == (10, True), text


def test_a_root_without_key_identifiers_is_trusted(tmp_path: Path) -> None:
    """As those of many companies are: Python 3.13's own default would refuse it."""
    root = Root()
    with FakeHub(small_checkpoint(), tls=root.context()).running() as hub:
        code, text = Machine(tmp_path / "home", hub, root.write(tmp_path / "root.pem")).run(
            case="a root without key identifiers"
        )
    assert code == 0, text


def test_a_bundle_of_which_one_is_damaged_serves_and_a_leaf_is_no_authority(
    machine: Machine, ca: Path, tmp_path: Path
) -> None:
    leaf = tmp_path / "leaf.pem"
    trustme.CA().issue_cert("localhost").cert_chain_pems[0].write_to_path(leaf)
    code, text = machine.run(CLIP_APP_CA_BUNDLE=str(leaf), case="a server's own certificate as CA_BUNDLE")
    assert (code, "no usable authority" in text) == (10, True), text
    damaged = tmp_path / "damaged.pem"
    block = "-----BEGIN CERTIFICATE-----\nMIIBdamaged\n-----END CERTIFICATE-----\n"
    damaged.write_text(block + ca.read_text())
    code, text = machine.run(CLIP_APP_CA_BUNDLE=str(damaged), case="a damaged certificate first in the bundle")
    assert (code, "certificate 1 of 2 is damaged" in text) == (0, True), text


def test_both_files_are_trusted_where_two_variables_name_some(machine: Machine, ca: Path, tmp_path: Path) -> None:
    del machine.env["CLIP_APP_CA_BUNDLE"]
    other = Root().write(tmp_path / "system.pem")
    code, text = machine.run(
        REQUESTS_CA_BUNDLE=str(ca), SSL_CERT_FILE=str(other), case="REQUESTS_CA_BUNDLE beside another SSL_CERT_FILE"
    )
    assert code == 0, text


def test_a_folder_of_certificates_will_do(machine: Machine, ca: Path, tmp_path: Path) -> None:
    folder = tmp_path / "configmap"
    folder.mkdir()
    (folder / "company.pem").write_bytes(ca.read_bytes())
    code, text = machine.run(CLIP_APP_CA_BUNDLE=str(folder), case="CA_BUNDLE is a folder of .pem files")
    assert code == 0, text


def test_an_authority_that_has_ended_is_counted_and_no_fault(machine: Machine, ca: Path, tmp_path: Path) -> None:
    """As one of 144 in many a system's bundle."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(Root(since=datetime.now(timezone.utc) - timedelta(days=900)).pem + ca.read_bytes())
    assert machine.run(CLIP_APP_CA_BUNDLE=str(bundle))[0] == 0
    code, text = machine.run("doctor", CLIP_APP_CA_BUNDLE=str(bundle))
    line = next(line for line in text.splitlines() if "bundle.pem" in line)
    machine.record("doctor, one of two authorities has ended", code, line)
    assert (code, line[:2], "2 authorities, 1 of them ended" in line) == (0, "ok", True), text


# Proxies.


@pytest.mark.parametrize(
    ("kind", "over_tls", "variable"),
    [
        ("connect", False, "HTTPS_PROXY"),
        ("connect", True, "HTTPS_PROXY"),
        ("connect", False, "all_proxy"),
        ("socks5", False, "ALL_PROXY"),
    ],
)
def test_a_proxy_is_the_way(machine: Machine, authority: Authority, kind: str, over_tls: bool, variable: str) -> None:
    proxy = Proxy(kind, tls=authority.context() if over_tls else None)  # type: ignore[arg-type]
    with proxy.running() as address:
        case = f"a proxy of {address.partition(':')[0]}:// in {variable}"
        code, text = machine.run(NO_PROXY="", case=case, **{variable: address})
    assert code == 0, text
    assert proxy.reached, "nothing went around it"


def test_a_proxy_over_tls_that_nobody_vouches_for_is_refused(machine: Machine, authority: Authority) -> None:
    with Proxy(tls=Root().context()).running() as address:
        code, text = machine.run(NO_PROXY="", HTTPS_PROXY=address, case="a proxy of https:// that is not trusted")
    assert code == 10, text
    assert machine.hub.requests == []


def test_an_endpoint_that_is_empty_is_as_if_unset(machine: Machine) -> None:
    with Proxy(answer="403 Forbidden").running() as address:
        code, text = machine.run(
            NO_PROXY="", HTTPS_PROXY=address, HF_ENDPOINT="", case="HF_ENDPOINT empty, 403 of the proxy"
        )
    assert code == 11, text
    assert "not encrypted" not in text


@pytest.mark.parametrize("answer", ["403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway"])
def test_what_a_proxy_answers_is_told(machine: Machine, answer: str) -> None:
    with Proxy(answer=answer).running() as address:
        code, text = machine.run(NO_PROXY="", HTTPS_PROXY=address, case=f"the proxy answers {answer[:3]}")
    assert code == 11
    assert f"The proxy refused the way to the Hub ({answer})" in text
    assert "secret" not in text


def test_a_proxy_that_is_dead_is_named(machine: Machine) -> None:
    address = f"http://ann:secret@localhost:{free_port()}"
    code, text = machine.run(NO_PROXY="", HTTPS_PROXY=address, case="the proxy is dead")
    assert code == 11
    assert "The proxy that HTTPS_PROXY names cannot be reached (connection refused). Check HTTPS_PROXY." in text
    assert "secret" not in text


def test_a_scheme_that_is_none_is_named(machine: Machine) -> None:
    address = "htp://ann:secret@localhost:8080"
    code, text = machine.run(NO_PROXY="", HTTPS_PROXY=address, case="a proxy of htp://")
    assert (code, "Check HTTPS_PROXY" in text) == (11, True), text
    assert "secret" not in text
    code, text = machine.run(HF_ENDPOINT="htp://hub.example", case="HF_ENDPOINT of htp://")
    assert (code, "Check HF_ENDPOINT" in text) == (11, True), text


# Patience.


def bad(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("BAD"))


def test_the_deadline_holds_inside_a_download(machine: Machine) -> None:
    """At a kilobyte a second the whole would take a quarter of an hour."""
    machine.hub.faults.append(Fault("/cdn/", "slow", 1, times=99))
    code, text = machine.run("prefetch", "--no-labels", "--deadline", "6", case="the content network is too slow")
    assert code == 11
    assert "The Hub is too slow" in text
    assert not machine.complete
    machine.hub.faults.clear()
    assert machine.run()[0] == 0


def test_a_silent_hub_ends_doctor(machine: Machine) -> None:
    machine.hub.faults.append(Fault("/api/models/", "stall", 3600, times=99))
    code, text = machine.run("doctor")
    machine.record("doctor, the Hub is silent", code, bad(text))
    assert code == 11
    assert "The Hub cannot be reached (no answer in time)" in text


def test_a_handshake_that_never_ends_ends_doctor(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"https://localhost:{silent.getsockname()[1]}"
        code, text = machine.run("doctor", HF_ENDPOINT=endpoint)
    machine.record("doctor, a handshake that never ends", code, bad(text))
    assert code == 11
    assert "cannot be reached" in text


def test_a_token_that_cannot_be_sent_is_named(machine: Machine) -> None:
    code, text = machine.run(HF_TOKEN="hf_schl\u00fcssel", case="a token with an umlaut")
    assert (code, "HF_TOKEN holds characters that cannot be sent" in text) == (15, True), text
    assert machine.hub.requests == []


# What is not served.


@pytest.mark.parametrize("family", ["llava", "jina_clip", "chinese_clip", "siglip2"])
def test_a_family_that_is_not_served_is_15_before_the_weights(machine: Machine, family: str) -> None:
    machine.hub.files["config.json"] = f'{{"model_type": "{family}"}}'.encode()
    code, text = machine.run(case=f"a model of type {family}")
    assert code == 15
    assert ("NaFlex" if family == "siglip2" else f"type '{family}' is not CLIP or SigLIP") in text
    assert machine.hub.downloads("model.safetensors") == 0


@pytest.mark.parametrize(
    ("case", "files", "says"),
    [
        ("open_clip alone", ["open_clip_config.json", "open_clip_pytorch_model.bin"], "the format of open_clip"),
        ("a pickle alone", ["config.json", "preprocessor_config.json", "model.pt"], "pickles alone (model.pt)"),
        (
            "a part of the weights is missing",
            ["config.json", "preprocessor_config.json", "tokenizer.json", "model-00001-of-00002.safetensors"],
            "has no model-00002-of-00002.safetensors",
        ),
    ],
)
def test_a_repository_in_another_format_is_told_which(machine: Machine, case: str, files: list[str], says: str) -> None:
    machine.hub.files.clear()
    machine.hub.files |= dict.fromkeys(files, b"{}")
    code, text = machine.run(case=case)
    assert (code, says in text) == (15, True), text
    assert "CLIP_APP_MODEL" in text
