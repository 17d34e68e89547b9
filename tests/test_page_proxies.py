"""The page behind a real nginx: with a prefix, with a password, with the proxy's own limits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import need, served
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from real_browser import add_label, answered, put_in, verdict, visit
from real_nginx import Prefix, nginx

pytestmark = [need("chromium"), need("nginx")]


@pytest.fixture(scope="module")
def prefixed() -> Iterator[str]:
    with served("--model", "bundled", env={"CLIP_APP_ROOT_PATH": "/clip", "CLIP_APP_AUTH": "ann:secret"}) as url:
        yield url


def watch(page: Page, root: str) -> list[str]:
    """What goes wrong with what the page asks for, and what it asks elsewhere."""
    wrong: list[str] = []
    page.on("response", lambda r: wrong.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    page.on("requestfailed", lambda r: wrong.append(f"failed {r.url}"))
    page.on(
        "request",
        lambda r: wrong.append(f"outside {r.url}") if not r.url.startswith((root, "data:", "blob:")) else None,
    )
    return wrong


@pytest.mark.parametrize("host", ["$http_host", "$host"], ids=["port kept", "port lost"])
@pytest.mark.parametrize("prefix", ["kept", "taken off"])
def test_below_a_prefix_with_a_password_everything_is_found(
    browser: Browser, prefixed: str, photographs: dict[str, Path], tmp_path: Path, prefix: Prefix, host: str
) -> None:
    password = {"username": "ann", "password": "secret"}
    with (
        nginx(prefixed, tmp_path, prefix=prefix, host=host) as url,
        browser.new_context(
            http_credentials=password  # type: ignore[arg-type]
        ) as context,
    ):
        page = context.new_page()
        wrong = watch(page, url)
        page.goto(url)
        page.get_by_role("button", name="Example: pizza").click()
        answered(page)
        assert verdict(page).startswith("Best match: pizza")
        put_in(page, photographs["coffee"])
        expect(page.locator("#ca-verdict")).to_contain_text("cup of coffee")
        icons = page.eval_on_selector_all("link[rel=icon], link[rel=manifest]", "all => all.map((one) => one.href)")
        assert all(icon.startswith(url) for icon in icons)
        assert all(context.request.get(icon).ok for icon in icons)
        # A browser first asks without the password, and is told to bring it.
        assert [line for line in wrong if not line.startswith("401")] == []
        page.get_by_role("button", name="Use via API").click()
        expect(page.locator(".api-docs")).to_contain_text(url)


def test_without_the_password_there_is_nothing(browser: Browser, prefixed: str, tmp_path: Path) -> None:
    with nginx(prefixed, tmp_path, prefix="kept") as url, browser.new_context() as context:
        assert context.request.get(url).status == 401
        assert context.request.get(f"{url}page/page.js").status == 401


def test_what_the_proxy_finds_too_large_is_said_and_reduced_it_passes(
    browser: Browser, server: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    large = tmp_path / "large.png"
    Image.effect_noise((1400, 1400), 90).save(large)
    assert large.stat().st_size > 1_500_000
    with nginx(server, tmp_path, prefix="none") as url, visit(browser, f"{url}#exact=1") as page:
        put_in(page, large)
        expect(page.locator("#ca-verdict")).to_contain_text("does not let")
        expect(page.locator("#ca-verdict")).to_contain_text("Switch off")
        page.get_by_label("Send the file as it is").uncheck()
        expect(page.locator(".ca-group").first).to_be_visible()
    lines = "client_max_body_size 30m;"  # as docs/api.md says
    with nginx(server, tmp_path, prefix="none", more=lines) as url, visit(browser, f"{url}#exact=1") as page:
        put_in(page, large)
        expect(page.locator(".ca-group").first).to_be_visible()


def test_an_error_of_the_proxy_is_told_with_its_status_and_nothing_is_lost(
    browser: Browser, server: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    refuse = 'if ($content_length ~ "^[0-9]{6,}$") { return 403; }'  # as a firewall does
    with nginx(server, tmp_path, prefix="none", more=refuse) as url, visit(browser, url) as page:
        add_label(page, "a cat")
        put_in(page, photographs["cat"])
        expect(page.locator("#ca-verdict")).to_contain_text("answered with error 403")
        expect(page.locator(".ca-chip")).to_have_text("a cat\N{MULTIPLICATION SIGN}")
        expect(page.locator("#ca-preview")).to_be_visible()
        assert "CLIP_APP" not in page.locator("#ca-answer").inner_text()
