"""The page as a person uses it, in a real browser; and all four faces agree."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import free_port, need, served
from gradio_client import Client, handle_file
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
pytestmark = need("chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    yield page
    page.close()


def upload(page: Page, path: Path) -> None:
    page.locator("#picture input[type=file]").set_input_files(path)


def shown(page: Page, group: str) -> list[str]:
    expect(page.locator(f'[data-group="{group}"] .ca-row').first).to_be_visible()
    return page.locator(f'[data-group="{group}"] .ca-row:not(.ca-none) .ca-label').all_inner_texts()


def test_a_photograph_shows_its_bars_and_all_four_faces_agree(
    server: str, page: Page, photographs: dict[str, Path], tmp_path: Path
) -> None:
    photo = photographs["cat"]
    outside: list[str] = []
    page.on("request", lambda r: outside.append(r.url) if not r.url.startswith((server, "data:", "blob:")) else None)
    page.goto(server)
    expect(page.locator(".ca-banner")).to_contain_text("Demonstration model")
    upload(page, photo)
    from_page = shown(page, "kinds")
    assert len(from_page) == 5
    widths = [bar.get_attribute("style") or "" for bar in page.locator(".ca-row .ca-fill").all()]
    assert len(widths) == 12, "five of each group, and none of these"
    assert all("width:" in width for width in widths)
    expect(page.locator(".ca-foot")).to_contain_text("encode")
    page.screenshot(path=tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert outside == [], "the page must work without the internet"

    rest = httpx.post(f"{server}/api/analyze", files={"image": (photo.name, photo.read_bytes())}).json()["results"][0]
    api = Client(server, verbose=False).predict(handle_file(photo), api_name="/analyze")
    command = [sys.executable, "-m", "clip_app", "analyze", str(photo), "--model", "bundled", "--format", "json"]
    cli = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]
    assert rest["groups"] == api["groups"]
    assert [label["label"] for label in rest["groups"][0]["labels"]] == from_page
    assert [label["label"] for label in cli["groups"][0]["labels"]] == from_page
    for ours, theirs in zip(cli["groups"][0]["labels"], rest["groups"][0]["labels"], strict=True):
        assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=1e-4)


def test_choosing_other_groups_asks_again(server: str, page: Page, photographs: dict[str, Path]) -> None:
    page.goto(server)
    upload(page, photographs["coffee"])
    shown(page, "kinds")
    page.get_by_label("Scenes").check()
    assert len(shown(page, "scenes")) == 5


def test_own_labels_are_scored(server: str, page: Page, photographs: dict[str, Path]) -> None:
    page.goto(server)
    upload(page, photographs["cat"])
    shown(page, "kinds")
    page.get_by_role("tab", name="Your own labels").click()
    page.get_by_label("Labels, separated by commas").fill("cat, <b>dog</b>")
    page.get_by_role("button", name="Score these labels").click()
    assert set(shown(page, "labels")) == {"cat", "<b>dog</b>"}


def test_an_example_is_analysed_with_one_click(server: str, page: Page) -> None:
    page.goto(server)
    page.locator(".gallery-item, button.gallery-item").first.click()
    assert len(shown(page, "kinds")) == 5


def test_a_file_that_is_no_picture_is_explained_and_the_next_one_works(
    server: str, page: Page, photographs: dict[str, Path], tmp_path: Path
) -> None:
    bad = tmp_path / "broken.png"
    bad.write_bytes(photographs["cat"].read_bytes()[:5000])
    page.goto(server)
    upload(page, bad)
    expect(page.locator('#result [role="alert"]')).to_contain_text("damaged or incomplete")
    page.get_by_label("Remove Image").or_(page.get_by_label("Clear")).first.click()
    upload(page, photographs["cat"])
    assert len(shown(page, "kinds")) == 5


def test_the_fallback_is_unmissable_and_names_the_reason(page: Page, tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with served(env=env, ready=False) as url:
        page.goto(url)
        banner = page.locator(".ca-warn")
        expect(banner).to_contain_text("Demonstration model")
        expect(banner).to_contain_text("The Hub cannot be reached")
        box = banner.bounding_box()
        assert box
        assert box["width"] > 800
        assert box["y"] < 300
