"""The tools for language models, asked by the protocol's own client over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import httpx2
import jsonschema
import pytest
from balancer import balancing
from conftest import CURSED, STOP_SECONDS, free_port, served, served_here, wait_for
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent
from PIL import Image

from clip_app.options import Asked, Options, SearchOptions

Answer = TypeVar("Answer")
MODES = ("legacy", "auto")  # with the handshake of the protocol up to 2025, and without, as since 2026
HEADERS = {"Accept": "application/json, text/event-stream"}
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def session(
    url: str, work: Callable[[Client], Awaitable[Answer]], *, mode: Any = "legacy", auth: Any = None, path: str = "/mcp"
) -> Answer:
    """Connect as a program does, and do something."""

    async def connected() -> Answer:
        async with (
            httpx2.AsyncClient(auth=auth, timeout=STOP_SECONDS) as http,
            Client(streamable_http_client(f"{url}{path}", http_client=http), mode=mode) as client,
        ):
            return await work(client)

    try:
        return asyncio.run(connected())
    except Exception as error:  # each of the client's tasks wraps it in a group
        while hasattr(error, "exceptions"):
            error = error.exceptions[0]
        raise error from None


def call(url: str, tool: str, mode: str = "legacy", **arguments: Any) -> CallToolResult:
    return session(url, lambda client: client.call_tool(tool, arguments), mode=mode)


def answered(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    content = result.structured_content
    assert isinstance(content, dict)
    return content


def refused(result: CallToolResult) -> str:
    """What the model reads of an error."""
    assert result.is_error
    assert result.structured_content is None
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def base64_of(picture: Path | bytes) -> str:
    return base64.b64encode(picture if isinstance(picture, bytes) else picture.read_bytes()).decode()


def without_timings(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "timings_ms"}


def by_rest(url: str, picture: Path, **fields: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/api/analyze", files={"image": picture.read_bytes()}, data=fields)
    assert answer.status_code == 200, answer.text
    result = without_timings(answer.json()["results"][0])
    result["image"]["name"] = ""  # a picture in base64 has none
    return result


@pytest.mark.parametrize("mode", MODES)
def test_a_client_is_told_who_serves_and_which_tools_there_are(server: str, mode: str) -> None:
    async def look(client: Client) -> tuple[Any, Any, Any]:
        return client.server_info, client.server_capabilities, (await client.list_tools()).tools

    who, can, tools = session(server, look, mode=mode)
    assert who.name == "clip_app"
    assert can.tools is not None
    assert (can.prompts, can.resources) == (None, None), "what is not there is not promised"
    assert [tool.name for tool in tools] == ["analyze", "classify", "search"]
    for tool in tools:
        assert tool.title
        assert tool.description
        hints = tool.annotations
        assert (hints.read_only_hint, hints.idempotent_hint, hints.open_world_hint) == (True, True, False)
        for schema in (tool.input_schema, tool.output_schema):
            jsonschema.Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"


def test_the_options_are_those_of_every_face(server: str) -> None:
    tools = session(server, lambda client: client.list_tools()).tools
    takes = {tool.name: tool.input_schema for tool in tools}
    models: dict[str, type[Asked]] = {"analyze": Options, "classify": Options, "search": SearchOptions}
    for name, schema in takes.items():
        known = models[name].model_json_schema()["properties"]
        for option, told in schema["properties"].items():
            assert told["title"]
            assert told["description"]
            if option not in ("image", "images"):
                assert told == known[option]
    assert {name: schema["required"] for name, schema in takes.items()} == {
        "analyze": ["image"],
        "classify": ["image", "labels"],
        "search": ["images", "query"],
    }
    assert takes["search"]["properties"]["images"]["maxItems"] == 16


@pytest.mark.parametrize("mode", MODES)
def test_analyze_answers_as_rest_does(server: str, photographs: dict[str, Path], mode: str) -> None:
    result = call(server, "analyze", mode, image=base64_of(photographs["cat"]), groups=["objects", "scenes"], top_k=3)
    told = answered(result)
    assert without_timings(told) == by_rest(server, photographs["cat"], groups="objects,scenes", top_k=3)
    assert told["timings_ms"]["encode"] > 0
    (content,) = result.content  # the same, for clients that know no structured answers
    assert isinstance(content, TextContent)
    assert json.loads(content.text) == told


def test_every_answer_follows_the_schema_that_is_told(server: str, photographs: dict[str, Path]) -> None:
    cat, none = base64_of(photographs["cat"]), base64_of(b"no picture")
    tools = {tool.name: tool for tool in session(server, lambda client: client.list_tools()).tools}
    plain = io.BytesIO()
    Image.new("RGB", (64, 64)).save(plain, "PNG")  # has a warning
    asked: list[tuple[str, dict[str, Any]]] = [
        ("analyze", {"image": cat}),
        ("analyze", {"image": base64_of(plain.getvalue())}),
        ("classify", {"image": cat, "labels": ["cat", "dog"]}),
        ("search", {"images": [cat, none], "query": "a cat"}),
    ]
    for name, arguments in asked:
        schema = tools[name].output_schema
        assert schema is not None
        jsonschema.validate(answered(call(server, name, **arguments)), schema)


def test_classify_answers_as_rest_does(server: str, photographs: dict[str, Path]) -> None:
    asked: dict[str, Any] = {"labels": ["cat", "dog", "pizza"], "template": "a picture of a {}.", "independent": True}
    told = answered(call(server, "classify", image=base64_of(photographs["cat"]), **asked))
    assert without_timings(told) == by_rest(server, photographs["cat"], **asked)
    (group,) = told["groups"]
    assert (group["name"], group["labels"][0]["label"], len(group["labels"])) == ("labels", "cat", 3)
    # Some clients send lists as texts.
    as_text = answered(call(server, "classify", image=base64_of(photographs["cat"]), labels='["cat", "dog"]'))
    assert {label["label"] for label in as_text["groups"][0]["labels"]} == {"cat", "dog"}


def test_search_ranks_pictures_and_says_which_are_relevant(server: str, photographs: dict[str, Path]) -> None:
    names = ["rocket", "coffee", "cat"]
    pictures = [base64_of(photographs[name]) for name in names]
    for query, best in (("a cat", 2), ("a cup of coffee", 1), ("a rocket", 0)):
        told = answered(call(server, "search", images=pictures, query=query))
        assert told["query"] == query
        rows = told["results"]
        assert sorted(row["index"] for row in rows) == [0, 1, 2]
        assert rows[0]["index"] == best
        assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
        assert [row["relevant"] for row in rows] == [True, False, False]
    assert rows[0]["image"]["width"] == Image.open(photographs["rocket"]).width
    first = answered(call(server, "search", images=pictures, query="a cat", top_k=1))["results"]
    assert [row["index"] for row in first] == [2]


def test_a_bad_picture_of_a_search_is_a_row_and_the_rest_goes_on(server: str, photographs: dict[str, Path]) -> None:
    plain = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(plain, "PNG")
    good, flat = base64_of(photographs["cat"]), base64_of(plain.getvalue())
    pictures = [base64_of(b"no picture"), flat, "https://example.org/cat.jpg", good]
    told = answered(call(server, "search", images=pictures, query="a cat", top_k=2))
    assert [(row["index"], row["relevant"]) for row in told["results"]] == [(3, True), (1, False)]
    assert [(row["index"], row["error"]["code"]) for row in told["errors"]] == [
        (0, "undecodable_image"),
        (2, "undecodable_image"),
    ]
    assert "not fetched" in told["errors"][1]["error"]["message"]
    alone = answered(call(server, "search", images=["!"], query="a cat"))["errors"]
    assert [row["error"]["code"] for row in alone] == ["undecodable_image"]


def test_base64_comes_in_every_dress(server: str, photographs: dict[str, Path]) -> None:
    bare = base64_of(photographs["rocket"])
    expected = by_rest(server, photographs["rocket"])
    lines = "\n".join(textwrap.wrap(bare, 76))
    for dressed in (f"data:image/jpeg;base64,{bare}", lines, bare.rstrip("="), f"DATA:;base64,{lines}\n"):
        assert without_timings(answered(call(server, "analyze", image=dressed))) == expected


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("https://example.org/cat.jpg", "not fetched from the web. Download it and send the bytes of the file"),
        ("HTTP://127.0.0.1:1/", "not fetched"),
        ("cat.jpg", "not base64. Send the bytes of the picture's file"),
        ("data:image/png,cat", "not base64"),
        ("Y2F0", "not a picture that can be read. Send JPEG"),
        ("", "there is no picture"),
        (["Y2F0"], "there is no picture"),
        (None, "there is no picture"),
    ],
)
def test_what_is_no_picture_is_said(server: str, image: Any, says: str) -> None:
    assert says in refused(call(server, "analyze", image=image))


def test_a_damaged_picture_is_said_to_be(server: str, photographs: dict[str, Path]) -> None:
    cut = photographs["cat"].read_bytes()[:5000]
    assert "truncated" in refused(call(server, "analyze", image=base64_of(cut)))


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("analyze", {"groups": ["birds"]}, "kinds, objects, scenes, content"),
        ("analyze", {"top_k": 0}, "top_k: it must be from 1 to 1000"),
        ("analyze", {"grops": ["objects"]}, "There is no argument 'grops'. Did you mean groups?"),
        ("analyze", {"labels": ["cat"]}, "There is no argument 'labels'"),
        ("classify", {}, "labels"),
        ("classify", {"labels": []}, "labels"),
        ("classify", {"labels": {"cat": 1}}, "labels: names are a list of texts"),
        ("classify", {"labels": ["cat"], "template": "no place"}, "template"),
        ("classify", {"labels": ["cat"], "independent": "perhaps"}, "independent"),
        ("search", {}, "query"),
        ("search", {"query": " "}, "nothing to search by"),
        ("search", {"query": 7}, "query"),
        ("search", {"query": "a cat", "images": []}, "1 to 16 pictures"),
        ("search", {"query": "a cat", "images": "Y2F0"}, "1 to 16 pictures"),
        ("search", {"query": "a cat", "images": ["Y2F0"] * 17}, "17 pictures were sent; at most 16"),
    ],
)
def test_a_bad_argument_is_an_error_that_says_which(
    server: str, photographs: dict[str, Path], tool: str, arguments: dict[str, Any], says: str
) -> None:
    cat = base64_of(photographs["cat"])
    pictures = {"images": [cat]} if tool == "search" else {"image": cat}
    text = refused(call(server, tool, **(pictures | arguments)))
    assert says in text
    assert "(bad_option, request " in text


def test_too_much_is_refused_with_a_sentence_by_picture_and_by_request(
    server: str, photographs: dict[str, Path]
) -> None:
    large = base64_of(photographs["cat"].read_bytes() + bytes(20_000_000))
    assert "CLIP_APP_MAX_UPLOAD_MB" in refused(call(server, "analyze", image=large))
    for mode in MODES:
        with pytest.raises(MCPError, match=r"The request is larger than 26 MB\. Send less"):
            call(server, "analyze", mode, image="A" * 28_000_000)
    out = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(out, "PNG")
    assert "CLIP_APP_MAX_PIXELS" in refused(call(server, "analyze", image=base64_of(out.getvalue())))


def test_a_tool_that_is_none_is_an_error_of_the_protocol(server: str) -> None:
    with pytest.raises(MCPError, match=r"There is no tool 'analyse'. There are: analyze, classify, search\."):
        call(server, "analyse", image="Y2F0")


def test_several_clients_at_once_get_their_own_answers(server: str, photographs: dict[str, Path]) -> None:
    names = list(photographs) * 2
    expected = {name: by_rest(server, path) for name, path in photographs.items()}
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda name: call(server, "analyze", image=base64_of(photographs[name])), names))
    for name, result in zip(names, told, strict=True):
        assert without_timings(answered(result)) == expected[name]


@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
def test_the_route_redirects_nobody_and_takes_post_alone(server: str, path: str) -> None:
    assert len(session(server, lambda client: client.list_tools(), path=path).tools) == 3
    answer = httpx.post(f"{server}{path}", json=PING, headers=HEADERS)
    assert (answer.status_code, answer.json()["result"]) == (200, {})
    assert "mcp-session-id" not in answer.headers
    for method in ("GET", "DELETE", "PUT"):
        answer = httpx.request(method, f"{server}{path}", headers=HEADERS)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert "POST" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/mcp", "/mcp/"])
def test_a_large_picture_passes_at_either_path(server: str, photographs: dict[str, Path], path: str) -> None:
    padded = photographs["rocket"].read_bytes() + bytes(15_000_000)

    def analyze(client: Client) -> Awaitable[CallToolResult]:
        return client.call_tool("analyze", {"image": base64_of(padded)})

    assert answered(session(server, analyze, path=path))["image"]["width"] > 0


def test_pages_of_other_sites_may_not_ask_unless_they_are_named(server: str) -> None:
    def status(url: str, origin: str, **headers: str) -> int:
        return httpx.post(f"{url}/mcp", json=PING, headers=HEADERS | headers | {"Origin": origin}).status_code

    assert status(server, "https://evil.example") == 403
    assert status(server, "null") == 403
    assert status(server, server) == 200
    assert status(server, "https://clip.example", Host="clip.example") == 200, "under whatever name it is served"
    named = httpx.post(f"{server}/mcp", json=PING, headers=HEADERS | {"Host": "clip.example"})
    assert named.status_code == 200, "a program says no origin"
    with served_here(cors_origins="https://friend.example") as url:
        assert status(url, "https://friend.example") == 200
        assert status(url, "https://evil.example") == 403


def test_any_replica_answers(server: str, photographs: dict[str, Path]) -> None:
    cat = base64_of(photographs["cat"])

    async def talk(client: Client) -> list[Any]:
        await client.list_tools()
        return [answered(await client.call_tool("analyze", {"image": cat})) for _ in range(4)]

    with served("--model", "bundled") as other, balancing([server, other]) as balancer:
        for mode in MODES:
            first, *rest = session(balancer.url, talk, mode=mode)
            assert all(without_timings(told) == without_timings(first) for told in rest)
        assert min(balancer.seen.values()) > 4


def test_behind_a_path_and_a_password(photographs: dict[str, Path]) -> None:
    cat = base64_of(photographs["cat"])

    def analyze(client: Client) -> Awaitable[CallToolResult]:
        return client.call_tool("analyze", {"image": cat})

    env = {"CLIP_APP_AUTH": "ann:secret", "CLIP_APP_ROOT_PATH": "/clip"}
    with served("--model", "bundled", env=env) as url:
        for path in ("/clip/mcp", "/clip/mcp/", "/mcp"):  # kept by the proxy, or taken off
            told = answered(session(url, analyze, auth=("ann", "secret"), path=path))
            assert told["groups"][0]["labels"][0]["label"]
            for wrong in (None, ("ann", "wrong")):
                answer = httpx.post(f"{url}{path}", json=PING, headers=HEADERS, auth=wrong)
                assert (answer.status_code, answer.headers["www-authenticate"][:5]) == (401, "Basic")
        with pytest.raises(MCPError, match="A user name and a password are needed"):
            session(url, analyze, path="/clip/mcp")


def test_a_full_house_is_told_to_come_back(photographs: dict[str, Path]) -> None:
    big = io.BytesIO()
    Image.open(photographs["china"]).resize((5000, 4000)).save(big, "JPEG")
    with served_here(queue_size=1) as url:
        call(url, "analyze", image=base64_of(photographs["cat"]))  # so that nobody waits for the import
        with ThreadPoolExecutor(8) as pool:
            told = list(pool.map(lambda _: call(url, "analyze", image=base64_of(big.getvalue())), range(8)))
        busy = [refused(result) for result in told if result.is_error]
        assert 0 < len(busy) < 8
        assert all("Try again in a moment. (busy, request " in text for text in busy)
        several = answered(call(url, "search", images=[base64_of(photographs["cat"])] * 4, query="a cat"))
        assert len(several["results"]) == 4, "one request fits into the smallest house"


def test_each_picture_is_counted_and_logged_once(damaged: Path, photographs: dict[str, Path], tmp_path: Path) -> None:
    log, cat = tmp_path / "log", base64_of(photographs["cat"])
    with served("--model", str(damaged), "--log-format", "json", "--log-level", "info", log=log) as url:
        session(url, lambda client: client.list_tools())  # is no analysis
        answered(call(url, "analyze", image=cat))
        answered(call(url, "classify", image=cat, labels=["cat"]))
        answered(call(url, "search", images=[cat, "!", cat], query="a cat"))
        refused(call(url, "analyze", image=cat, groups=["birds"]))
        refused(call(url, "analyze", image=cat, grops=["objects"]))
        refused(call(url, "search", images=[cat] * 17, query="a cat"))
        unknown = [
            refused(call(url, "classify", image=cat, labels=[CURSED])),
            refused(call(url, "search", images=[cat], query=CURSED)),
        ]
        with pytest.raises(MCPError):
            call(url, "analyze", image="A" * 28_000_000)
        counts = counted(url)
    assert counts == {
        "mcp/invalid": 1,
        "mcp_analyze/ok": 1,
        "mcp_analyze/invalid": 2,
        "mcp_classify/ok": 1,
        "mcp_classify/error": 1,
        "mcp_search/ok": 2,
        "mcp_search/invalid": 2,
        "mcp_search/error": 1,
        "uploaded/api": 11,
    }
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len([line for line in lines if line["message"] == "analysis"]) == 11
    for text in unknown:
        assert "IndexError" in text
        assert "log says more" in text
        number = text.rpartition("request ")[2].rstrip(")")
        about = [line for line in lines if line.get("request_id") == number]
        assert any("IndexError" in line.get("exception", "") for line in about)
    assert all(str(Path(__file__).parent.parent) not in text for text in unknown), "no path of the server"
    assert CURSED not in json.dumps(lines)


def counted(url: str) -> dict[str, float]:
    found = {}
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith("clip_app_analyses_total") and float(value):
            endpoint, outcome = (part.split('"')[1] for part in name.split(","))
            found[f"{endpoint}/{outcome}"] = float(value)
        if name == 'clip_app_images_uploaded_total{source="api"}':
            found["uploaded/api"] = float(value)
    return found


@contextmanager
def served_without(tmp_path: Path) -> Iterator[str]:
    """The app in a process that cannot import the framework."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['mcp'] = None\n")
    port = free_port()
    command = [sys.executable, "-m", "clip_app", "serve", "--port", str(port), "--model", "bundled"]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(tmp_path), "CLIP_APP_LOG_LEVEL": "warning"})
    try:
        wait_for(f"http://127.0.0.1:{port}/readyz", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0


def test_without_the_extra_the_route_says_so_and_everything_else_works(
    photographs: dict[str, Path], tmp_path: Path
) -> None:
    with served_without(tmp_path) as url:
        assert by_rest(url, photographs["cat"])["groups"]
        for method in ("GET", "POST"):
            answer = httpx.request(method, f"{url}/mcp", headers=HEADERS)
            assert answer.status_code == 501
            assert "pip install 'clip-app[mcp]'" in answer.json()["error"]["message"]
        for mode in MODES:
            with pytest.raises(MCPError, match=r"pip install 'clip-app\[mcp\]'"):
                call(url, "analyze", mode, image=base64_of(photographs["cat"]))


def test_the_framework_is_imported_once_somebody_asks(tmp_path: Path) -> None:
    code = """
        import sys
        from clip_app.server import create_app
        from clip_app.settings import load_settings
        create_app(load_settings(model="bundled"))
        assert "mcp" not in sys.modules, "it takes a second, before the port listens"
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=STOP_SECONDS)


PAGE = (Path(__file__).parent.parent / "docs" / "mcp.md").read_text("utf-8")


def test_the_code_of_the_page_runs_as_copied(server: str, tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "copied.py").write_text(code.replace("http://localhost:7860", server))
    command = [sys.executable, "copied.py"]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True, timeout=STOP_SECONDS)
    assert "'label': 'cup of coffee'" in done.stdout


def test_the_configurations_of_the_page_are_json_and_name_the_route() -> None:
    blocks = re.findall(r"^```json\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        json.loads(block)
        assert re.search(r'"https?://[^"/]+/mcp"', block)


def test_the_page_names_the_tools_and_all_they_take(server: str) -> None:
    for tool in session(server, lambda client: client.list_tools()).tools:
        (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{tool.name}` |")]
        assert re.findall(r"`(\w+)`", row.split("|")[2]) == list(tool.input_schema["properties"])
