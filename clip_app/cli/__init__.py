"""``clip-app``: a module a command, imported when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from clip_app import __version__

__all__ = ["app", "main"]

COLLECTION = ("index", "search", "duplicates", "label")
COMMANDS = ("serve", "analyze", "evaluate", "prefetch", "doctor", "models", *COLLECTION)


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

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take flags without a command for those of serve, and so does a shell that completes them."""
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        completing = ctx.resilient_parsing
        if (args and args[0].startswith("-") and args[0].partition("=")[0] not in own) or not (args or completing):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Offer the commands, and as flags those of serve, too."""
        found = super().shell_complete(ctx, incomplete)
        if not incomplete.startswith("-"):
            return found
        serve = self.get_command(ctx, "serve")
        offered = {item.value for item in found}
        return found + [item for item in serve.shell_complete(ctx, incomplete) if item.value not in offered]


app = typer.Typer(
    name="clip-app",
    cls=LazyCommands,
    no_args_is_help=False,
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
    app(prog_name="clip-app")  # also as python -m clip_app: shells complete the program of that name
