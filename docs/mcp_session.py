"""Writes the session in docs/mcp.md: the app on the bundled model, and what a client and it say to each other.

python docs/mcp_session.py
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from real_server import served

PAGE = Path(__file__).parent / "mcp.md"
EXAMPLES = Path(__file__).parent.parent / "clip_app" / "examples"
SESSION = re.compile(r"<!-- session -->\n.*?<!-- end -->", re.DOTALL)
LONGEST = 400  # of a text; base64 of a picture is longer


def shortened(value: Any) -> Any:
    """Cut pictures short and leave out the schemas of answers, and what an answer says twice."""
    if isinstance(value, dict):
        value = {name: "..." if name == "outputSchema" else shortened(part) for name, part in value.items()}
        if "structuredContent" in value:
            value["content"] = [{"type": "text", "text": "... (the same as a text)"}]
        return value
    if isinstance(value, list):
        return [shortened(part) for part in value]
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:24]}... ({len(value)} characters)"
    return value


def pretty(content: bytes) -> str:
    """Write JSON by lines, with what fits into one in one."""
    text = json.dumps(shortened(json.loads(content)), indent=1, ensure_ascii=False)
    flat = re.compile(r"([\[{])\n\s+([^\[\]{}]*?)\n\s+([\]}])")
    return flat.sub(lambda m: m[1] + re.sub(r"\n\s+", " ", m[2]) + m[3] if len(m[0]) < 200 else m[0], text)


async def talk(url: str) -> str:
    """Have a session, and return what went over the wire."""
    lines: list[str] = []

    async def sent(request: httpx2.Request) -> None:
        lines.append(f"> {request.method} {request.url.path}\n{pretty(await request.aread())}\n")

    async def received(response: httpx2.Response) -> None:
        content = await response.aread()
        lines.append(f"< {response.status_code}\n{pretty(content)}\n" if content else f"< {response.status_code}\n")

    coffee, taxis = (base64.b64encode((EXAMPLES / name).read_bytes()).decode() for name in ("coffee.jpg", "taxis.jpg"))
    hooks = {"request": [sent], "response": [received]}
    async with (
        httpx2.AsyncClient(event_hooks=hooks, timeout=60) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode="legacy") as client,
    ):
        await client.list_tools()
        await client.call_tool("analyze", {"image": taxis, "groups": ["objects"], "top_k": 2})
        await client.call_tool("classify", {"image": coffee, "labels": ["cup of coffee", "teapot"]})
        await client.call_tool("search", {"images": [coffee, taxis, "coffee.jpg"], "query": "taxis"})
        await client.call_tool("analyze", {"image": "https://example.org/taxis.jpg"})
    return "\n".join(lines)


def main() -> None:
    """Write the session into the page."""
    with served() as url:
        for _ in range(2):  # the first embeds the labels
            session = asyncio.run(talk(url))
    text = f"<!-- session -->\n```text\n{session}```\n<!-- end -->"
    PAGE.write_text(SESSION.sub(lambda _: text, PAGE.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
