"""A real browser on the page, as the tests of the page use it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
)
PATIENCE = 30_000  # milliseconds, to end a hang
DESKTOP: dict[str, Any] = {"viewport": {"width": 1440, "height": 1000}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
both_widths = pytest.mark.parametrize("page", [DESKTOP, PHONE], ids=["desktop", "phone"], indirect=True)
# Adds up what moves although nobody pressed anything: web.dev/cls, without its session windows.
WATCH_SHIFTS = """
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET.split())
        yield browser
        browser.close()


@contextmanager
def visit(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open the page as a visitor with cookies of its own, and wait until it can be used."""
    with browser.new_context(**(DESKTOP | options)) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page.add_init_script(WATCH_SHIFTS)
        page.goto(url)
        expect(page.locator("#ca-groups input").first).to_be_visible()
        yield page


def put_in(page: Page, path: Path) -> None:
    page.locator("#ca-file").set_input_files(path)


def answered(page: Page) -> None:
    """Wait for the answer to the latest question."""
    expect(page.locator("#ca-results .ca-group, #ca-verdict .ca-wrong").first).to_be_attached()
    expect(page.locator('#ca-answer[aria-busy="false"]')).to_be_attached()


def labels(page: Page, group: str) -> list[str]:
    """The labels of a group, those that are folded away with them."""
    expect(page.locator(f'[data-group="{group}"] .ca-row').first).to_be_attached()
    return [
        text or ""
        for text in page.locator(f'[data-group="{group}"] .ca-row:not(.ca-none) .ca-label').all_text_contents()
    ]


def add_label(page: Page, label: str) -> None:
    page.locator("#ca-label").fill(label)
    page.locator("#ca-label").press("Enter")


def verdict(page: Page) -> str:
    return re.sub(r"\s+", " ", page.locator("#ca-verdict").inner_text())
