"""Flags made of models: every setting, and every option of an analysis."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer
from pydantic.fields import FieldInfo
from rich.console import Console

from clip_app.endpoints import CLI
from clip_app.errors import USAGE, ClipAppError
from clip_app.options import Options
from clip_app.settings import PREFIX, Settings, load_settings, unknown_variables
from clip_app.signatures import keyword_parameters, with_signature

__all__ = ["USAGE", "errors", "fail", "with_options", "with_settings"]

errors = Console(stderr=True, highlight=False, soft_wrap=True)


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every setting, hand it the Settings they make, and answer its errors.

    This is the command line's one handler: an error of the tree is one line and its exit code.
    """

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        given = {name: arguments.pop(name, None) for name in Settings.model_fields}
        try:
            settings = load_settings(**given)
            for name, nearest in unknown_variables(os.environ).items():
                hint = f" Did you mean {nearest}?" if nearest else ""
                errors.print(f"warning: there is no setting {name}.{hint}", style="yellow", markup=False)
            command(settings=settings, **arguments)
        except ClipAppError as error:
            fail(error.message, error.exit_code)

    flags = (p.replace(default=None) for p in keyword_parameters(Settings, Settings.model_fields, _setting_flag))
    return with_signature(run, [*_parameters(command, "settings"), *flags])


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every option of an analysis, and hand it what was given as ``asked``."""

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        asked = {name: arguments.pop(name) for name in CLI.options}
        command(asked=asked, **arguments)

    return with_signature(
        run, [*_parameters(command, "asked"), *keyword_parameters(Options, CLI.options, _option_flag)]
    )


def fail(message: str, code: int) -> NoReturn:
    """Print one line and exit."""
    errors.print(f"clip-app: {message}", style="red", markup=False)
    raise typer.Exit(code)


def _parameters(command: Callable[..., None], handed: str) -> list[inspect.Parameter]:
    found = inspect.signature(command, eval_str=True).parameters.values()
    return [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in found if parameter.name != handed]


def _setting_flag(name: str, field: FieldInfo) -> Any:
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=field.description,
        show_default=False,
        metavar="VALUE",
        rich_help_panel=f"Settings (also {PREFIX}* variables)",
    )
    return Annotated[str | None, option]


def _option_flag(name: str, field: FieldInfo) -> Any:
    flag = f"--{name.replace('_', '-')}"
    if field.annotation is bool:
        return Annotated[bool, typer.Option(flag, help=field.description)]
    kind = (int | None) if "int" in str(field.annotation) else (str | None)
    return Annotated[kind, typer.Option(flag, help=field.description, show_default=False)]
