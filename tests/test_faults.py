"""What breaks beside the model: it is said where an operator looks, and the rest goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import httpx
import pytest
from conftest import READY_SECONDS, served


def test_a_page_that_cannot_be_built_is_told_by_readyz_and_the_rest_answers(
    tmp_path: Path, photographs: dict[str, Path]
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['gradio'] = None\n")
    with served("--model", "bundled", env={"PYTHONPATH": str(tmp_path)}, ready=False) as url:
        page = httpx.get(url)
        assert page.status_code == 503
        assert page.json()["error"]["message"].startswith("The page could not be built; everything else works. It was ")
        state = httpx.get(f"{url}/readyz")
        assert (state.status_code, state.json()["ready"]) == (503, False)
        assert "ModuleNotFoundError" in state.json()["reason"]
        assert httpx.get(f"{url}/healthz").status_code == 200
        deadline = time.monotonic() + READY_SECONDS
        with photographs["coffee"].open("rb") as file:
            picture = file.read()
        while (answer := httpx.post(f"{url}/api/analyze", files={"image": picture})).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert answer.json()["results"][0]["groups"]


@pytest.mark.parametrize("variable", ["ALL_PROXY", "HTTPS_PROXY"])
def test_a_socks_proxy_in_the_environment_stops_nothing(variable: str) -> None:
    quiet = {name: "" for name in os.environ if name.lower().endswith("_proxy")}
    with served("--model", "bundled", env=quiet | {variable: "socks5://localhost:9"}) as url:
        client = httpx.Client(trust_env=False)
        assert client.get(url).status_code == 200
        assert client.get(f"{url}/config").status_code == 200
