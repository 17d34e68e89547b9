"""How a picture gets from the browser to the model: reduced, upright, without the place; or as it is."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import need, served, small_checkpoint, warm
from fake_hub import REVISION, FakeHub
from PIL import Image
from playwright.sync_api import Browser, Page, Request, expect
from real_browser import answered, labels, put_in, verdict

pytestmark = need("chromium")

ORIENTATION, GPS, MAKE = 0x0112, 0x8825, 0x010F


class Sent:
    """The questions that the page sent."""

    def __init__(self, page: Page) -> None:
        self.bodies: list[str] = []
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        if request.url.endswith("/run/predict") and (request.post_data or "").find("data:") >= 0:
            self.bodies.append(request.post_data or "")

    def picture(self, number: int = -1) -> bytes:
        value: dict[str, Any] = json.loads(self.bodies[number])["data"][0]
        return base64.b64decode(value["picture"]["url"].partition(",")[2])


def photograph(photographs: dict[str, Path], folder: Path, *, orientation: int = 1) -> Path:
    """Twelve megapixels as a telephone takes them, with its place; stored turned where it is to be turned back."""
    upright = Image.open(photographs["coffee"]).convert("RGB").resize((4000, 3000), Image.Resampling.LANCZOS)
    grain = np.random.default_rng(0).normal(0, 6, (3000, 4000, 1))
    upright = Image.fromarray(np.clip(np.asarray(upright) + grain, 0, 255).astype(np.uint8))
    stored = upright.transpose(Image.Transpose.ROTATE_90) if orientation == 6 else upright
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKE] = orientation, "Secret Camera"
    exif.get_ifd(GPS)[1] = "N"
    path = folder / f"photo-{orientation}.jpg"
    stored.save(path, quality=93, exif=exif)
    return path


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_photograph_is_sent_small_upright_and_without_its_place(
    page: Page, server: str, photographs: dict[str, Path], tmp_path: Path, orientation: int
) -> None:
    photo = photograph(photographs, tmp_path, orientation=orientation)
    assert photo.stat().st_size > 2_500_000
    sent = Sent(page)
    put_in(page, photo)
    answered(page)
    (body,) = sent.bodies
    assert len(body) < 400_000
    picture = sent.picture()
    assert b"Exif" not in picture
    assert b"Secret" not in picture
    decoded = Image.open(io.BytesIO(picture))
    assert decoded.size == (389, 292)
    page.locator("#ca-details summary").click()
    expect(page.locator("#ca-details")).to_contain_text("4000 \N{MULTIPLICATION SIGN} 3000 pixels")


@pytest.mark.parametrize("name", ["cat", "coffee", "astronaut", "rocket", "china", "flower"])
def test_the_reduced_picture_says_the_same_as_the_whole(
    page: Page, server: str, photographs: dict[str, Path], name: str
) -> None:
    sent = Sent(page)
    put_in(page, photographs[name])
    answered(page)

    def similarities(data: bytes) -> dict[str, float]:
        form = {"groups": "kinds", "top_k": "200"}
        answer = httpx.post(f"{server}/api/analyze", files={"image": data}, data=form).json()["results"][0]
        return {score["label"]: score["similarity"] for score in answer["groups"][0]["labels"]}

    whole, reduced = similarities(photographs[name].read_bytes()), similarities(sent.picture())
    best = sorted(whole, key=whole.__getitem__)[-5:]
    assert [reduced[label] for label in best] == pytest.approx([whole[label] for label in best], abs=0.005)


def deep(path: Path) -> None:
    Image.fromarray(np.linspace(0, 4080, 80 * 100).reshape(80, 100).astype(np.uint16)).save(path)


def transparent(path: Path) -> None:
    Image.new("RGBA", (100, 80), (255, 255, 255, 128)).save(path)


def cut(path: Path) -> None:
    stream = io.BytesIO()
    Image.linear_gradient("L").save(stream, "JPEG")
    path.write_bytes(stream.getvalue()[:-2])


@pytest.mark.parametrize("make", [deep, transparent, cut])
def test_what_the_server_understands_better_is_sent_as_it_is(
    page: Page, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / ("picture.jpg" if make is cut else "picture.png")
    make(path)
    sent = Sent(page)
    put_in(page, path)
    answered(page)
    assert sent.picture() == path.read_bytes()


def test_what_was_wrong_with_a_file_is_said(page: Page, tmp_path: Path) -> None:
    cut(tmp_path / "cut.jpg")
    put_in(page, tmp_path / "cut.jpg")
    answered(page)
    expect(page.locator("#ca-results")).to_contain_text("The file ends early")
    Image.new("RGB", (60, 40), "teal").save(tmp_path / "flat.png")
    put_in(page, tmp_path / "flat.png")
    expect(page.locator("#ca-results")).to_contain_text("one colour all over")
    assert verdict(page) == "Nothing here matches"


def test_a_file_is_sent_as_it_is_where_that_is_asked_for(
    page: Page, photographs: dict[str, Path], tmp_path: Path
) -> None:
    sent = Sent(page)
    put_in(page, photographs["rocket"])
    answered(page)
    page.locator("#ca-options summary").click()
    with page.expect_request(lambda request: request.url.endswith("/run/predict")):
        page.get_by_label("Send the file as it is").check()
    answered(page)
    assert sent.picture() == photographs["rocket"].read_bytes()
    assert "exact=1" in page.url


@pytest.mark.parametrize("ending", ["tiff", "heic"])
def test_what_the_browser_cannot_decode_is_sent_as_it_is(
    page: Page, photographs: dict[str, Path], tmp_path: Path, ending: str
) -> None:
    if ending == "heic":
        from pillow_heif import register_heif_opener

        register_heif_opener()
    path = tmp_path / f"coffee.{ending}"
    Image.open(photographs["coffee"]).save(path)
    sent = Sent(page)
    put_in(page, path)
    answered(page)
    assert verdict(page).startswith("Best match: cup of coffee")
    expect(page.locator("#ca-no-preview")).to_contain_text(f"coffee.{ending}: this browser cannot show it")
    assert sent.picture() == path.read_bytes()


def rewritten(photo: Path, name: str, kind: str, folder: Path) -> Path:
    """The photograph under another name, as a file of that kind."""
    from pillow_heif import register_heif_opener

    register_heif_opener()
    path = folder / name
    image = Image.open(photo).convert("RGB")
    image.save(path, kind, **({"save_all": True, "append_images": [image]} if kind == "MPO" else {}))
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("IMG_0001.HEIC", "HEIF"),
        ("IMG_0001", "HEIF"),
        ("coffee", "JPEG"),
        ("DSC_0001.MPO", "MPO"),
        ("coffee.avif", "AVIF"),
        ("coffee.bin", "PNG"),
        ("SCAN.TIF", "TIFF"),
        ("coffee.txt", "WEBP"),
    ],
)
def test_files_are_taken_by_what_is_in_them(
    page: Page, photographs: dict[str, Path], tmp_path: Path, name: str, kind: str
) -> None:
    put_in(page, rewritten(photographs["coffee"], name, kind, tmp_path))
    answered(page)
    assert verdict(page).startswith("Best match: cup of coffee")


def test_too_large_a_file_is_not_sent(page: Page, photographs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "big.tiff").write_bytes(b"II*\0" + bytes(21_000_000))
    sent = Sent(page)
    put_in(page, tmp_path / "big.tiff")
    expect(page.locator("#ca-picture-problem")).to_contain_text("at most 20.0 MB are accepted")
    assert sent.bodies == []
    put_in(page, photographs["coffee"])
    answered(page)
    expect(page.locator("#ca-picture-problem")).to_be_empty()


def test_an_empty_file_and_a_second_picture_are_noticed(
    page: Page, photographs: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty.jpg").touch()
    put_in(page, tmp_path / "empty.jpg")
    expect(page.locator("#ca-picture-problem")).to_contain_text("empty.jpg is empty")


# The browser's own events, with what it puts into them.
GIVE = """async ([kind, base64, address]) => {
  const transfer = new DataTransfer();
  if (base64) {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    transfer.items.add(new File([bytes], "given.jpg", { type: "image/jpeg" }));
  }
  if (address) transfer.setData("text/uri-list", address);
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
    : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_a_picture_is_pasted_and_dropped_anywhere(page: Page, photographs: dict[str, Path], kind: str) -> None:
    stream = io.BytesIO()
    Image.open(photographs["coffee"]).save(stream, "JPEG")
    page.evaluate(GIVE, [kind, base64.b64encode(stream.getvalue()).decode(), None])
    answered(page)
    assert verdict(page).startswith("Best match: cup of coffee")


def test_a_picture_dragged_from_another_page_is_not_fetched_and_said_so(page: Page, server: str) -> None:
    page.evaluate(GIVE, ["drop", None, "https://example.com/cat.jpg"])
    expect(page.locator("#ca-picture-problem")).to_contain_text("Only the picture's address was dropped")
    page.evaluate(GIVE, ["drop", None, "nothing"])
    expect(page.locator("#ca-picture-problem")).to_contain_text("no picture in what was dropped")
    page.evaluate(GIVE, ["drop", None, f"{server}/examples/coffee.jpg"])
    answered(page)
    assert verdict(page).startswith("Best match: cup of coffee")


def test_a_picture_comes_from_the_camera(page: Page) -> None:
    page.get_by_role("button", name="Camera").click()
    page.wait_for_function("document.querySelector('#ca-camera-video').videoWidth > 0")
    page.get_by_role("button", name="Take the picture").click()
    assert len(labels(page, "kinds")) == 5
    assert page.evaluate("document.querySelector('#ca-camera-video').srcObject.active") is False, "its light goes out"


def test_a_picture_is_removed_and_the_examples_come_back(page: Page, photographs: dict[str, Path]) -> None:
    put_in(page, photographs["coffee"])
    answered(page)
    expect(page.locator("#ca-gallery")).to_be_hidden()
    page.get_by_role("button", name="Remove").first.click()
    expect(page.locator("#ca-gallery")).to_be_visible()
    expect(page.locator(".ca-group")).to_have_count(0)
    expect(page.locator("#ca-drop")).to_be_focused()


def test_a_picture_that_came_before_the_model_is_answered_when_it_is_there(
    browser: Browser, photographs: dict[str, Path], tmp_path: Path
) -> None:
    with FakeHub(small_checkpoint()).running() as hub:
        hub.open.clear()
        env = {"HF_HOME": str(warm(tmp_path, hub.repo, REVISION)), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.endpoint}
        flags = ("--model", hub.repo, "--revision", REVISION)
        with served(*flags, env=env, ready=False) as url, browser.new_context() as context:
            page = context.new_page()
            page.goto(url)
            expect(page.locator("#ca-pill-text")).not_to_be_empty()
            put_in(page, photographs["coffee"])
            expect(page.locator("#ca-verdict")).to_contain_text("not ready yet", timeout=60_000)
            hub.open.set()
            expect(page.locator(".ca-group").first).to_be_visible(timeout=120_000)
            expect(page.locator("#ca-pill")).to_contain_text("tiny-clip ready")
