"""The one private import of the Hub's client: the hook that enforces HF_HUB_OFFLINE."""

from __future__ import annotations

import inspect

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import httpx
from huggingface_hub.utils._http import hf_request_event_hook


def test_the_clients_hook_refuses_a_request_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OfflineModeIsEnabled):
        hf_request_event_hook(httpx.Request("GET", "https://hub.example/api/models/a/b"))
    assert list(inspect.signature(hf_request_event_hook).parameters) == ["request"]
