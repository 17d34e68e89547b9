"""What is used of the Hub's client that it does not promise: a release that takes it away fails here, by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import constants, errors

import clip_app
from clip_app.hub.unpromised import hf_request_event_hook, httpx


def test_the_clients_own_hook_keeps_it_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(errors.OfflineModeIsEnabled):
        hf_request_event_hook(httpx.Request("GET", "https://hub.example"))


def test_the_clients_transport_knows_proxies_over_tls_and_bodies() -> None:
    assert httpx.Proxy("https://hub.example", ssl_context=None).url.scheme == "https"
    assert issubclass(httpx.ProxyError, httpx.TransportError)
    assert hasattr(httpx.SyncByteStream, "close")


def test_nothing_else_private_of_it_is_imported() -> None:
    private = re.compile(r"(from|import) huggingface_hub[\w.]*\._|from huggingface_hub\S* import .*\b_")
    found = {
        path.name
        for path in Path(clip_app.__file__).parent.rglob("*.py")
        if private.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"unpromised.py"}
