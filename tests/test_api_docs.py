"""The code that the API view and docs/api.md print, copied out and run for real."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import need
from gradio_client import Client
from playwright.sync_api import Browser, sync_playwright

NAMES = ("analyze", "classify", "status")
BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).parent.parent / "clip_app" / "examples"


@pytest.fixture(scope="module")
def info(server: str) -> dict[str, Any]:
    endpoints: dict[str, Any] = httpx.get(f"{server}/gradio_api/info").json()["named_endpoints"]
    return endpoints


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield browser
        browser.close()


def run(code: str, folder: Path, *command: str) -> str:
    """Run code as somebody who copied it into a file would, in an empty folder."""
    script = folder / "copied"
    script.write_text(code)
    done = subprocess.run([*command, str(script)], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_in_a_browser(code: str, browser: Browser, server: str) -> Any:
    """Run a module in a page of this server, and return what it writes to the console.

    ``@gradio/client`` is the one that Gradio's page itself consists of, under the name that it has on npm.
    """
    page = browser.new_page()
    page.set_default_timeout(60_000)
    (script,) = re.findall(r'src="\.(/assets/index-[^"]+\.js)"', httpx.get(f"{server}/").text)
    gradio = httpx.get(f"{server}{script}").text
    before = gradio[: gradio.index("static async connect(")]
    name = re.findall(r"(?:([\w$]+)=class|class ([\w$]+))[^{};]*\{", before)[-1]
    imports = json.dumps({"imports": {"@gradio/client": "/assets/client.js"}})
    html = f'<script type="importmap">{imports}</script><script type="module">{code}</script>'
    page.route(f"{server}/copied", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.route(
        f"{server}/assets/client.js",
        lambda route: route.fulfill(
            body=f"{gradio}\nexport {{{''.join(name)} as Client}};", content_type="text/javascript"
        ),
    )
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        with page.expect_console_message(lambda message: message.type == "log" or bool(wrong)) as said:
            page.goto(f"{server}/copied")
        return said.value.args[0].json_value()
    except Exception as error:
        raise AssertionError(wrong) from error
    finally:
        page.close()


def right(name: str, answer: dict[str, Any]) -> bool:
    """Whether it is the answer of this endpoint to the question of its example."""
    if name == "status":
        return bool(answer["ready"])
    (group,) = answer["groups"]
    best = [score["label"] for score in group["labels"]]
    expected = {"analyze": ("objects", 3), "classify": ("labels", 2)}[name]
    return (group["name"], len(best)) == expected and best[0] == "cup of coffee"


@pytest.mark.parametrize("name", NAMES)
def test_the_views_python_runs_as_copied(info: dict[str, Any], tmp_path: Path, name: str) -> None:
    code = info[f"/{name}"]["code_snippets"]["python"]
    run(f"{code}\nimport json\njson.dump(result, open('answer', 'w'))", tmp_path, sys.executable)
    assert right(name, json.loads((tmp_path / "answer").read_text()))


@need("curl")
@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("name", NAMES)
def test_the_views_curl_runs_as_copied(info: dict[str, Any], tmp_path: Path, name: str, shell: str) -> None:
    stream = run(info[f"/{name}"]["code_snippets"]["bash"], tmp_path, shell)
    event, _, data = stream.strip().partition("\n")
    assert event == "event: complete"
    assert right(name, json.loads(data.removeprefix("data: "))[0])


@need("chromium")
@pytest.mark.parametrize("name", NAMES)
def test_the_views_javascript_runs_as_copied(info: dict[str, Any], browser: Browser, server: str, name: str) -> None:
    assert right(name, run_in_a_browser(info[f"/{name}"]["code_snippets"]["javascript"], browser, server))


@need("curl")
@pytest.mark.parametrize("name", NAMES)
def test_the_views_command_line_runs_as_copied(info: dict[str, Any], tmp_path: Path, name: str) -> None:
    code = info[f"/{name}"]["code_snippets"]["cli"]
    assert code.count("{command}") == 1, "the view replaces one"
    assert right(name, json.loads(run(code.replace("{command}", str(BIN / "gradio")), tmp_path, "sh"))["result"])


@need("chromium")
def test_the_view_prints_that_code_and_a_text_for_each_parameter(
    info: dict[str, Any], browser: Browser, server: str
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(server)
    page.get_by_role("button", name="Use via API").click()
    page.get_by_text('api_name="/classify"').wait_for()
    for language, button in (("python", "Python"), ("javascript", "JavaScript"), ("bash", "cURL"), ("cli", "CLI")):
        page.get_by_text(button, exact=True).click()
        shown = page.locator("body").inner_text()
        for endpoint in info.values():
            code = endpoint["code_snippets"][language].replace("{command}", "gradio")
            assert " ".join(code.split()) in " ".join(shown.split()), f"{language} of {endpoint['description']}"
    page.get_by_text("Python", exact=True).click()
    for endpoint in info.values():
        for parameter in endpoint["parameters"]:
            text = f'provided in the "{parameter["label"]}" {parameter["component"]} component. '
            assert page.get_by_text(text + parameter["python_type"]["description"]).count()
    page.close()


def test_every_parameter_has_a_label_a_text_a_type_and_its_default(info: dict[str, Any]) -> None:
    told = {
        f"{name} {parameter['parameter_name']}": (
            parameter["label"],
            parameter["python_type"]["type"],
            parameter["parameter_default"] if parameter["parameter_has_default"] else "required",
        )
        for name, endpoint in info.items()
        for parameter in endpoint["parameters"]
    }
    assert told == {
        "/analyze image": ("Picture", "filepath", "required"),
        "/analyze groups": ("Label groups", "list[str] | str", None),
        "/analyze top_k": ("Labels per group", "int", None),
        "/classify image": ("Picture", "filepath", "required"),
        "/classify labels": ("Your own labels", "list[str] | str", None),
        "/classify template": ("Prompt", "str", None),
        "/classify independent": ("Score alone", "bool", False),
    }
    for endpoint in info.values():
        assert all(len(parameter["python_type"]["description"]) > 20 for parameter in endpoint["parameters"])
        assert [result["label"] for result in endpoint["returns"]] == ["result"]


def test_a_parameter_with_a_default_may_be_left_out(server: str, info: dict[str, Any]) -> None:
    client = Client(server, verbose=False)
    picture = {"path": str(EXAMPLES / "coffee.jpg"), "meta": {"_type": "gradio.FileData"}}
    assert right("classify", client.predict(picture, labels="cup of coffee, teapot", api_name="/classify"))


def test_the_code_names_the_address_that_was_asked(server: str) -> None:
    for host in ("clip.example", "other.example"):
        told = httpx.get(f"{server}/gradio_api/info", headers={"Host": host}).text
        assert f"http://{host}/examples/coffee.jpg" in told, "not that of who asked first"
        assert "127.0.0.1" not in told
