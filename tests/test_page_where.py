"""The page shows where a label was seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import need
from PIL import Image
from playwright.sync_api import Page, expect
from real_browser import add_label, answered, both_widths, put_in

pytestmark = [need("chromium"), both_widths]

# Where the map is brightest, as shares of its width and height.
BRIGHTEST = """canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let best = 0;
  for (let i = 0; i < data.length; i += 4) if (data[i] + data[i + 1] > data[best] + data[best + 1]) best = i;
  return [best / 4 % canvas.width / canvas.width, Math.floor(best / 4 / canvas.width) / canvas.height];
}"""


@pytest.fixture(scope="module")
def both(photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cat on the left, a cup of coffee on the right."""
    path = tmp_path_factory.mktemp("both") / "both.png"
    cat, coffee = (Image.open(photographs[name]).convert("RGB").resize((400, 300)) for name in ("cat", "coffee"))
    wide = Image.new("RGB", (800, 300))
    wide.paste(cat, (0, 0))
    wide.paste(coffee, (400, 0))
    wide.save(path)
    return path


def ask_where(page: Page, label: str) -> None:
    page.evaluate("document.querySelectorAll('details.ca-folded').forEach((folded) => (folded.open = true))")
    page.get_by_role("button", name=f"Where is {label}?").first.click()
    expect(page.locator("#ca-where-said")).to_have_text(f"Where {label} was seen")


def own(page: Page, *labels: str) -> None:
    for label in labels:
        add_label(page, label)
    expect(page.locator('[data-group="labels"] .ca-where-button')).to_have_count(len(labels))


def test_the_map_is_brightest_where_the_label_is_and_moves_with_it(page: Page, both: Path) -> None:
    put_in(page, both)
    answered(page)
    own(page, "cat", "cup of coffee")
    ask_where(page, "cat")
    left, _ = page.locator("#ca-where-map").evaluate(BRIGHTEST)
    ask_where(page, "cup of coffee")
    right, _ = page.locator("#ca-where-map").evaluate(BRIGHTEST)
    assert left < 0.5 < right
    pressed = page.locator('.ca-where-button[aria-pressed="true"]')
    expect(pressed).to_have_count(1)
    expect(pressed).to_have_attribute("aria-label", "Where is cup of coffee?")
    shapes = page.locator("#ca-where-map").evaluate("canvas => canvas.width / canvas.height")
    assert shapes == pytest.approx(800 / 300, abs=0.01), "it lies over the whole picture"


def test_the_slider_sets_its_strength_and_it_goes_when_asked_again_or_closed(page: Page, both: Path) -> None:
    put_in(page, both)
    answered(page)
    button = page.locator(".ca-where-button").first
    button.click()
    picture = page.locator("#ca-where-map")
    expect(picture).to_be_visible()
    expect(picture).to_have_css("opacity", "0.65")
    page.get_by_label("Strength of the map").fill("20")
    expect(picture).to_have_css("opacity", "0.2")
    button.click()
    expect(picture).to_be_hidden()
    expect(button).to_have_attribute("aria-pressed", "false")
    button.click()
    expect(picture).to_be_visible()
    page.locator("#ca-where-close").click()
    expect(picture).to_be_hidden()


def test_another_picture_takes_the_map_away_and_another_label_does_not(
    page: Page, both: Path, photographs: dict[str, Path]
) -> None:
    put_in(page, both)
    answered(page)
    own(page, "cup of coffee")
    ask_where(page, "cup of coffee")
    add_label(page, "teapot")
    expect(page.locator('[data-group="labels"] .ca-where-button')).to_have_count(2)
    expect(page.locator("#ca-where-map")).to_be_visible()
    expect(page.get_by_role("button", name="Where is cup of coffee?").first).to_have_attribute("aria-pressed", "true")
    put_in(page, photographs["coffee"])
    answered(page)
    expect(page.locator("#ca-where-map")).to_be_hidden()


def test_a_picture_that_the_browser_cannot_show_comes_with_its_map(page: Page, both: Path, tmp_path: Path) -> None:
    Image.open(both).save(tmp_path / "both.tiff")
    put_in(page, tmp_path / "both.tiff")
    answered(page)
    page.locator(".ca-where-button").first.click()
    picture = page.locator("#ca-where-picture")
    expect(picture).to_be_visible()
    page.wait_for_function("document.querySelector('#ca-where-picture').naturalWidth === 800")
    expect(page.get_by_label("Strength of the map")).to_be_hidden()


def test_a_server_that_is_gone_is_told_and_the_next_question_works(page: Page, both: Path) -> None:
    put_in(page, both)
    answered(page)
    page.route("**/api/explain", lambda route: route.abort())
    page.locator(".ca-where-button").first.click()
    expect(page.locator("#ca-where-said")).to_contain_text("cannot be reached")
    expect(page.locator("#ca-where-map")).to_be_hidden()
    page.unroute("**/api/explain")
    page.locator(".ca-where-button").first.click()
    expect(page.locator("#ca-where-map")).to_be_visible()


def test_nothing_of_it_stands_in_the_way_of_anybody(page: Page, both: Path) -> None:
    put_in(page, both)
    answered(page)
    page.locator(".ca-where-button").first.click()
    expect(page.locator("#ca-where-map")).to_be_visible()
    problems = Axe().run(page).response["violations"]
    assert [one["id"] for one in problems if one["impact"] in ("serious", "critical")] == []
    assert page.evaluate("window.shift") < 0.05
