"""``clip-app analyze``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from clip_app.analyzer import Analyzer
from clip_app.cli.flags import errors, with_options, with_settings
from clip_app.cli.inputs import STANDARD_INPUT, Input, find_inputs, listed_paths, read_labels_file
from clip_app.cli.opened import tell_bundled
from clip_app.cli.writers import WRITERS, OutputFormat, Writer, opened_output, shown
from clip_app.endpoints import CLI
from clip_app.errors import SOME_FAILED, BadOption, ClipAppError
from clip_app.labels import LabelGroup, request_group, with_examples
from clip_app.loading import Loader
from clip_app.log import configure_logging
from clip_app.observation import Observation
from clip_app.options import Options
from clip_app.results import AnalysisResult
from clip_app.settings import Settings

__all__ = ["analyze"]

EXAMPLES = "examples"  # the group of --examples


@with_settings
@with_options
def analyze(
    settings: Settings,
    asked: dict[str, Any],
    paths: Annotated[
        list[str] | None, typer.Argument(help="Pictures, folders, or - for standard input.", metavar="PATH")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Folders within folders too.")] = False,
    files_from: Annotated[
        str | None, typer.Option(help="A list of more paths, one a line; - reads it from standard input.")
    ] = None,
    null: Annotated[bool, typer.Option("--null", help="The list is that of find -print0.")] = False,
    labels_file: Annotated[Path | None, typer.Option(help="A file of labels, one a line; # begins a comment.")] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="Labels by example: a folder of pictures for each.", exists=True, file_okay=False),
    ] = None,
    format: Annotated[OutputFormat, typer.Option(help="How to write the results.")] = OutputFormat.table,
    output: Annotated[Path | None, typer.Option(help="A file for the results, instead of standard output.")] = None,
) -> None:
    """Say what is in pictures. A bad file is reported and the rest go on.

    Example: clip-app analyze photos -r --labels "cat, dog" --format csv
    """
    configure_logging(settings, "critical")  # what matters to one call is printed, not logged
    options = _options(asked, labels_file)
    by_example = with_examples(None, examples, root=examples, name=EXAMPLES) if examples else None
    if by_example is not None:
        options = options.model_copy(update={"groups": (*(options.groups or ()), EXAMPLES)})
    inputs = list(find_inputs(_paths(paths or [], files_from, null), recursive=recursive))
    loader = _load(settings, options, inputs, by_example)
    analyzer = Analyzer(loader, settings, decoders=1)
    with opened_output(output) as out:
        answers = _analyze_all(analyzer, inputs, options, settings.max_upload_bytes)
        failed = _write_all(WRITERS[format](out), answers)
    loader.close()
    if failed:
        raise typer.Exit(SOME_FAILED)


def _write_all(writer: Writer, answers: Iterable[tuple[Input, AnalysisResult | ClipAppError]]) -> int:
    """Write every answer, tell of those that are none, and return how many they are."""
    failed = 0
    try:
        for given, answer in answers:
            if isinstance(answer, ClipAppError):
                failed += 1
                errors.print(f"{shown(given.name)}: {answer.message}", style="red", markup=False)
            writer.write(given.name, answer)
    finally:  # a list that is broken off is a list
        writer.close()
    return failed


def _paths(paths: list[str], files_from: str | None, null: bool) -> list[str]:
    if null and files_from is None:
        raise BadOption("--null says how the list of --files-from is written. Add --files-from.")
    if files_from == STANDARD_INPUT and STANDARD_INPUT in paths:
        raise BadOption("Standard input is either a picture or the list of --files-from.")
    found = paths if files_from is None else paths + listed_paths(files_from, null=null)
    if not found:
        raise BadOption("There is nothing to analyse. Name pictures or folders, or a list of them with --files-from.")
    return found


def _options(asked: dict[str, Any], labels_file: Path | None) -> Options:
    options = Options.of(**asked)
    if labels_file is not None:
        options = options.model_copy(update={"labels": (options.labels or ()) + read_labels_file(labels_file)})
    if options.labels is not None:
        request_group(options.labels, options.template)  # before a model is loaded for nothing
    return options


def _load(settings: Settings, options: Options, inputs: list[Input], by_example: LabelGroup | None) -> Loader:
    loader = Loader(settings, preload=())
    if by_example is not None:
        loader.groups[EXAMPLES] = by_example
    if all(one.problem for one in inputs):  # nothing is fetched for an empty folder
        return loader
    with errors.status("Loading the model ...") if errors.is_terminal else nullcontext():
        loader.run()
    serving = loader.serving()
    options.resolve(serving.groups, serving.default_groups)
    tell_bundled(loader)
    return loader


def _analyze_all(
    analyzer: Analyzer, inputs: list[Input], options: Options, most: int
) -> Iterator[tuple[Input, AnalysisResult | ClipAppError]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    several = errors.is_terminal and len(inputs) > 1
    with Progress(*columns, console=errors, transient=True, disable=not several) as progress:
        for given in progress.track(inputs, description="Analysing"):
            try:
                with Observation(CLI) as observation:
                    result = analyzer.analyze(given.read(most), options, observation)
                yield given, result
            except ClipAppError as error:  # the rest go on, whatever happens to one
                yield given, error
