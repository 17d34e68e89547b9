"""``clip-app``: serve the app, or analyse files from a shell."""

from __future__ import annotations

import functools
import inspect
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from clip_app import __version__
from clip_app.cli.writers import WRITERS, OutputFormat
from clip_app.labels import LabelFileError, split_labels
from clip_app.loading import describe
from clip_app.log import configure_logging
from clip_app.settings import PREFIX, Settings, SettingsError, load_settings, unknown_variables
from clip_app.source import local_folder

if TYPE_CHECKING:
    from clip_app.analyzer import Analyzer, Options
    from clip_app.loading import Loader
    from clip_app.results import AnalysisResult

__all__ = ["app", "main"]

SOME_FAILED, USAGE = 1, 2

app = typer.Typer(
    name="clip-app", help="See what is in a picture with CLIP.", no_args_is_help=False, add_completion=False
)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class DoctorFormat(str, Enum):
    """How findings are written."""

    text = "text"
    json = "json"


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every setting, and hand it the Settings they make."""

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        given = {name: arguments.pop(name, None) for name in Settings.model_fields}
        try:
            settings = load_settings(**given)
        except SettingsError as error:
            fail(str(error), USAGE)
        for name, nearest in unknown_variables(os.environ).items():
            hint = f" Did you mean {nearest}?" if nearest else ""
            errors.print(f"warning: there is no setting {name}.{hint}", style="yellow", markup=False)
        command(settings=settings, **arguments)

    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.name != "settings"]
    run.__signature__ = inspect.Signature(own + list(_setting_flags()))  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in run.__signature__.parameters.values()}  # type: ignore[attr-defined]
    return run


def _setting_flags() -> Iterator[inspect.Parameter]:
    for name, field in Settings.model_fields.items():
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            help=field.description,
            show_default=False,
            metavar="VALUE",
            rich_help_panel=f"Settings (also {PREFIX}* variables)",
        )
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
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
    if context.invoked_subcommand is None:
        with_settings(_serve)()


@app.command()
@with_settings
def serve(settings: Settings) -> None:
    """Serve the web page, the API and the metrics."""
    _serve(settings)


def _serve(settings: Settings) -> None:
    from clip_app import server

    configure_logging(settings, settings.log_level)
    try:
        server.serve(settings)
    except LabelFileError as error:
        fail(str(error), USAGE)


@app.command()
@with_settings
def analyze(
    settings: Settings,
    paths: Annotated[list[str], typer.Argument(help="Pictures, folders, or - for standard input.", metavar="PATH")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders within folders too.")] = False,
    labels: Annotated[str | None, typer.Option(help="Your own labels, comma separated.")] = None,
    labels_file: Annotated[Path | None, typer.Option(help="A file of labels, one a line.")] = None,
    groups: Annotated[str | None, typer.Option(help="Label groups, such as objects,scenes,content.")] = None,
    template: Annotated[str | None, typer.Option(help="Prompt for your labels, with {} for the label.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Labels per group; 5, or all of yours.")] = None,
    independent: Annotated[bool, typer.Option("--independent", help="Score each label alone.")] = False,
    format: Annotated[OutputFormat, typer.Option(help="How to write the results.")] = OutputFormat.table,
    output: Annotated[Path | None, typer.Option(help="A file for the results, instead of standard output.")] = None,
) -> None:
    """Say what is in pictures. A bad file is reported and the rest go on."""
    from clip_app.errors import BadOption

    configure_logging(settings, "critical")  # what matters to one call is printed, not logged
    try:
        options = _options(labels, labels_file, groups, template, top_k, independent)
    except BadOption as error:
        fail(error.message, USAGE)
    files = list(find_pictures(paths, recursive))
    loader, analyzer = _load(settings, options)
    failed = 0
    with _opened(output) as out:
        writer = WRITERS[format](out)
        for path, answer in _analyze_all(analyzer, files, options, settings.max_upload_bytes):
            if isinstance(answer, str):
                failed += 1
                errors.print(f"{path}: {answer}", style="red", markup=False)
            else:
                writer.write(answer)
        writer.close()
    loader.close()
    if failed:
        raise typer.Exit(SOME_FAILED)


@app.command()
@with_settings
def prefetch(
    settings: Settings,
    write_pins: Annotated[
        Path | None, typer.Option(help="Write the hashes of the files to this file, for CLIP_APP_PINS.")
    ] = None,
    deadline: Annotated[float, typer.Option(help="Give up after so many seconds.", min=1)] = 900,
    labels: Annotated[bool, typer.Option("--labels/--no-labels", help="Embed the labels too.")] = True,
    convert: Annotated[
        bool, typer.Option("--convert/--no-convert", help="Convert for OpenVINO, where it serves.")
    ] = True,
    photographs: Annotated[
        Path | None,
        typer.Option(help="A folder of photographs to calibrate int8 on.", exists=True, file_okay=False),
    ] = None,
) -> None:
    """Put the model, converted, and its label embeddings into the cache, verified, and exit."""
    from clip_app.errors import CheckpointError
    from clip_app.hub import HubError

    configure_logging(settings, "warning")
    try:
        if settings.model == "bundled" or local_folder(settings.model) is not None:
            errors.print("nothing to fetch: CLIP_APP_MODEL is not a model of the Hub")
        else:
            _prefetch(settings, write_pins, deadline)
        if convert:
            _convert(settings, photographs)
        if labels:
            _embed_labels(settings)
    except HubError as error:
        fail(str(error), error.exit_code)
    except CheckpointError as error:
        fail(str(error), SOME_FAILED)
    except LabelFileError as error:
        fail(str(error), USAGE)


def _prefetch(settings: Settings, write_pins: Path | None, deadline: float) -> None:
    from clip_app import pins
    from clip_app.hub import Hub

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        task = progress.add_task(f"Fetching {settings.model}", total=1.0)
        hub = Hub(settings, deadline_seconds=deadline)
        snapshot = hub.fetch(settings.model, settings.revision, lambda share: progress.update(task, completed=share))
        progress.update(task, completed=1.0)
    how = "verified" if hub.verified else "match their pins; the connection was NOT verified"
    size = sum(pin.size for pin in snapshot.files.values())
    typer.echo(f"{settings.model} at {snapshot.revision}: {len(snapshot.files)} files, {size / 1e6:.1f} MB, {how}")
    if write_pins is not None:
        pins.write_pins(write_pins, settings.model, snapshot.revision, snapshot.files)
        typer.echo(f"pins written to {write_pins}")


def _convert(settings: Settings, photographs: Path | None) -> None:
    from clip_app.engines import choose_engine
    from clip_app.engines.conversion import describe_conversion, variant_of
    from clip_app.errors import CheckpointError
    from clip_app.source import find_source

    choice = choose_engine(settings)
    if choice.engine != "openvino":
        return
    source, variant = find_source(settings), variant_of(choice.precision)
    with errors.status("Converting the model ...") if errors.is_terminal else nullcontext():
        try:
            converted = source.conversions.find(variant) or source.convert(variant, photographs)
        except CheckpointError as error:
            if settings.engine == "openvino" or variant == "int8":
                raise
            errors.print(f"warning: torch will serve. {error}", style="yellow", markup=False)
            return
    typer.echo(f"converted for OpenVINO: {describe_conversion(converted)}")


def _embed_labels(settings: Settings) -> None:
    from clip_app.loading import Loader

    with errors.status("Embedding the labels ...") if errors.is_terminal else nullcontext():
        loader = Loader(settings.model_copy(update={"fallback": "none"}))
        loader.run()
    if not loader.status.ready:
        fail(describe(loader.status), SOME_FAILED)
    typer.echo(f"label groups: {', '.join(loader.serving().default_groups)}")
    loader.close()


@app.command()
@with_settings
def doctor(
    settings: Settings,
    format: Annotated[DoctorFormat, typer.Option(help="How to write the findings.")] = DoctorFormat.text,
) -> None:
    """Say what would be used, and what is wrong with it and how to fix it."""
    from clip_app.doctor import examine, exit_code

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


def _options(
    labels: str | None,
    labels_file: Path | None,
    groups: str | None,
    template: str | None,
    top_k: int | None,
    independent: bool,
) -> Options:
    from clip_app.analyzer import Options
    from clip_app.errors import BadOption
    from clip_app.labels import request_group

    own = None if labels is None else split_labels(labels)
    if labels_file is not None:
        try:
            lines = labels_file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadOption(f"--labels-file cannot be read: {error}") from None
        own = (own or ()) + tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if own is not None:
        request_group(own, template)
    chosen = None if groups is None else split_labels(groups)
    return Options(groups=chosen, labels=own, template=template, independent=independent, top_k=top_k)


def find_pictures(paths: Iterable[str], recursive: bool) -> Iterator[str]:
    """Yield the files named, and of folders those whose name ends like a picture's."""
    from clip_app.images import ACCEPTED_SUFFIXES

    for name in paths:
        path = Path(name)
        if name == "-" or not path.is_dir():
            yield name
            continue
        found = path.rglob("*") if recursive else path.glob("*")
        yield from (str(p) for p in sorted(found) if p.suffix.lower() in ACCEPTED_SUFFIXES and p.is_file())


def _load(settings: Settings, options: Options) -> tuple[Loader, Analyzer]:
    from clip_app.analyzer import Analyzer
    from clip_app.errors import ClipAppError
    from clip_app.loading import Loader

    try:
        loader = Loader(settings, preload=())
    except LabelFileError as error:
        fail(str(error), USAGE)
    with errors.status("Loading the model ...") if errors.is_terminal else nullcontext():
        loader.run()
    try:
        options.resolve(loader.serving())
    except ClipAppError as error:
        fail(error.message, USAGE if error.status == 422 else SOME_FAILED)
    if loader.serving().model.info.bundled:
        why = f" ({loader.status.reason})" if loader.status.reason else ""
        errors.print(f"note: the small demonstration model answers{why}", style="yellow", markup=False)
    return loader, Analyzer(loader, settings, decoders=1)


def _analyze_all(
    analyzer: Analyzer, files: list[str], options: Options, most: int
) -> Iterator[tuple[str, AnalysisResult | str]]:
    from clip_app.errors import ClipAppError
    from clip_app.observation import CLI, Observation

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = errors.is_terminal and len(files) > 1
    with Progress(*columns, console=errors, transient=True, disable=not shown) as progress:
        for path in progress.track(files, description="Analysing"):
            try:
                with Observation(CLI) as observation:
                    data = _read(path, most)
                    name = "standard input" if path == "-" else path
                    result = analyzer.analyze(data, options, observation, name=name)
                yield path, result
            except ClipAppError as error:  # the rest go on, whatever happens to one
                yield path, error.message


def _read(path: str, most: int) -> bytes:
    """Read a file, or standard input, and no more of it than decides that it is too large."""
    from clip_app.errors import UndecodableImage

    if path == "-":
        return sys.stdin.buffer.read(most + 1)
    if not Path(path).is_file() and Path(path).exists():
        raise UndecodableImage("It is not a file.")
    try:
        with Path(path).open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise UndecodableImage(error.strerror or "The file cannot be read.") from None


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
        return
    try:
        file = output.open("w", encoding="utf-8", newline="")
    except OSError as error:
        fail(f"--output {output}: {error.strerror}", USAGE)
    with file:
        yield file


def fail(message: str, code: int) -> NoReturn:
    """Print one line and exit."""
    errors.print(f"clip-app: {message}", style="red", markup=False)
    raise typer.Exit(code)


def main() -> None:
    """Run the command line; flags without a command are those of serve."""
    arguments = sys.argv[1:]
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("--help", "--version"):
        arguments = ["serve", *arguments]
    app(arguments)
