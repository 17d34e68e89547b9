"""The page for everybody: screen readers, keyboards, small screens, six languages; and nothing jumps."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import need
from playwright.sync_api import Browser, Page, expect
from real_browser import DESKTOP, PHONE, add_label, answered, labels, put_in, visit

from clip_app.view import PAGE_FILES

TEXTS = {path.stem: json.loads(path.read_text("utf-8")) for path in (PAGE_FILES / "texts").glob("*.json")}
SCREENS = {"desktop": DESKTOP, "phone": PHONE}
Scheme = Literal["light", "dark"]


def findings(page: Page) -> list[tuple[str, str, str]]:
    """What axe-core finds that is serious or critical: https://dequeuniversity.com/rules/axe."""
    page.wait_for_timeout(300)  # what fades in has its colours afterwards
    found = Axe().run(page).response["violations"]
    bad = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [(rule["impact"], rule["id"], node["html"][:120]) for rule in bad for node in rule["nodes"]]


def show_problems(page: Page, folder: Path) -> None:
    (folder / "empty.jpg").touch()
    put_in(page, folder / "empty.jpg")
    page.locator("#ca-template").fill("no place for it")
    add_label(page, "x" * 201)
    expect(page.locator("#ca-template-problem")).not_to_be_empty()


def show_broken(page: Page, folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    put_in(page, folder / "broken.jpg")
    page.locator("#ca-results .ca-why summary").click()


def show_everything(page: Page, folder: Path) -> None:
    for summary in page.locator("summary:visible").all():
        summary.click()
    for button in page.get_by_role("button", name="show anyway").all():
        button.click()


def show_camera(page: Page, folder: Path) -> None:
    page.get_by_role("button", name="Camera").click()
    expect(page.locator("#ca-camera-dialog")).to_be_visible()


STATES: dict[str, Callable[[Page, Path], None]] = {
    "everything open": show_everything,
    "problems": show_problems,
    "broken picture": show_broken,
    "camera": show_camera,
}


@need("chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_axe_finds_nothing_serious_in_any_state(
    browser: Browser, server: str, photographs: dict[str, Path], tmp_path: Path, screen: str, scheme: Scheme
) -> None:
    with visit(browser, server, color_scheme=scheme, **SCREENS[screen]) as page:
        assert findings(page) == []
        put_in(page, photographs["cat"])
        for label in ("a cat", "a violin"):
            add_label(page, label)
        page.get_by_label("Scenes").check()
        labels(page, "scenes")
        assert findings(page) == []
        for state, show in STATES.items():
            show(page, tmp_path)
            assert findings(page) == [], state


@need("chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_gradios_view_of_the_api_is_mended(browser: Browser, server: str, scheme: Scheme) -> None:
    with visit(browser, server, color_scheme=scheme) as page:
        page.get_by_role("button", name="Use via API").click()
        expect(page.locator(".api-docs .copy-button[aria-label]").first).to_be_visible()
        assert findings(page) == []
        tab = page.get_by_role("radio", name="JavaScript")
        tab.focus()
        page.keyboard.press("Enter")
        expect(tab).to_have_attribute("aria-checked", "true")


@need("chromium")
@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_jumps(browser: Browser, server: str, photographs: dict[str, Path], screen: str) -> None:
    with visit(browser, server, **SCREENS[screen]) as page:
        page.wait_for_timeout(500)
        put_in(page, photographs["coffee"])
        answered(page)
        page.wait_for_timeout(500)
        assert page.evaluate("window.shift") <= 0.05, "it was 0.748 on a desktop and 0.411 on a phone"


@need("chromium")
def test_everything_is_done_with_keys_alone(browser: Browser, server: str, photographs: dict[str, Path]) -> None:
    with visit(browser, server) as page:
        with page.expect_file_chooser() as chooser:
            page.locator("#ca-drop").press("Enter")
        chooser.value.set_files(photographs["cat"])
        answered(page)
        reached: list[str] = []
        while "ca-link" not in reached and len(reached) < 60:
            page.keyboard.press("Tab")
            reached.append(str(page.evaluate("document.activeElement.id || document.activeElement.value || ''")))
            if reached[-1] == "ca-label":
                page.keyboard.type("a cat")
                page.keyboard.press("Enter")
                expect(page.locator(".ca-chip")).to_have_count(1)
            if reached[-1] == "scenes":
                page.keyboard.press("Space")
        assert {"ca-remove", "ca-camera", "scenes", "ca-label", "ca-list", "ca-save", "ca-link"} <= set(reached)
        assert labels(page, "labels") == ["a cat"]
        assert len(labels(page, "scenes")) == 5


@need("chromium")
def test_an_answer_is_announced_by_what_was_there_before(
    browser: Browser, server: str, photographs: dict[str, Path]
) -> None:
    with visit(browser, server) as page:
        page.evaluate("window.told = document.querySelector('#ca-verdict')")
        put_in(page, photographs["coffee"])
        answered(page)
        verdict = page.locator("#ca-verdict")
        assert page.evaluate("window.told === document.querySelector('#ca-verdict') && window.told.isConnected")
        expect(verdict).to_have_attribute("aria-live", "polite")
        expect(verdict).to_contain_text("cup of coffee")
        bars = page.locator(".ca-track")
        assert all(bar.get_attribute("aria-hidden") == "true" for bar in bars.all()), "a row is read once"
        heads = [int(name[1]) for name in page.eval_on_selector_all("h1,h2,h3", "all => all.map((h) => h.tagName)")]
        assert heads[0] == 1
        assert all(after <= before + 1 for before, after in itertools.pairwise(heads))


@need("chromium")
@pytest.mark.parametrize("language", sorted(TEXTS))
def test_the_page_speaks_the_visitors_language(
    browser: Browser, server: str, photographs: dict[str, Path], language: str
) -> None:
    texts = TEXTS[language]
    with visit(browser, server, locale=language) as page:
        expect(page.locator("h1")).to_have_text(texts["ca.title"])
        put_in(page, photographs["coffee"])
        answered(page)
        shown = page.locator("body").inner_text() + "".join(
            page.eval_on_selector_all("[aria-label]", "all => all.map((one) => one.ariaLabel)")
        )
        assert page.evaluate("document.documentElement.lang") == language
        for key in ("ca.look", "ca.own", "ca.options", "ca.share", "ca.save", "ca.group.objects"):
            assert texts[key] in shown
        assert not re.search(r"\b(ca|common|upload_text|blocks)\.[a-z]", shown), "a key instead of its words"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with visit(browser, server, locale=language, **PHONE) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@need("chromium")
def test_a_language_that_is_not_there_is_english(browser: Browser, server: str) -> None:
    with visit(browser, server, locale="tlh") as page:
        expect(page.locator("h1")).to_have_text(TEXTS["en"]["ca.title"])


@pytest.mark.parametrize("language", sorted(set(TEXTS) - {"en"}))
def test_every_language_has_every_text_with_its_places(language: str) -> None:
    def places(words: str) -> list[str]:
        return sorted(re.findall(r"\{\w*\}", words))

    english, theirs = TEXTS["en"], TEXTS[language]
    assert set(theirs) == set(english)
    assert {key: places(theirs[key]) for key in english} == {key: places(english[key]) for key in english}
    alike = [key for key in english if theirs[key] == english[key]]
    assert len(alike) < len(english) / 10, "not translated"


def test_every_text_is_used_and_every_used_one_is_there() -> None:
    sources = "".join(path.read_text("utf-8") for path in PAGE_FILES.glob("*") if path.suffix in (".js", ".html"))
    used = set(re.findall(r"""["'`](ca\.[\w.]+?)["'`]""", sources))
    assert used <= set(TEXTS["en"])
    made = {"ca.state.", "ca.group.", "ca.problem.", "ca.detail."} | {"ca.clear", "ca.unsure"}
    unused = [key for key in TEXTS["en"] if key not in used and not key.startswith(tuple(made))]
    assert unused == ["ca.description", "common.complete"], "the one is in the document, the other Gradio's"
