"""``clip-app evaluate``."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from clip_app.bank import LabelBank
from clip_app.bulk import Seen, embed_all
from clip_app.cli.evaluated import Report, Run, as_json, tables
from clip_app.cli.flags import errors, with_settings
from clip_app.cli.inputs import read_labels_file
from clip_app.cli.truth import Labelled, find_truth
from clip_app.cli.writers import OutputConsole, json_text, shown
from clip_app.engines import Embeddings, candidates
from clip_app.errors import SOME_FAILED, BadOption, ClipAppError
from clip_app.evaluation import Answers, Flags, Indices, answer
from clip_app.labels import DEFAULT_TEMPLATE, LabelGroup, request_group, split_labels, with_examples
from clip_app.log import configure_logging
from clip_app.model import Model
from clip_app.serving import open_model
from clip_app.settings import Settings, load_settings
from clip_app.source import Source, find_source

__all__ = ["evaluate"]

# What writes a report, by the ending of the file's name: a module with ``render``, and what must be installed for it.
WRITERS = {".html": ("clip_app.cli.report_page", None), ".png": ("clip_app.cli.report_picture", "matplotlib")}


class Format(str, Enum):
    """How the figures are written."""

    table = "table"
    json = "json"


@dataclass(frozen=True)
class Embedded:
    """Pictures as one model and precision sees them: embeddings [N, D], and which are flat [N]."""

    rows: Embeddings
    flat: Flags


@with_settings
def evaluate(
    settings: Settings,
    folder: Annotated[
        Path,
        typer.Argument(
            help="A folder with a sub-folder for each label, or a CSV file of path,label (paths relative to the file). "
            "In the name of a folder _ stands for a space.",
            metavar="FOLDER",
        ),
    ],
    template: Annotated[
        list[str] | None,
        typer.Option(help=f"A prompt with {{}} for the label; again for more to compare. Default: {DEFAULT_TEMPLATE}"),
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model, as in settings; again for more.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="A precision, as in settings; again for more.")] = None,
    labels: Annotated[str | None, typer.Option(help="Further labels, which none of the pictures shows.")] = None,
    labels_file: Annotated[Path | None, typer.Option(help="A file of such labels, one a line.")] = None,
    examples: Annotated[
        list[Path] | None,
        typer.Option(
            help="Ask once more with labels by example: a folder of pictures for each, none of FOLDER; again for more.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a report to this file: .html, or .png with the extra 'evaluate'.")
    ] = None,
    format: Annotated[Format, typer.Option(help="How to write the figures.")] = Format.table,
) -> None:
    """Say how right labels, prompts, models and precisions are on your own sorted pictures.

    Every combination is a run, compared with the first on the same pictures.
    Example: clip-app evaluate sorted --template "a photo of a {}." --template "{}" --report report.html
    """
    configure_logging(settings, "critical")  # what matters to one call is printed, not logged
    write = _writer(report)
    truth = find_truth(folder)
    names = (*truth.labels, *_further(labels, labels_file, truth.labels))
    groups = [request_group(names, each) for each in dict.fromkeys(template or [DEFAULT_TEMPLATE])]
    groups += [_by_example(group, each) for each in examples or () for group in list(groups)]
    sources = _find_sources(_variants(settings, model, precision))
    for name, error in truth.problems:
        _tell(name, error)
    runs, failed = _run_all(sources, groups, truth.pictures)
    distractors = len(names) - len(truth.labels)
    found = Report(str(folder), groups[0].labels, distractors, runs, (*truth.problems, *failed))
    _print(found, format)
    if write is not None:
        write(found)
        errors.print(f"report: {shown(str(report))}", markup=False)
    if found.failed:
        raise typer.Exit(SOME_FAILED)


def _by_example(group: LabelGroup, folder: Path) -> LabelGroup:
    """The same question with pictures beside the words, under a name of its own."""
    found = with_examples(replace(group, name="evaluated"), folder, root=folder, name=str(folder))
    if more := found.labels[len(group.labels) :]:
        raise BadOption(f"--examples {folder}: {more[0]!r} is none of the labels. Rename the folder, or remove it.")
    return replace(found, title=f"{group.templates[0]} + {folder.name}")


def _print(report: Report, format: Format) -> None:
    if format is Format.json:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")
        typer.echo(json_text(as_json(report), indent=2))
        return
    console = OutputConsole(highlight=False, markup=False, emoji=False)
    for part in tables(report):
        console.print(part)


def _writer(path: Path | None) -> Callable[[Report], None] | None:
    """Look before the work begins that the report can be written, and return what writes it."""
    if path is None:
        return None
    if path.suffix.lower() not in WRITERS:
        raise BadOption(f"--report {path}: name a file that ends in .html or .png.")
    module, package = WRITERS[path.suffix.lower()]
    if package is not None and find_spec(package) is None:
        raise BadOption(
            f"--report {path}: a PNG needs {package}. pip install 'clip-app[evaluate]', or name a file that ends in "
            ".html."
        )
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadOption(f"--report {path} cannot be written.")

    def write(report: Report) -> None:
        try:
            path.write_bytes(import_module(module).render(report))
        except OSError as error:
            raise BadOption(f"--report {path}: {error.strerror}.") from None

    return write


def _further(labels: str | None, file: Path | None, known: Sequence[str]) -> list[str]:
    """The labels that no picture shows, without those that one does."""
    found = (*split_labels(labels or ""), *(read_labels_file(file) if file is not None else ()))
    shows = {label.casefold() for label in known}
    return list({label.casefold(): label for label in found if label.casefold() not in shows}.values())


def _variants(settings: Settings, models: list[str] | None, precisions: list[str] | None) -> list[Settings]:
    """The settings of each model and precision. Another model never stands in: its figures would be another's."""
    models = list(dict.fromkeys(models or [settings.model]))
    precisions = list(dict.fromkeys(precisions or [settings.precision]))
    if settings.revision is not None and len(models) > 1:
        raise BadOption("--revision is of one model. Evaluate several models at their own revisions.")
    base = settings.model_dump() | {"fallback": "none"}
    return [load_settings(**base | {"model": m, "precision": p}) for m in models for p in precisions]


def _find_sources(variants: Sequence[Settings]) -> list[tuple[Settings, Source]]:
    """Find or fetch every model before the first is asked, which may take hours."""
    with errors.status("Looking for the models ...") if errors.is_terminal else nullcontext():
        found = [(settings, find_source(settings)) for settings in variants]
        for settings, source in found:
            candidates(settings, source)
    return found


def _run_all(
    sources: Sequence[tuple[Settings, Source]], groups: Sequence[LabelGroup], pictures: Sequence[Labelled]
) -> tuple[tuple[Run, ...], list[tuple[str, ClipAppError]]]:
    """Ask every model about every picture that all could read; the others come back with the reason."""
    labels = {label.casefold(): i for i, label in enumerate(groups[0].labels)}
    truth = np.array([labels[item.label.casefold()] for item in pictures], np.intp)
    failed: dict[int, ClipAppError] = {}
    runs: list[Run] = []
    for number, (settings, source) in enumerate(sources, 1):
        with errors.status("Loading the model ...") if errors.is_terminal else nullcontext():
            model, _ = open_model(settings, source, lambda status: None)
        task = f"{number} of {len(sources)}: {settings.model}, {settings.precision}"
        seen = _embed(model, settings, pictures, task, failed)
        for group, answers in _answer(model, seen, truth, groups):
            asked = group.title if group.examples else group.templates[0]
            runs.append(Run(settings.model, settings.precision, asked, model.info, answers))
    if len(failed) == len(pictures):
        raise BadOption("None of the pictures could be read.")
    fine = np.array([i not in failed for i in range(len(pictures))])
    kept = (Run(run.model, run.precision, run.template, run.info, run.answers.only(fine)) for run in runs)
    return tuple(kept), [(pictures[i].picture.name, failed[i]) for i in sorted(failed)]


def _embed(
    model: Model,
    settings: Settings,
    pictures: Sequence[Labelled],
    description: str,
    failed: dict[int, ClipAppError],
) -> Embedded:
    """Embed every picture once; a row of one that failed is zeros, and is left out by everybody."""
    width = model.encode_texts(["a photo."]).shape[1]
    seen = Embedded(np.zeros((len(pictures), width), np.float32), np.zeros(len(pictures), bool))
    most = settings.max_upload_bytes
    reads = (partial(item.picture.read, most) for item in pictures)
    with _progress() as progress:
        found = progress.track(embed_all(model, settings, reads), total=len(pictures), description=description)
        for i, item in enumerate(found):
            if isinstance(item, Seen):
                seen.rows[i], seen.flat[i] = item.embedding, item.flat
            elif i not in failed:  # another run has told it
                failed[i] = item
                _tell(pictures[i].picture.name, item)
    return seen


def _answer(
    model: Model, seen: Embedded, truth: Indices, groups: Sequence[LabelGroup]
) -> Iterator[tuple[LabelGroup, Answers]]:
    bank = LabelBank(model)
    for group in groups:
        for warning in bank.as_read(group)[1]:
            errors.print(f"warning: {shown(warning)}", style="yellow", markup=False)
        yield group, answer(seen.rows, truth, seen.flat, *bank.group(group), model.logit_scale)


def _tell(name: str, error: ClipAppError) -> None:
    errors.print(f"{shown(name)}: {error.message}", style="red", markup=False)


class _Rate(ProgressColumn):
    """Pictures a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed else "")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, _Rate(), TimeRemainingColumn(), console=errors, disable=not errors.is_terminal)
