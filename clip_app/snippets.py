"""The code that the API view prints: it runs as copied, on a picture that this server has.

Gradio's own does not run: its Python and JavaScript hand the server an address, which it does not
fetch, and its shell code leaves the file out and reads the event's id in a shell that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["EXAMPLE", "code_snippets", "example_file"]

EXAMPLE = "coffee.jpg"
UPLOADED = {"_type": "gradio.FileData"}


def example_file(root: str = "") -> dict[str, Any]:
    """The example picture, as Gradio describes files; with the address of the server, where to get it."""
    where = {"path": f"{root}/examples/{EXAMPLE}", "url": f"{root}/examples/{EXAMPLE}"} if root else {"path": EXAMPLE}
    return {**where, "orig_name": EXAMPLE, "meta": UPLOADED}


def code_snippets(root: str, name: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Code that calls the endpoint of this name on the server at ``root``, by the tabs of Gradio's view."""
    return {
        "python": _python(root, name, values),
        "javascript": _javascript(root, name, values),
        "bash": _bash(root, name, values),
        "cli": _cli(root, name, values),
    }


def _is_file(value: Any) -> bool:
    return isinstance(value, dict) and value.get("meta") == UPLOADED


def _is_files(value: Any) -> bool:
    return isinstance(value, list) and any(map(_is_file, value))


def _has_file(values: Mapping[str, Any]) -> bool:
    return any(_is_file(value) or _is_files(value) for value in values.values())


def _as_file(value: Any, code: str) -> str:
    """The code that hands a file over, in a list where one belongs; empty where no file does."""
    return code if _is_file(value) else f"[{code}]" if _is_files(value) else ""


def _with_file(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The values as JSON, the file at this path."""
    file = {"path": path, "meta": UPLOADED}
    return {key: file if _is_file(v) else [file] if _is_files(v) else v for key, v in values.items()}


def _fetch(root: str) -> str:
    return f"curl -sSfO {root}/examples/{EXAMPLE}\n"


def _python(root: str, name: str, values: Mapping[str, Any]) -> str:
    def literal(value: Any) -> str:
        if file := _as_file(value, "handle_file(picture)"):
            return file
        return json.dumps(value, ensure_ascii=False) if isinstance(value, (str, list)) else repr(value)

    given = [f"{key}={literal(value)}" for key, value in values.items()]
    arguments = "".join(f"    {argument},\n" for argument in (*given, f'api_name="/{name}"'))
    call = f'client = Client("{root}")\nresult = client.predict(\n{arguments})\nprint(result)\n'
    if not _has_file(values):
        return f"from gradio_client import Client\n\n{call}"
    return (
        "from urllib.request import urlretrieve\n\nfrom gradio_client import Client, handle_file\n\n"
        f'picture = "{EXAMPLE}"  # or a file of yours, without the next line\n'
        f'urlretrieve("{root}/examples/{EXAMPLE}", picture)\n\n{call}'
    )


def _javascript(root: str, name: str, values: Mapping[str, Any]) -> str:
    def literal(value: Any) -> str:
        return _as_file(value, "await picture.blob()") or json.dumps(value, ensure_ascii=False)

    arguments = "".join(f"  {key}: {literal(value)},\n" for key, value in values.items())
    given = f", {{\n{arguments}}}" if arguments else ""
    fetched = f'const picture = await fetch("{root}/examples/{EXAMPLE}");\n' if _has_file(values) else ""
    return (
        'import { Client } from "@gradio/client";\n\n'
        f'{fetched}const client = await Client.connect("{root}");\n'
        f'const result = await client.predict("/{name}"{given});\n'
        "console.log(result.data[0]);\n"
    )


def _bash(root: str, name: str, values: Mapping[str, Any]) -> str:
    api = f"{root}/gradio_api"
    # Out of the quotes for the path, and back into them.
    body = _quoted(_with_file(values, "$FILE")).replace("$FILE", "'\"$FILE\"'")
    upload = f"FILE=$(curl -sSf -F files=@{EXAMPLE} {api}/upload | tr -d '[]\"')\n"
    return (
        f"{_fetch(root) + upload if _has_file(values) else ''}"
        f"EVENT=$(curl -sSf -H 'Content-Type: application/json' {api}/call/v2/{name} \\\n"
        f"  -d {body} | cut -d '\"' -f 4)\n"
        f"curl -sSfN {api}/call/{name}/$EVENT\n"
    )


def _cli(root: str, name: str, values: Mapping[str, Any]) -> str:
    fetch = _fetch(root) if _has_file(values) else ""
    return f"{fetch}{{command}} predict {root} /{name} {_quoted(_with_file(values, EXAMPLE))}\n"


def _quoted(values: Mapping[str, Any]) -> str:
    text = json.dumps(values, ensure_ascii=False).replace("'", "'\\''")
    return f"'{text}'"
