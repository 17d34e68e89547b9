"""The code that the API view and docs/api.md print, copied out and run for real."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import need, served
from gradio_client import Client
from playwright.sync_api import Browser

from clip_app.archives import MOST_UNPACKED
from clip_app.batch import MOST_PICTURES
from clip_app.embeddings_api import LONGEST, MOST_TEXTS
from clip_app.endpoints import ENDPOINTS, REST, REST_EXPLAIN, REST_SEARCH
from clip_app.gradio_api import CALLS_AT_ONCE, GradioApi
from clip_app.labels import DEFAULT_TEMPLATE, MAX_LABEL_LENGTH, MAX_LABELS
from clip_app.middleware.body_limit import JSON_LIMIT, MEGABYTE
from clip_app.options import MAX_TOP_K, Options
from clip_app.settings import Settings
from clip_app.threads import IMAGES_PER_REQUEST

NAMES = ("analyze", "classify", "analyze_batch", "search", "explain", "status")
BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "clip_app" / "examples"
FRONTEND = Path(find_spec("gradio").origin or "").parent / "templates" / "frontend"  # type: ignore[union-attr]
CLIENT, SCRIPT = "client.js", "text/javascript"
PAGE = (ROOT / "docs" / "api.md").read_text("utf-8")
ADDRESS = "http://localhost:7860"
PROTECTED = "With a password"


def blocks() -> Iterator[Any]:
    """The code of docs/api.md, by its section."""
    for section in PAGE.split("\n## "):
        title = section.partition("\n")[0].removeprefix("# ")
        for language, code in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.DOTALL | re.MULTILINE):
            needs = {"sh": [need("curl")], "js": [need("chromium")]}.get(language, [])
            yield pytest.param(title, language, code, id=f"{title} {language}", marks=needs)


@pytest.fixture(scope="module")
def info(server: str) -> dict[str, Any]:
    endpoints: dict[str, Any] = httpx.get(f"{server}/gradio_api/info").json()["named_endpoints"]
    return endpoints


@pytest.fixture(scope="module")
def protected() -> Iterator[str]:
    with served("--model", "bundled", env={"CLIP_APP_AUTH": "ann:secret"}) as url:
        yield url


def run(code: str, folder: Path, *command: str) -> str:
    """Run code as somebody who copied it into a file would, in an empty folder."""
    script = folder / "copied"
    script.write_text(code)
    done = subprocess.run([*command, str(script)], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_in_a_browser(code: str, browser: Browser, server: str) -> Any:
    """Run a module in a page of this server, and return what it writes to the console.

    ``@gradio/client`` is what Gradio's own page consists of, under the name that it has on npm.
    """
    page = browser.new_page()
    imports = json.dumps({"imports": {"@gradio/client": f"/assets/{CLIENT}"}})
    html = f'<script type="importmap">{imports}</script><script type="module">{code}</script>'
    page.route(f"{server}/copied", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.route(f"{server}/assets/*", lambda route: route.fulfill(body=asset(route.request.url), content_type=SCRIPT))
    said: list[Any] = []
    page.on("console", lambda message: said.append(message.args[0].json_value()) if message.type == "log" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(f"{server}/copied")
    deadline = time.monotonic() + 60
    while not said and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    page.close()
    assert [type(value) for value in said[:1]] == [dict], said
    return said[0]


def asset(url: str) -> str:
    """A file of Gradio's page; the one that holds its client gives it away."""
    if not url.endswith(CLIENT):
        return (FRONTEND / "assets" / url.rpartition("/")[2]).read_text()
    (script,) = re.findall(r'src="\./(assets/index-[^"]+\.js)"', (FRONTEND / "index.html").read_text())
    text = (FRONTEND / script).read_text()
    before = text[: text.index("static async connect(")]
    name = "".join(re.findall(r"(?:([\w$]+)=class|class ([\w$]+))[^{};]*\{", before)[-1])
    return f"{text}\nexport {{{name} as Client}};"


def right(name: str, answer: dict[str, Any]) -> bool:
    """Whether it is the answer of this endpoint to the question of its example."""
    if name == "status":
        return bool(answer["ready"])
    if name == "explain":
        return bool(answer["label"] == "cup of coffee" and max(map(max, answer["map"])) == 1)
    if name == "search":
        (found,) = answer["results"]
        return (answer["done"], found["index"], found["relevant"]) == (1, 0, True)
    if name == "analyze_batch":  # the example has a group and labels of its own
        (row,) = answer["results"]
        return [group["labels"][0]["label"] for group in row["groups"]] == ["cup of coffee"] * 2
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
    event, _, data = stream.strip().split("\n\n")[-1].partition("\n")  # the last of those that stream
    assert event == "event: complete"
    assert right(name, json.loads(data.removeprefix("data: "))[0])


@need("chromium")
@pytest.mark.parametrize("name", NAMES)
def test_the_views_javascript_runs_as_copied(info: dict[str, Any], browser: Browser, server: str, name: str) -> None:
    assert right(name, run_in_a_browser(info[f"/{name}"]["code_snippets"]["javascript"], browser, server))


@need("chromium")
def test_the_javascript_client_shows_why_an_address_is_not_taken(browser: Browser, server: str) -> None:
    code = f"""
      import {{ Client }} from "@gradio/client";
      const client = await Client.connect("{server}");
      const image = {{ path: "https://example.com/x.png", meta: {{ _type: "gradio.FileData" }} }};
      client.predict("/analyze", {{ image }}).catch((error) => console.log({{ message: error.message }}));
    """
    assert "Pictures are not fetched from the web" in run_in_a_browser(code, browser, server)["message"]


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
        "/analyze_batch files": ("Pictures", "list[filepath]", "required"),
        "/analyze_batch groups": ("Label groups", "list[str] | str", None),
        "/analyze_batch labels": ("Your own labels", "list[str] | str", None),
        "/analyze_batch template": ("Prompt", "str", None),
        "/analyze_batch independent": ("Score alone", "bool", False),
        "/analyze_batch top_k": ("Labels per group", "int", None),
        "/search files": ("Pictures", "list[filepath]", "required"),
        "/search query": ("Query", "str", "required"),
        "/search top_k": ("Pictures", "int", None),
        "/explain image": ("Picture", "filepath", "required"),
        "/explain label": ("Label", "str", "required"),
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


@pytest.mark.parametrize(("title", "language", "code"), [*blocks()])
def test_the_documents_code_runs_as_copied(
    request: pytest.FixtureRequest, tmp_path: Path, title: str, language: str, code: str
) -> None:
    server: str = request.getfixturevalue("protected" if title == PROTECTED else "server")
    assert ADDRESS in code
    code = code.replace(ADDRESS, server)
    if title == "The API":
        run(code, tmp_path, "sh")
        assert (tmp_path / "coffee.jpg").read_bytes() == (EXAMPLES / "coffee.jpg").read_bytes()
        return
    shutil.copy(EXAMPLES / "coffee.jpg", tmp_path)
    if language == "python":
        answer = run(f"{code}\nimport json\nprint(json.dumps(result))", tmp_path, sys.executable).splitlines()[-1]
    elif language == "sh":
        answer = run(code, tmp_path, "sh").removeprefix("event: complete\ndata: ")
    else:
        answer = json.dumps(run_in_a_browser(code, request.getfixturevalue("browser"), server))
    if "/v1/embeddings" in code:
        first, second = (row["embedding"] for row in json.loads(answer)["data"])
        assert len(first) == len(second) > 300
        return
    (result,) = found if isinstance(found := json.loads(answer), list) else found.get("results", [found])
    assert result["image"]["width"] == 600
    if "/api/explain" in code:
        assert right("explain", result)
        return
    if "/search" in code:
        assert right("search", json.loads(answer))
        return
    assert result["groups"][0]["labels"][0]["label"] == "cup of coffee"


def test_the_documents_code_for_gradio_is_that_of_the_view(info: dict[str, Any], server: str) -> None:
    for name, language in (("analyze", "python"), ("classify", "javascript"), ("analyze", "bash")):
        assert info[f"/{name}"]["code_snippets"][language].replace(server, ADDRESS) in PAGE


def test_the_document_names_every_route_parameter_and_status(server: str) -> None:
    schema = httpx.get(f"{server}/api/openapi.json").json()
    for path, methods in schema["paths"].items():
        assert f"`{path}`" in PAGE or all(f"{method.upper()} {path}" in PAGE for method in methods)
    for path in ("/metrics", "/api/docs", "/api/openapi.json"):
        assert path in PAGE
        assert httpx.get(f"{server}{path}").status_code == 200
    for endpoint in (REST, REST_EXPLAIN, REST_SEARCH):
        for status in schema["paths"][endpoint.path]["post"]["responses"]:
            assert status == "200" or f"\n| {status} | " in PAGE
    rows = [line.split(" | ")[0].strip("| `") for line in PAGE.splitlines() if line.startswith("|")]
    assert set(rows) >= {"image", *REST.options, *REST_EXPLAIN.options, *REST_SEARCH.options}
    for name in GradioApi.endpoints:
        parameters = ", ".join(
            f"`{parameter}`"
            for parameter in ("files" if ENDPOINTS[name].several else "image", *ENDPOINTS[name].options)
        )
        assert f"| `/{name}` | {parameters} |" in PAGE


def test_the_documents_limits_are_those_of_the_code() -> None:
    settings = {name: field.default for name, field in Settings.model_fields.items()}
    independent = json.dumps(Options().independent)
    for row in (
        f"| bytes of one picture | {settings['max_upload_mb']} MB | `CLIP_APP_MAX_UPLOAD_MB` |",
        f"| {settings['max_pixels'] // 1_000_000} million | `CLIP_APP_MAX_PIXELS` |",
        f"| pictures in one REST request | {IMAGES_PER_REQUEST} |",
        f"| pictures in one search of `/mcp` | {IMAGES_PER_REQUEST} |",
        f"| pictures in one call of `/analyze_batch` or `/search`, those in archives too | {MOST_PICTURES:,} |",
        f"| bytes that the archives of one call unpack to | {MOST_UNPACKED // 10**9} GB, of each picture ",
        f"| calls of `/analyze_batch` and `/search` at once; more wait in the queue | {CALLS_AT_ONCE} |",
        f"| {settings['queue_size']}; then 503 | `CLIP_APP_QUEUE_SIZE` |",
        f"| own labels | {MAX_LABELS:,}, of {MAX_LABEL_LENGTH} characters each; the template {MAX_LABEL_LENGTH} too |",
        f"| `top_k` | 1 to {MAX_TOP_K:,} |",
        f"| a text, or up to {MOST_TEXTS} in a list, each of 1 to {LONGEST:,} characters;",
        f"| JSON sent to `/gradio_api` | {JSON_LIMIT // MEGABYTE} MB |",
        f"| `template` | the prompt of your own labels, with `{{}}` where the label goes | `{DEFAULT_TEMPLATE}` |",
        f"| `independent` | `true` scores each label alone instead of against the others | `{independent}` |",
    ):
        assert row in PAGE
