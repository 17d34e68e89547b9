"""``clip-app``: a module a command, imported when it is called."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clip_app import __version__

__all__ = ["app", "main"]

COMMANDS = ("serve", "analyze", "prefetch", "doctor")


class LazyCommands(TyperGroup):
    """Finds a command in the module of its name: serving imports nothing of the others."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"clip_app.cli.{cmd_name}")
        single = typer.Typer(add_completion=False)
        single.command(cmd_name)(getattr(module, cmd_name))
        return typer.main.get_command(single)


app = typer.Typer(
    name="clip-app",
    cls=LazyCommands,
    help="See what is in a picture with CLIP.",
    no_args_is_help=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """See what is in a picture with CLIP. Without a command, serve."""
    if version:
        typer.echo(f"clip_app {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; flags without a command are those of serve."""
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("--help", "--version")):
        arguments = ["serve", *arguments]
    app(arguments)
