"""Flags made of models: every setting, and every option of an analysis."""

from __future__ import annotations

import functools
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, NoReturn

import typer
from pydantic.fields import FieldInfo
from rich.console import Console

from clip_app.endpoints import CLI
from clip_app.errors import SOME_FAILED, USAGE, BadOption, ClipAppError
from clip_app.options import Options
from clip_app.settings import PREFIX, Settings, load_settings, unknown_variables
from clip_app.signatures import keyword_parameters, with_signature

__all__ = ["USAGE", "errors", "fail", "with_options", "with_settings"]

errors = Console(stderr=True, highlight=False, soft_wrap=True)

# The settings that a command obeys. One that is not here, such as serve or doctor, takes every one; and of a
# setting that is new the commands here have no flag until it is added.
MODEL = (
    "model",
    "revision",
    "device",
    "engine",
    "precision",
    "threads",
    "ca_bundle",
    "tls_roots",
    "tls_verify",
    "pins",
)
SETTINGS_OF = {
    "analyze": (*MODEL, "fallback", "max_upload_mb", "max_pixels", "decode", "labels_dir"),
    "evaluate": (*MODEL, "max_upload_mb", "max_pixels", "decode", "max_batch_size"),
    "prefetch": (*MODEL, "labels_dir", "log_format"),
    "index": (*MODEL, "fallback", "max_upload_mb", "max_pixels", "decode", "max_batch_size"),
    "search": (*MODEL, "fallback", "max_upload_mb", "max_pixels", "decode"),
    "duplicates": (),
    "label": (*MODEL, "fallback", "labels_dir"),
    "models": (),
}


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every setting it obeys, hand it the Settings they make, and answer its errors.

    This is the command line's one handler: an error of the tree is one line and its exit code, and who
    is interrupted, or whose reader has gone, ends without a word, as a shell expects it.
    """
    obeyed = SETTINGS_OF.get(command.__name__, tuple(Settings.model_fields))
    own = _parameters(command, "settings")
    # A command that takes several values of a setting has a parameter of that name.
    fields = [name for name in Settings.model_fields if name not in {parameter.name for parameter in own}]

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        given = {name: arguments.pop(name, None) for name in fields}
        try:
            _refuse_others(given, obeyed, command.__name__)
            settings = load_settings(**given)
            for name, nearest in unknown_variables(os.environ).items():
                hint = f" Did you mean {nearest}?" if nearest else ""
                errors.print(f"warning: there is no setting {name}.{hint}", style="yellow", markup=False)
            command(settings=settings, **arguments)
        except ClipAppError as error:
            fail(error.message, error.exit_code)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            _leave(signal.SIGINT)
        except BrokenPipeError:
            _leave(signal.SIGPIPE)
        except Exception as error:  # one that nobody expected is said to be that, with where it came from
            traceback.print_exception(error)
            name = type(error).__name__
            fail(f"{name}, which is a fault of clip-app itself. Please report it with what is above.", SOME_FAILED)

    described = partial(_setting_flag, obeyed)
    flags = (p.replace(default=None) for p in keyword_parameters(Settings, fields, described))
    return with_signature(run, [*own, *flags])


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


def _refuse_others(given: Mapping[str, Any], obeyed: Sequence[str], command: str) -> None:
    """Refuse the setting of another command: who gives it expects something of it."""
    for name, value in given.items():
        if value is not None and name not in obeyed:
            raise BadOption(f"{_flag(name)} does nothing for {command}. It is a setting of clip-app serve.")


def _leave(number: signal.Signals) -> NoReturn:
    """End as by that signal. An orderly end would wait for a download, and fail where nobody reads."""
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(128 + number)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _setting_flag(obeyed: Sequence[str], name: str, field: FieldInfo) -> Any:
    option = typer.Option(
        _flag(name),
        hidden=name not in obeyed,
        help=field.description,
        show_default=False,
        metavar="VALUE",
        rich_help_panel=f"Settings (also {PREFIX}* variables)",
    )
    return Annotated[str | None, option]


def _option_flag(name: str, field: FieldInfo) -> Any:
    flag = _flag(name)
    if field.annotation is bool:
        return Annotated[bool, typer.Option(flag, help=field.description)]
    kind = (int | None) if "int" in str(field.annotation) else (str | None)
    return Annotated[kind, typer.Option(flag, help=field.description, show_default=False)]
