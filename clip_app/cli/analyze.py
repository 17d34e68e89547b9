"""``clip-app analyze``."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clip_app.analyzer import Analyzer
from clip_app.cli.flags import USAGE, errors, fail, with_options, with_settings
from clip_app.cli.writers import WRITERS, OutputFormat
from clip_app.endpoints import CLI
from clip_app.errors import SOME_FAILED, BadOption, ClipAppError, UndecodableImage
from clip_app.images import ACCEPTED_SUFFIXES
from clip_app.labels import read_labels, request_group
from clip_app.loading import Loader
from clip_app.log import configure_logging
from clip_app.observation import Observation
from clip_app.options import Options
from clip_app.results import AnalysisResult
from clip_app.settings import Settings

__all__ = ["analyze", "find_pictures"]


@with_settings
@with_options
def analyze(
    settings: Settings,
    asked: dict[str, Any],
    paths: Annotated[list[str], typer.Argument(help="Pictures, folders, or - for standard input.", metavar="PATH")],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders within folders too.")] = False,
    labels_file: Annotated[Path | None, typer.Option(help="A file of labels, one a line; # begins a comment.")] = None,
    format: Annotated[OutputFormat, typer.Option(help="How to write the results.")] = OutputFormat.table,
    output: Annotated[Path | None, typer.Option(help="A file for the results, instead of standard output.")] = None,
) -> None:
    """Say what is in pictures. A bad file is reported and the rest go on."""
    configure_logging(settings, "critical")  # what matters to one call is printed, not logged
    options = _options(asked, labels_file)
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


def _options(asked: dict[str, Any], labels_file: Path | None) -> Options:
    options = Options.of(**asked)
    if labels_file is not None:
        try:
            read = read_labels(labels_file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise BadOption(f"--labels-file cannot be read: {error}") from None
        options = options.model_copy(update={"labels": (options.labels or ()) + read})
    if options.labels is not None:
        request_group(options.labels, options.template)  # before a model is loaded for nothing
    return options


def find_pictures(paths: Iterable[str], recursive: bool) -> Iterator[str]:
    """Yield the files named, and of folders those whose name ends like a picture's."""
    for name in paths:
        path = Path(name)
        if name == "-" or not path.is_dir():
            yield name
            continue
        found = path.rglob("*") if recursive else path.glob("*")
        yield from (str(p) for p in sorted(found) if p.suffix.lower() in ACCEPTED_SUFFIXES and p.is_file())


def _load(settings: Settings, options: Options) -> tuple[Loader, Analyzer]:
    loader = Loader(settings, preload=())
    with errors.status("Loading the model ...") if errors.is_terminal else nullcontext():
        loader.run()
    serving = loader.serving()
    options.resolve(serving.groups, serving.default_groups)
    if serving.model.info.bundled:
        why = f" ({loader.status.reason})" if loader.status.reason else ""
        errors.print(f"note: the small demonstration model answers{why}", style="yellow", markup=False)
    return loader, Analyzer(loader, settings, decoders=1)


def _analyze_all(
    analyzer: Analyzer, files: list[str], options: Options, most: int
) -> Iterator[tuple[str, AnalysisResult | str]]:
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
