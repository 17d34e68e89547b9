"""What is asked on the page: whatever changes, the answer follows, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import need
from playwright.sync_api import Browser, Page, expect
from real_browser import add_label, answered, labels, put_in, visit

pytestmark = need("chromium")


def chips(page: Page) -> list[str]:
    return page.locator(".ca-chip span").all_inner_texts()


def test_own_labels_stay_when_the_picture_changes(page: Page, photographs: dict[str, Path]) -> None:
    put_in(page, photographs["cat"])
    add_label(page, "a cat")
    add_label(page, "<b>dog</b>")
    rows = page.locator('[data-group="labels"] .ca-row:not(.ca-none)')
    expect(rows).to_have_count(2)
    assert set(labels(page, "labels")) == {"a cat", "<b>dog</b>"}
    put_in(page, photographs["coffee"])
    expect(page.locator("#ca-verdict")).to_contain_text("cup of coffee")
    assert set(labels(page, "labels")) == {"a cat", "<b>dog</b>"}
    assert chips(page) == ["a cat", "<b>dog</b>"]


def test_groups_are_asked_for_and_left_out(page: Page, photographs: dict[str, Path]) -> None:
    put_in(page, photographs["coffee"])
    answered(page)
    page.get_by_label("Scenes").check()
    assert len(labels(page, "scenes")) == 5
    page.get_by_label("Kinds").uncheck()
    expect(page.locator('[data-group="kinds"]')).to_have_count(0)


def test_every_option_changes_the_answer_without_a_button(page: Page, photographs: dict[str, Path]) -> None:
    put_in(page, photographs["cat"])
    for label in ("a cat", "a kitten", "a tiger"):
        add_label(page, label)
    own = page.locator('[data-group="labels"]')
    expect(own.locator(".ca-row:not(.ca-none)")).to_have_count(3)
    together = own.text_content() or ""
    page.locator("#ca-options summary").click()
    page.get_by_label("Score each of the labels alone").check()
    expect(own).not_to_have_text(together)
    alone = own.text_content() or ""
    page.get_by_label("Prompt, with {} where the label goes").fill("a drawing of a {}.")
    expect(own).not_to_have_text(alone)
    page.get_by_label("Labels per group").fill("2")
    expect(page.locator('[data-group="kinds"] .ca-row:not(.ca-none)')).to_have_count(2)
    expect(own.locator(".ca-row:not(.ca-none)")).to_have_count(2)


def test_labels_are_typed_pasted_and_loaded_each_once(page: Page, tmp_path: Path) -> None:
    add_label(page, "  a   cat ")
    page.locator("#ca-label").press_sequentially("a dog,a cat,")
    assert chips(page) == ["a cat", "a dog"]
    page.locator("#ca-label").evaluate(
        """(field) => {
          const clipboardData = new DataTransfer();
          clipboardData.setData("text", "breakfast\\nlunch;dinner\\ta dog");
          field.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }"""
    )
    assert chips(page) == ["a cat", "a dog", "breakfast", "lunch", "dinner"]
    (tmp_path / "list.txt").write_text("\ufeffa ship\r\n# no label\r\nlunch\r\n", encoding="utf-8")
    page.locator("#ca-list-file").set_input_files(tmp_path / "list.txt")
    expect(page.locator(".ca-chip")).to_have_count(6)
    assert chips(page)[-1] == "a ship"
    page.get_by_role("button", name="Remove lunch").click()
    assert "lunch" not in chips(page)
    page.locator("#ca-label").press("Backspace")
    assert chips(page)[-1] == "dinner"
    page.get_by_role("button", name="Clear").click()
    assert chips(page) == []


def test_what_is_wrong_with_a_label_is_said_beside_it(page: Page, tmp_path: Path) -> None:
    problem = page.locator("#ca-label-problem")
    add_label(page, "x" * 201)
    expect(problem).to_contain_text("200 characters")
    assert chips(page) == []
    page.locator("#ca-label").fill("")
    for name, content, says in (
        ("picture.png", b"\x89PNG\xff\xfe", "cannot be read as text"),
        ("empty.txt", b"\n# nothing\n", "no labels in empty.txt"),
    ):
        (tmp_path / name).write_bytes(content)
        page.locator("#ca-list-file").set_input_files(tmp_path / name)
        expect(problem).to_contain_text(says)
    (tmp_path / "many.txt").write_text("\n".join(f"label {i}" for i in range(1003)))
    page.locator("#ca-list-file").set_input_files(tmp_path / "many.txt")
    expect(problem).to_contain_text("3 were left out")
    assert len(chips(page)) == 1000


@pytest.mark.parametrize(
    ("field", "wrong", "says", "right"),
    [
        ("#ca-template", "a photo", "needs {} once", "a {}"),
        ("#ca-template", "{} and {}", "needs {} once", ""),
        ("#ca-top", "0", "whole number from 1", "3"),
        ("#ca-top", "2.5", "whole number from 1", ""),
    ],
)
def test_what_is_wrong_with_an_option_is_said_beside_it_and_the_answer_stays(
    page: Page, photographs: dict[str, Path], field: str, wrong: str, says: str, right: str
) -> None:
    put_in(page, photographs["cat"])
    answered(page)
    page.locator("#ca-options summary").click()
    page.locator(field).fill(wrong)
    expect(page.locator(f"{field}-problem")).to_contain_text(says)
    expect(page.locator(field)).to_have_attribute("aria-invalid", "true")
    assert page.locator(".ca-group").count() == 2
    page.locator(field).fill(right)
    expect(page.locator(f"{field}-problem")).to_be_empty()


def test_with_nothing_to_look_for_it_says_what_to_do(page: Page, photographs: dict[str, Path]) -> None:
    put_in(page, photographs["cat"])
    answered(page)
    for box in page.locator("#ca-groups input").all():
        box.uncheck()
    expect(page.locator("#ca-verdict")).to_contain_text("Choose a group or add a label")
    add_label(page, "a cat")
    assert labels(page, "labels") == ["a cat"]


def test_a_link_opens_the_same_question(
    browser: Browser, server: str, page: Page, photographs: dict[str, Path]
) -> None:
    for label in ("a cat & dog", "#1", "café, 100 %"):
        add_label(page, label)
    page.get_by_label("Scenes").check()
    page.locator("#ca-options summary").click()
    page.get_by_label("Prompt, with {} where the label goes").fill("one {}!")
    page.get_by_label("Labels per group").fill("3")
    page.get_by_label("Score each of the labels alone").check()
    page.wait_for_function("location.hash.includes('alone') && location.hash.includes('top=3')")
    assert "?" not in page.url, "a server would write it into its log"
    with visit(browser, page.url) as other:
        assert chips(other) == chips(page) == ["a cat & dog", "#1", "café", "100 %"]
        put_in(other, photographs["cat"])
        assert len(labels(other, "scenes")) == 3
        assert other.locator("#ca-template").input_value() == "one {}!"
        assert other.get_by_label("Score each of the labels alone").is_checked()


def test_a_link_with_nonsense_in_it_opens_all_the_same(
    browser: Browser, server: str, photographs: dict[str, Path]
) -> None:
    nonsense = f"#groups=birds,scenes&label={'x' * 300}&label=a+cat&top=many&prompt=none&alone=2&foo=%E0%A4%A"
    with visit(browser, server + nonsense) as page:
        expect(page.locator("#ca-groups")).to_contain_text("not here: birds")
        assert chips(page) == ["a cat"]
        put_in(page, photographs["cat"])
        assert len(labels(page, "scenes")) == 5


def test_the_link_is_copied(browser: Browser, server: str, photographs: dict[str, Path]) -> None:
    with visit(browser, server, permissions=["clipboard-read", "clipboard-write"]) as page:
        add_label(page, "a cat")
        put_in(page, photographs["cat"])
        answered(page)
        page.get_by_role("button", name="Copy link").click()
        expect(page.locator("#ca-done")).to_contain_text("is copied")
        assert page.evaluate("navigator.clipboard.readText()") == page.url
        assert page.url.endswith("#label=a+cat")
