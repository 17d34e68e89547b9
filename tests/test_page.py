"""The page as a person uses it, in a real browser; and all four faces agree."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import free_port, need, served
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect
from real_browser import PHONE, add_label, answered, labels, put_in, verdict, visit

pytestmark = need("chromium")


def test_a_photograph_shows_its_bars_and_all_four_faces_agree(
    server: str, page: Page, photographs: dict[str, Path]
) -> None:
    photo = photographs["cat"]
    page.locator("#ca-options summary").click()
    page.get_by_label("Send the file as it is").check()  # to the last digit only then
    put_in(page, photo)
    from_page = labels(page, "kinds")
    assert len(from_page) == 5
    widths = [bar.get_attribute("style") or "" for bar in page.locator(".ca-row .ca-fill").all()]
    assert all("width:" in width for width in widths)
    expect(page.locator("#ca-verdict")).to_contain_text(f"Best match: {from_page[0]}")

    rest = httpx.post(f"{server}/api/analyze", files={"image": (photo.name, photo.read_bytes())}).json()["results"][0]
    api = Client(server, verbose=False).predict(handle_file(photo), api_name="/analyze")
    command = [sys.executable, "-m", "clip_app", "analyze", str(photo), "--model", "bundled", "--format", "json"]
    cli = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]
    assert rest["groups"] == api["groups"]
    assert [label["label"] for label in rest["groups"][0]["labels"]] == from_page
    assert [label["label"] for label in cli["groups"][0]["labels"]] == from_page
    for ours, theirs in zip(cli["groups"][0]["labels"], rest["groups"][0]["labels"], strict=True):
        assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=1e-4)


def test_a_full_house_is_said_and_the_question_is_asked_again_until_there_is_room(
    page: Page, photographs: dict[str, Path]
) -> None:
    refusals = iter(range(4))  # more often than a lost connection is taken for one that passes

    def refuse(route: Route) -> None:
        if "data:" in (route.request.post_data or "") and next(refusals, None) is not None:
            error = {"code": "busy", "message": "64 pictures are already in the works. Try again in a moment."}
            headers = {"Retry-After": "1", "Content-Type": "application/json"}
            route.fulfill(status=503, headers=headers, body=json.dumps({"error": error}))
        else:
            route.continue_()

    page.route("**/run/predict", refuse)
    put_in(page, photographs["coffee"])
    expect(page.locator("#ca-verdict")).to_contain_text("Many pictures are being looked at. Trying again")
    expect(page.locator("#ca-verdict")).to_contain_text("Best match: cup of coffee", timeout=60_000)
    assert next(refusals, None) is None


def test_the_verdict_says_how_sure_it_is(page: Page, photographs: dict[str, Path]) -> None:
    put_in(page, photographs["coffee"])
    answered(page)
    assert verdict(page).startswith("Best match: cup of coffee clear")


def test_where_nothing_fits_it_says_so_and_shows_the_scores_on_request(
    page: Page, photographs: dict[str, Path]
) -> None:
    for box in page.locator("#ca-groups input").all():
        box.uncheck()
    for label in ("a submarine", "a violin", "the letter q"):
        add_label(page, label)
    put_in(page, photographs["cat"])
    answered(page)
    assert verdict(page) == "Nothing here matches"
    group = page.locator('[data-group="labels"]')
    expect(group).to_contain_text("Nothing here matches")
    expect(group.locator(".ca-row").first).to_be_hidden()
    group.get_by_role("button", name="show anyway").click()
    expect(group.locator(".ca-row").first).to_be_visible()


def test_scores_under_one_percent_are_folded(page: Page, photographs: dict[str, Path]) -> None:
    put_in(page, photographs["coffee"])
    answered(page)
    open_rows = page.locator('[data-group="kinds"] > ol .ca-value').all_inner_texts()
    assert all(float(value.rstrip("%")) >= 1 for value in open_rows)
    folded = page.locator('[data-group="kinds"] details')
    expect(folded.locator(".ca-row").first).to_be_hidden()
    folded.locator("summary").click()
    assert all(float(value.rstrip("%")) < 1 for value in folded.locator(".ca-value").all_inner_texts())


def test_a_hundred_and_twenty_labels_do_not_make_a_wall(
    page: Page, photographs: dict[str, Path], tmp_path: Path
) -> None:
    names = tmp_path / "labels.txt"
    names.write_text("# animals first\n" + "\n".join(["a cat", *(f"thing number {i}" for i in range(119))]))
    page.locator("#ca-list-file").set_input_files(names)
    expect(page.locator(".ca-chip")).to_have_count(120)
    put_in(page, photographs["cat"])
    answered(page)
    assert len(labels(page, "labels")) == 120
    height = page.evaluate("document.documentElement.scrollHeight")
    assert height < 1600, "it was 4,334 pixels"


def test_details_have_the_similarity_the_times_and_what_was_sent(page: Page, photographs: dict[str, Path]) -> None:
    put_in(page, photographs["cat"])
    answered(page)
    page.locator("#ca-details summary").click()
    details = page.locator("#ca-details")
    expect(details).to_contain_text("bundled")
    expect(details).to_contain_text("451 \N{MULTIPLICATION SIGN} 300 pixels")
    expect(details).to_contain_text("encode")
    expect(details.locator("table").first.locator("tbody tr")).to_have_count(5)


def test_a_result_is_taken_away_as_picture_table_and_json(page: Page, photographs: dict[str, Path]) -> None:
    put_in(page, photographs["cat"])
    add_label(page, '=a "cat", no')
    answered(page)
    taken: dict[str, bytes] = {}
    for name in ("Save as picture", "CSV", "JSON"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        taken[download.value.suggested_filename] = Path(download.value.path()).read_bytes()
    assert set(taken) == {"chelsea-labels.png", "chelsea-labels.csv", "chelsea-labels.json"}
    report = Image.open(io.BytesIO(taken["chelsea-labels.png"]))
    assert report.width == 1200
    assert len(report.getcolors(1 << 24) or []) > 1000, "the photograph is on it"
    table = taken["chelsea-labels.csv"].decode().splitlines()
    assert table[0] == "file,group,label,confidence,similarity,no_match"
    assert table[1].startswith("chelsea.png,kinds,")
    assert any("'=a" in line for line in table), "a spreadsheet must not compute a label"
    result = json.loads(taken["chelsea-labels.json"])
    assert set(result) == {"model", "image", "groups", "timings_ms"}


def test_every_example_is_offered_and_analysed_with_one_press(server: str, page: Page) -> None:
    names = sorted(path.stem for path in Path(sys.modules["clip_app"].__file__ or "").parent.glob("examples/*.jpg"))
    assert page.locator("#ca-gallery .ca-example").count() == len(names) >= 4
    page.get_by_role("button", name="Example: pizza").first.click()
    answered(page)
    assert verdict(page).startswith("Best match: pizza")
    page.locator("#ca-strip").get_by_role("button", name="Example: coffee").click()
    expect(page.locator("#ca-verdict")).to_contain_text("cup of coffee")


def test_a_file_that_is_no_picture_is_explained_nothing_is_lost_and_the_next_one_works(
    page: Page, photographs: dict[str, Path], tmp_path: Path
) -> None:
    bad = tmp_path / "broken.png"
    bad.write_bytes(photographs["cat"].read_bytes()[:5000])
    add_label(page, "a cat")
    put_in(page, bad)
    expect(page.locator("#ca-verdict")).to_contain_text("not a picture that can be read")
    why = page.locator("#ca-results .ca-why")
    expect(why.locator("p").first).to_be_hidden()
    why.locator("summary").click()
    expect(why).to_contain_text("Request ")
    put_in(page, photographs["cat"])
    answered(page)
    assert labels(page, "labels") == ["a cat"]


def test_the_fallback_is_told_and_its_reason_is_behind_why(browser: Browser, tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with served(env=env) as url, visit(browser, url) as page:
        expect(page.locator("#ca-pill")).to_contain_text("Demo model")
        reason = page.locator("#ca-why-text")
        expect(reason).to_be_hidden()
        page.locator("#ca-why summary").click()
        expect(reason).to_contain_text("The Hub cannot be reached")


def test_without_a_model_no_picture_is_invited(browser: Browser, tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    with served("--fallback", "none", env=env, ready=False) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(url)
        expect(page.locator("#ca-pill")).to_contain_text("No model", timeout=60_000)
        expect(page.locator("#ca-drop")).to_be_disabled()
        expect(page.locator(".ca-example")).to_have_count(0)
        expect(page.locator("#ca-answer")).not_to_contain_text("CLIP_APP")


def test_on_a_phone_the_answer_is_there_without_scrolling(
    browser: Browser, server: str, photographs: dict[str, Path]
) -> None:
    with visit(browser, server, **PHONE) as page:
        put_in(page, photographs["cat"])
        answered(page)
        row = page.locator(".ca-row").first
        box, bar = row.locator(".ca-label").bounding_box(), row.locator(".ca-track").bounding_box()
        assert box
        assert bar
        assert box["y"] + box["height"] < 600, "it was 1,233"
        assert bar["y"] >= box["y"] + box["height"], "the label stands above its bar"
        assert bar["width"] > 300
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
