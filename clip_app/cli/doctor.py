"""``clip-app doctor``."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from clip_app.cli.flags import with_settings
from clip_app.doctor import examine, exit_code
from clip_app.log import configure_logging
from clip_app.settings import Settings

__all__ = ["doctor"]


class DoctorFormat(str, Enum):
    """How findings are written."""

    text = "text"
    json = "json"


@with_settings
def doctor(
    settings: Settings,
    format: Annotated[DoctorFormat, typer.Option(help="How to write the findings.")] = DoctorFormat.text,
) -> None:
    """Say what would be used, and what is wrong with it and how to fix it."""
    configure_logging(settings, "critical")
    findings = examine(settings)
    if format is DoctorFormat.json:
        typer.echo(json.dumps([finding.model_dump() for finding in findings], indent=2))
    else:
        marks = {"ok": "[green]ok  [/]", "warn": "[yellow]warn[/]", "bad": "[red]BAD [/]"}
        console = Console(highlight=False, soft_wrap=True)
        for finding in findings:
            advice = f" -> {finding.fix}" if finding.fix else ""
            console.print(f"{marks[finding.level]} {finding.name:10} {escape(finding.text + advice)}")
    raise typer.Exit(exit_code(findings))
