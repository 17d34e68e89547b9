"""The page looks at many pictures: several files, a folder or a zip."""

from __future__ import annotations

import base64
import csv
import io
import json
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import need
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect
from real_browser import add_label, answered, both_widths, verdict

pytestmark = [need("chromium"), both_widths]

SUBJECTS = "{http://purl.org/dc/elements/1.1/}subject//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li"


@pytest.fixture(scope="module")
def folder(photographs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photographs, one of them twice with other edges, in a folder within a folder, and a file that is none."""
    folder = tmp_path_factory.mktemp("holiday")
    (folder / "day two").mkdir()
    for name, path in photographs.items():
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((400, 400))
        picture.save(folder / ("day two" if name in ("china", "flower") else "") / f"{name}.jpg", quality=92)
    Image.open(folder / "coffee.jpg").crop((8, 6, 392, 260)).save(folder / "coffee again.jpg", quality=92)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and then nothing")
    return folder


def some(folder: Path, *names: str) -> list[Path]:
    return [next(folder.rglob(f"{name}.jpg")) for name in names]


def put_in(page: Page, *paths: Path) -> None:
    page.locator("#ca-file").set_input_files(paths)


def finished(page: Page, count: int) -> None:
    expect(page.locator("#ca-many-said")).to_contain_text(f"{count} of {count}")
    expect(page.locator("#ca-many-stop")).to_be_hidden()


def tile(page: Page, name: str) -> Locator:
    return page.locator(f'.ca-tile-open[aria-label^="{name}:"]')


def names(page: Page) -> list[str]:
    """The pictures that are shown, in their order."""
    page.get_by_role("button", name="Table", exact=True).click()
    rows = page.locator("#ca-many-table tbody th").all_text_contents()
    page.get_by_role("button", name="Grid", exact=True).click()
    return rows


def test_several_files_are_answered_and_a_bad_one_is_a_tile_with_its_reason(page: Page, folder: Path) -> None:
    put_in(page, *some(folder, "cat", "coffee", "rocket"), folder / "broken.png")
    finished(page, 4)
    expect(tile(page, "coffee.jpg")).to_contain_text("cup of coffee")
    expect(tile(page, "cat.jpg").locator("img")).to_be_visible()
    expect(tile(page, "broken.png")).to_contain_text("broken.png This file is not a picture that can be read")
    expect(page.locator("#ca-many-said")).to_contain_text("1 failed")


def test_a_tile_opens_its_full_answer_and_the_way_back_loses_nothing(page: Page, folder: Path) -> None:
    put_in(page, *some(folder, "cat", "coffee", "rocket"))
    finished(page, 3)
    tile(page, "coffee.jpg").click()
    answered(page)
    assert verdict(page).startswith("Best match: cup of coffee")
    expect(page.locator("#ca-many")).to_be_hidden()
    page.get_by_role("button", name="All 3 pictures").click()
    expect(page.locator(".ca-tile")).to_have_count(3)
    expect(page.locator("#ca-results")).to_be_hidden()
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#ca-many")).to_be_hidden()
    put_in(page, *some(folder, "flower", "rocket"))
    finished(page, 2)


def test_one_more_picture_joins_those_that_are_there(page: Page, folder: Path) -> None:
    put_in(page, *some(folder, "cat", "coffee"))
    finished(page, 2)
    put_in(page, folder / "rocket.jpg")
    finished(page, 3)
    assert names(page) == ["cat.jpg", "coffee.jpg", "rocket.jpg"]


def test_a_folder_is_taken_with_all_in_it(page: Page, folder: Path) -> None:
    (folder / "notes.txt").write_text("no picture")
    page.locator("#ca-folder-files").set_input_files(folder)
    finished(page, 8)
    assert {f"{folder.name}/day two/china.jpg", f"{folder.name}/cat.jpg"} <= set(names(page))
    assert not any("notes" in name for name in names(page))


def zipped(path: Path, folder: Path) -> Path:
    """What people's zips hold: pictures, other things, and every kind of trouble."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.write(folder / "cat.jpg", "cat.jpg")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "cat.jpg", "Bilder/Kätzchen.jpg")
        archive.write(folder / "coffee.jpg", "../../etc/coffee.jpg", zipfile.ZIP_STORED)
        archive.write(folder / "cat.jpg", "__MACOSX/._cat.jpg")
        archive.write(folder / "cat.jpg", "odd.jpg", zipfile.ZIP_BZIP2)
        archive.writestr("notes.txt", "no picture")
        archive.writestr("inner.zip", inner.getvalue())
        archive.writestr("bomb.png", bytes(110_000_000))
        archive.write(folder / "rocket.jpg", "secret.jpg")
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02", data.rindex(b"bomb.png"))  # the last one of the directory: behind a password
    data[entry + 8] |= 1
    path.write_bytes(data)
    return path


def test_a_zip_is_read_in_the_browser_each_entry_by_itself(page: Page, folder: Path, tmp_path: Path) -> None:
    put_in(page, zipped(tmp_path / "all.zip", folder))
    finished(page, 6)
    expect(tile(page, "all.zip/Bilder/Kätzchen.jpg").locator("img")).to_be_visible()
    expect(tile(page, "all.zip/etc/coffee.jpg")).to_contain_text("cup of coffee")
    for name, reason in {
        "odd.jpg": "packed in a way that is not read",
        "inner.zip": "inside a zip file is not opened",
        "bomb.png": "damaged, too large",
        "secret.jpg": "password",
    }.items():
        expect(tile(page, f"all.zip/{name}")).to_contain_text(reason)
    expect(page.locator("#ca-many-said")).to_contain_text("4 failed")
    tile(page, "all.zip/etc/coffee.jpg").click()
    answered(page)
    assert verdict(page).startswith("Best match: cup of coffee")


def test_a_damaged_zip_says_so_and_the_next_files_work(page: Page, folder: Path, tmp_path: Path) -> None:
    whole = zipped(tmp_path / "all.zip", folder).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    put_in(page, tmp_path / "cut.zip")
    expect(tile(page, "cut.zip")).to_contain_text("This zip file is damaged")
    put_in(page, *some(folder, "cat", "coffee"))
    finished(page, 3)


def test_a_folder_that_was_dropped_is_walked_through(page: Page, folder: Path) -> None:
    """A browser makes the entries of a drop itself, so one is made up with what it gives."""
    page.evaluate(
        """async ([cat, coffee]) => {
          const file = async (name, data) => new File([await (await fetch(data)).blob()], name, { type: "image/jpeg" });
          const entry = async (name, path, data) => {
            const made = await file(name, data);
            return { name, fullPath: path, isFile: true, isDirectory: false, file: (done) => done(made) };
          };
          const first = await entry("cat.jpg", "/day/cat.jpg", cat);
          const batches = [[first], [await entry("coffee.jpg", "/day/coffee.jpg", coffee)], []];
          const createReader = () => ({ readEntries: (done) => done(batches.shift()) });
          const folder = { name: "day", isDirectory: true, createReader };
          const drop = new Event("drop", { bubbles: true, cancelable: true });
          drop.dataTransfer = { files: [], getData: () => "", items: [{ webkitGetAsEntry: () => folder }] };
          document.body.dispatchEvent(drop);
        }""",
        [as_url(folder / "cat.jpg"), as_url(folder / "coffee.jpg")],
    )
    finished(page, 2)
    assert names(page) == ["day/cat.jpg", "day/coffee.jpg"]


def as_url(path: Path) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()


def test_it_stops_and_goes_on_where_it_stopped(page: Page, folder: Path) -> None:
    held: list[Route] = []
    page.route("**/api/analyze", lambda route: held.append(route))
    with page.expect_request("**/api/analyze"):
        put_in(page, *some(folder, "cat", "coffee", "rocket", "astronaut"))
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_role("button", name="Go on")).to_be_visible()
    expect(page.locator("#ca-many-said")).to_contain_text("0 of 4")
    for route in held:
        route.continue_()
    page.unroute("**/api/analyze")
    page.get_by_role("button", name="Go on").click()
    finished(page, 4)


def test_a_server_that_is_busy_or_gone_is_asked_again(page: Page, folder: Path) -> None:
    answers = iter(["busy", "gone"])

    def refuse(route: Route) -> None:
        kind = next(answers, None)
        if kind == "busy":
            body = json.dumps({"error": {"code": "busy", "message": "Too many."}})
            route.fulfill(status=503, headers={"Retry-After": "1", "Content-Type": "application/json"}, body=body)
        elif kind == "gone":
            route.abort()
        else:
            route.continue_()

    page.route("**/api/analyze", refuse)
    put_in(page, *some(folder, "cat", "coffee", "rocket"))
    finished(page, 3)
    expect(page.locator("#ca-many-said")).not_to_contain_text("failed")
    assert next(answers, None) is None


def test_they_are_sorted_and_filtered(page: Page, folder: Path) -> None:
    put_in(page, *some(folder, "rocket", "cat", "coffee", "coffee again"))
    finished(page, 4)
    assert names(page) == ["rocket.jpg", "cat.jpg", "coffee.jpg", "coffee again.jpg"]
    page.get_by_label("Sort").select_option("name")
    assert names(page) == ["cat.jpg", "coffee again.jpg", "coffee.jpg", "rocket.jpg"]
    page.locator("#ca-many-label").select_option("cup of coffee")
    assert set(names(page)) == {"coffee.jpg", "coffee again.jpg"}
    expect(page.locator("#ca-many-said")).to_contain_text("2 shown")
    page.locator("#ca-many-above").fill("100")
    page.locator("#ca-many-above").blur()
    expect(page.locator("#ca-many-grid")).to_contain_text("No picture fits")
    page.locator("#ca-many-above").fill("0")
    page.locator("#ca-many-label").select_option("")
    page.get_by_label("Sort").select_option("score")
    page.get_by_role("button", name="Table", exact=True).click()
    shown = page.locator("#ca-many-table tbody td:last-child").all_text_contents()
    scores = [float(score.strip("%") or 0) for score in shown]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)


def test_a_sentence_ranks_them_with_a_cut_off(page: Page, folder: Path) -> None:
    put_in(page, *some(folder, "rocket", "cat", "coffee", "flower", "china"))
    finished(page, 5)
    page.get_by_label("Find pictures by a sentence").fill("a cup of coffee")
    expect(page.locator(".ca-cut")).to_be_visible()
    assert names(page)[0] == "coffee.jpg"
    beyond = page.locator(".ca-tile.ca-beyond .ca-tile-open")
    assert tile(page, "coffee.jpg").evaluate("tile => !tile.closest('.ca-beyond')")
    assert 3 <= beyond.count() <= 4
    page.get_by_label("Find pictures by a sentence").fill("a rocket that takes off")
    expect(page.locator("#ca-many-grid .ca-tile-open").first).to_have_attribute("title", "rocket.jpg")
    page.get_by_label("Find pictures by a sentence").fill("")
    expect(page.locator(".ca-cut")).to_have_count(0)
    assert names(page) == ["rocket.jpg", "cat.jpg", "coffee.jpg", "flower.jpg", "china.jpg"]


def test_pictures_like_one_and_near_duplicates_are_found(page: Page, folder: Path) -> None:
    put_in(page, *some(folder, "rocket", "coffee", "cat", "coffee again"))
    finished(page, 4)
    page.get_by_role("button", name="1 near-duplicate pair").click()
    assert set(names(page)) == {"coffee.jpg", "coffee again.jpg"}
    page.get_by_role("button", name="Pictures similar to coffee again.jpg").click()
    expect(page.locator(".ca-cut")).to_be_visible()
    assert names(page)[:2] == ["coffee again.jpg", "coffee.jpg"]


def test_other_labels_ask_about_all_again(page: Page, folder: Path) -> None:
    put_in(page, *some(folder, "cat", "coffee"))
    finished(page, 2)
    add_label(page, "espresso")
    add_label(page, "a tabby cat")
    expect(tile(page, "coffee.jpg")).to_contain_text("espresso")
    expect(tile(page, "cat.jpg")).to_contain_text("a tabby cat")
    finished(page, 2)


def taken(page: Page, button: str) -> bytes:
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return Path(download.value.path()).read_bytes()


def test_what_was_found_is_taken_away(page: Page, folder: Path) -> None:
    put_in(page, *some(folder, "cat", "coffee"), folder / "broken.png")
    finished(page, 3)
    rows = list(csv.DictReader(io.StringIO(taken(page, "CSV").decode())))
    assert next(row["label"] for row in rows if row["file"] == "coffee.jpg") == "cup of coffee"
    (broken,) = [row for row in rows if row["file"] == "broken.png"]
    assert broken["error"]
    cat, coffee, bad = json.loads(taken(page, "JSON"))
    assert [one["image"]["name"] for one in (cat, coffee, bad)] == ["cat.jpg", "coffee.jpg", "broken.png"]
    assert coffee["groups"][0]["labels"][0]["label"] == "cup of coffee"
    assert bad["error"]["code"] == "undecodable_image"
    with zipfile.ZipFile(io.BytesIO(taken(page, "Keywords (XMP)"))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["cat.jpg.xmp", "coffee.jpg.xmp"]
        packet = ElementTree.fromstring(archive.read("coffee.jpg.xmp"))
    assert "cup of coffee" in [word.text for word in packet.findall(f".//{SUBJECTS}")]


def test_too_many_says_how_many_are_taken(page: Page, folder: Path) -> None:
    page.route("**/api/analyze", lambda route: None)
    page.evaluate(
        """() => {
          const drop = new Event("drop", { bubbles: true, cancelable: true });
          const files = Array.from({ length: 5003 }, (_, i) => new File(["x"], `${i}.jpg`, { type: "image/jpeg" }));
          drop.dataTransfer = { files, getData: () => "", items: [] };
          document.body.dispatchEvent(drop);
        }"""
    )
    expect(page.locator("#ca-many-problem")).to_have_text("A tab holds 5,000 pictures; 3 were left out.")


def test_nothing_of_it_stands_in_the_way_of_anybody(page: Page, folder: Path) -> None:
    put_in(page, *some(folder, "cat", "coffee", "rocket"), folder / "broken.png")
    finished(page, 4)
    assert page.evaluate("window.shift") < 0.05
    for view in ("Grid", "Table"):
        page.get_by_role("button", name=view, exact=True).click()
        problems = Axe().run(page).response["violations"]
        assert [one["id"] for one in problems if one["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is cut off at the side"
