"""Takes the pictures of README and docs from the real page: desktop, phone, dark and German. `make screenshots`."""

from __future__ import annotations

import argparse
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Playwright, sync_playwright
from real_server import served

IMAGES = Path(__file__).parent / "images"
PICTURES = Path(__file__).parents[1] / "clip_app" / "examples"
SKIMAGE = files("skimage.data")
NAMES = (
    "astronaut.png",
    "rocket.jpg",
    "coffee.png",
    "hubble_deep_field.jpg",
    "coins.png",
    "motorcycle_left.png",
    "moon.png",
)
SKLEARN = Path(str(files("sklearn.datasets.images")))
DESKTOP: dict[str, Any] = {"viewport": {"width": 1200, "height": 760}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def launch(playwright: Playwright) -> Browser:
    """Start the browser that is installed, or playwright's own."""
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])


def ask(page: Page, url: str, example: str, *labels: str) -> None:
    """Ask about an example as a visitor does."""
    page.goto(url)
    page.locator("#ca-gallery .ca-example").first.wait_for()
    for label in labels:
        page.locator("#ca-label").fill(label)
        page.locator("#ca-label").press("Enter")
    page.locator(f'#ca-gallery [title="{example}"]').click()
    page.locator('[data-group="labels"]' if labels else '[data-group="objects"]').wait_for()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(400)


def take(
    browser: Browser, url: str, name: str, example: str, labels: tuple[str, ...], *, where: bool = False, **options: Any
) -> None:
    """Take one picture in a window with these options of playwright's, with the map of the best label if asked to."""
    with browser.new_context(**options) as context:
        page = context.new_page()
        ask(page, url, example, *labels)
        if where:
            page.locator(".ca-where-button").first.click()
            page.locator("#ca-where-map:visible").wait_for()
            page.wait_for_timeout(300)
        page.screenshot(path=IMAGES / f"{name}.png")


def take_many(browser: Browser, url: str, query: str) -> None:
    """Take the page with many pictures, ranked by a sentence."""
    shown = [*PICTURES.glob("*.jpg"), *(Path(str(SKIMAGE / name)) for name in NAMES), *SKLEARN.glob("*.jpg")]
    with browser.new_context(**DESKTOP) as context:
        page = context.new_page()
        page.goto(url)
        page.locator("#ca-gallery .ca-example").first.wait_for()
        page.locator("#ca-file").set_input_files(shown)
        page.wait_for_function("document.querySelector('#ca-many-stop').hidden && document.querySelector('.ca-tile')")
        page.locator("#ca-many-find").fill(query)
        page.locator(".ca-cut").wait_for()
        page.wait_for_timeout(400)
        page.screenshot(path=IMAGES / "page-many.png")


def take_report(browser: Browser, report: Path) -> None:
    """Take the first screen of a report that clip-app evaluate has written, as docs/evaluate.md says."""
    with browser.new_context(viewport={"width": 1200, "height": 1380}) as context:
        page = context.new_page()
        page.goto(report.absolute().as_uri())
        page.screenshot(path=IMAGES / "evaluate.png")


def main() -> None:
    """Write docs/images/page*.png, and of a report that is named evaluate.png."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--report", type=Path, help="a report of clip-app evaluate: only its picture is taken")
    given = parser.parse_args()
    if given.report is not None:
        with sync_playwright() as playwright:
            take_report(launch(playwright), given.report)
        return
    own = ("rush hour in New York", "an empty street", "a taxi rank", "breakfast")
    drinks = ("an espresso", "a cup of tea", "a violin")
    with served() as url, sync_playwright() as playwright:
        browser = launch(playwright)
        take(browser, url, "page", "taxis", own, **DESKTOP)
        take(browser, url, "page-dark", "coffee", drinks, color_scheme="dark", **DESKTOP)
        take(browser, url, "page-where", "taxis", (), where=True, **DESKTOP)
        take_many(browser, url, "a cup of espresso")
        take(browser, url, "page-phone", "teddy bear", (), **PHONE)
        take(browser, url, "page-german", "pizza", (), locale="de", **PHONE)
        browser.close()


if __name__ == "__main__":
    main()
