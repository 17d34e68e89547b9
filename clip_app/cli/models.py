"""``clip-app models``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from clip_app.checkpoint import Variant
from clip_app.cli.flags import with_settings
from clip_app.hub.cache import cached
from clip_app.models import MODELS, ModelRow, measured
from clip_app.settings import Settings

__all__ = ["models"]

VARIANTS: tuple[Variant, ...] = ("float", "int8")
PRECISIONS = ("float32", "bfloat16", "int8")
TRUST = {
    "every file": "a hash of every file is in the package",
    "the weights": "a hash of the weights is in the package; the rest as the Hub lists it at the commit",
    "the commit": "as the Hub lists it at a commit that is in the package",
    "first use": "as the Hub lists it at the first download",
}
FIRST_USE = "What is downloaded is written down: every later start and clip-app doctor compare with that."


class ModelsFormat(str, Enum):
    """How the models are written."""

    table = "table"
    json = "json"
    markdown = "markdown"


@with_settings
def models(
    settings: Settings,
    format: Annotated[ModelsFormat, typer.Option(help="How to write the models.")] = ModelsFormat.table,
) -> None:
    """Say which models there are by short name, what each is good for, and which are in the cache."""
    if format is ModelsFormat.json:
        typer.echo(json.dumps([_entry(row) for row in MODELS.values()], indent=2))
    elif format is ModelsFormat.markdown:
        typer.echo(_markdown())
    else:
        _print()


def _in_the_cache(row: ModelRow) -> bool:
    return any(cached(row.id, None, variant) is not None for variant in VARIANTS)


def _entry(row: ModelRow) -> Mapping[str, Any]:
    speed = measured().get(row.name)
    times = dict(speed.milliseconds) if speed else {}
    return asdict(row) | {"cached": _in_the_cache(row), "milliseconds": times}


def _print() -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head, justify in (("model", "left"), ("cached", "left"), ("MB", "right"), ("top-1", "right")):
        table.add_column(head, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("good for", ratio=1)
    for row in MODELS.values():
        cached = "[green]yes[/]" if _in_the_cache(row) else ""
        table.add_row(
            row.name, cached, f"{row.megabytes:,}", _percent(row.accuracy), _milliseconds(row.name), row.good_for
        )
    table.add_row("bundled", "[green]yes[/]", "", "", _milliseconds("bundled"), "inside the package: no download")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "\ntop-1: published zero-shot accuracy on ImageNet, in percent. ms: one picture through the image encoder, "
        "where it was measured. Any other CLIP or SigLIP checkpoint is given by its Hub id or folder.",
        style="dim",
    )


def _markdown() -> str:
    heads = ("`--model`", "repository", "commit", "good for", "MB", "top-1", "source", "licence", "trusted", "ms")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in MODELS.values():
        commit = row.revisions[0] if row.revisions[0] == "main" else f"`{row.revisions[0][:12]}`"
        lines.append(
            f"| `{row.name}` | {row.id} | {commit} | {row.good_for} | {row.megabytes:,} | {_percent(row.accuracy)} | "
            f"{row.source} | {row.licence} | {row.trust} | {_milliseconds(row.name)} |"
        )
    lines += ["", *(f"- **{name}**: {text}." for name, text in TRUST.items()), "", FIRST_USE]
    machines = {speed.machine for speed in measured().values()}
    if machines:
        lines += ["", f"Milliseconds ({' / '.join(PRECISIONS)}) on {'; '.join(sorted(machines))}."]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _milliseconds(name: str) -> str:
    speed = measured().get(name)
    if speed is None:
        return ""
    return " / ".join(f"{speed.milliseconds[p]:.0f}" if p in speed.milliseconds else "-" for p in PRECISIONS)
