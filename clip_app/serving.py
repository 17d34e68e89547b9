"""What serves, made in one place: a checkpoint, the first engine that runs it, its labels and its queue.

Everything heavy is imported from here, through the one door in :mod:`clip_app.loading`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clip_app.bank import LabelBank, LabelStore
from clip_app.batching import MicroBatcher
from clip_app.checkpoint import default_groups
from clip_app.engines import ENGINES, Choice, candidates
from clip_app.errors import CheckpointError, ClipAppError, EngineUnavailable, HubError
from clip_app.labels import DEFAULT_NEUTRAL, LabelGroup, group_names, load_groups
from clip_app.machine import available_cpus
from clip_app.model import Model, load_model
from clip_app.settings import Settings
from clip_app.source import Source, bundled_source, find_source
from clip_app.status import LoadStatus, Phase
from clip_app.turns import Ledger

__all__ = ["Serving", "make_serving", "open_model"]

logger = logging.getLogger("clip_app")

Report = Callable[[LoadStatus], None]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A model that has answered, and what goes with it; ``later`` are groups to embed once it serves."""

    source: Source
    model: Model
    bank: LabelBank
    batcher: MicroBatcher
    groups: dict[str, LabelGroup]
    default_groups: tuple[str, ...]
    later: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def warm_up(self, stop: threading.Event) -> None:
        """Do what need not be done before the first answer, so that a visitor need not wait for it, until ``stop``."""
        self.model.encode_texts(DEFAULT_NEUTRAL)
        for name in self.later:
            for _ in self.bank.embedding(self.groups[name]):
                if stop.is_set():
                    return


def make_serving(
    settings: Settings,
    groups: Mapping[str, LabelGroup],
    report: Report,
    preload: Sequence[str] | None = None,
    ledger: Ledger | None = None,
) -> Serving:
    """Make what the settings ask for, or the bundled model where that cannot be had.

    ``groups`` are the preset and the operator's groups; ``preload`` names those to embed first,
    by default the default groups; ``ledger`` says who had how much of the work lately.

    Raises:
        ClipAppError: no model can be served, or none may stand in for it.
    """
    try:
        if settings.model != "bundled":
            report(LoadStatus("fetching"))
        source = find_source(settings, _fetched(report))
        return _serve(settings, source, groups, report, preload, ledger or Ledger())
    except (HubError, CheckpointError) as error:
        if settings.fallback == "none" or settings.model == "bundled":
            raise
        logger.warning("the bundled demonstration model serves instead of %s: %s", settings.model, error)
        source = bundled_source(reason=error.message)
        return _serve(_able_to_serve(source, settings), source, groups, report, preload, ledger or Ledger())


def open_model(settings: Settings, source: Source, report: Report) -> tuple[Model, tuple[str, ...]]:
    """Open a checkpoint with the first engine and precision that answer on this machine.

    Returns the model, and what was tried before it and left, each with the reason.

    Raises:
        ClipAppError: none does; the last one's reason.
    """
    threads = available_cpus() if settings.threads == "auto" else settings.threads
    left_out: list[str] = []
    failure: ClipAppError | None = None
    hopeless: set[str] = set()  # engines that cannot take the checkpoint, whatever the precision
    for choice in candidates(settings, source):
        if choice.engine in hopeless:
            continue
        try:
            if not ENGINES[choice.engine].load().is_prepared(source, choice.precision):
                report(LoadStatus("converting"))
            else:
                report(LoadStatus("loading"))
            model = load_model(source, choice, threads=threads)
            _answer_once(model, choice)
            return model, tuple(left_out)
        except ClipAppError as error:
            failure = error
            if not isinstance(error, EngineUnavailable):
                hopeless.add(choice.engine)
            left_out.append(f"{choice}: {error.message}")
            logger.warning("%s is left, and the next is tried: %s", choice, error.message)
    assert failure is not None  # noqa: S101  # there was a candidate
    raise failure


def _serve(
    settings: Settings,
    source: Source,
    groups: Mapping[str, LabelGroup],
    report: Report,
    preload: Sequence[str] | None,
    ledger: Ledger,
) -> Serving:
    model, left_out = open_model(settings, source, report)
    store = LabelStore(source.artifacts / f"labels-{source.revision}-{model.info.precision}.safetensors")
    offered, defaults = _offered(settings, source, model, groups)
    bank = LabelBank(model, store=store, ledger=ledger)
    wanted = _at_once(source, defaults) if preload is None else [name for name in preload if name in offered]
    for i, name in enumerate(wanted):
        bank.keep(offered[name], _progress(report, "labels", start=i / len(wanted), share=1 / len(wanted)))
    report(LoadStatus("warming up"))
    batcher = MicroBatcher(model.encode_images, max_batch_size=settings.max_batch_size, ledger=ledger)
    return Serving(
        source=source,
        model=model,
        bank=bank,
        batcher=batcher,
        groups=offered,
        default_groups=tuple(defaults),
        later=tuple(name for name in defaults if name not in wanted) if preload is None else (),
        left_out=left_out,
    )


def _able_to_serve(source: Source, settings: Settings) -> Settings:
    """Leave an engine, precision or device that was asked for where it cannot serve what stands in."""
    try:
        candidates(settings, source)
    except EngineUnavailable:
        return settings.model_copy(update={"engine": "auto", "precision": "auto", "device": "auto"})
    return settings


def _offered(
    settings: Settings, source: Source, model: Model, groups: Mapping[str, LabelGroup]
) -> tuple[dict[str, LabelGroup], list[str]]:
    """The groups there are, and those that are asked by default.

    A checkpoint that brings groups of its own is asked for those first, for what else its
    config names, and for the operator's.
    """
    brought = load_groups(model.label_folder) if model.label_folder else {}
    offered = brought | dict(groups)
    if not brought:
        return offered, list(offered)
    operators = group_names(settings.labels_dir) if settings.labels_dir else set()
    asked = {*brought, *default_groups(source.folder), *operators}
    return offered, [name for name in offered if name in asked]


def _at_once(source: Source, defaults: list[str]) -> list[str]:
    """The groups to embed before the first answer: where the checkpoint brings some, those come afterwards that it
    does not bring, for a model that stands in is to be there at once."""
    brought = {path.stem for path in (source.folder / "labels").glob("*.txt")}
    return [name for name in defaults if not brought or name in brought]


def _fetched(report: Report) -> Callable[[int, int], None]:
    return lambda done, total: report(
        LoadStatus("fetching", done / total if total else 0.0, done_bytes=done, total_bytes=total)
    )


def _progress(report: Report, phase: Phase, start: float = 0.0, share: float = 1.0) -> Callable[[float], None]:
    return lambda done: report(LoadStatus(phase, min(1.0, start + share * done)))


def _answer_once(model: Model, choice: Choice) -> None:
    """Readiness means real inferences: a grey picture and a text, all the way.

    Raises:
        EngineUnavailable: the engine opened the checkpoint, and cannot run it here.
    """
    try:
        pixels = model.preprocessing(Image.new("RGB", (320, 240), "grey"))
        answers = model.encode_images(pixels[None]), model.encode_texts(DEFAULT_NEUTRAL[:1])
    except Exception as error:  # whatever a processor that lacks an instruction ends in
        logger.info("%s does not answer", choice, exc_info=error)
        raise EngineUnavailable(
            f"It opens the model and fails on the first picture ({type(error).__name__}). Set CLIP_APP_PRECISION or "
            "CLIP_APP_ENGINE to auto."
        ) from error
    if not all(abs(float(np.linalg.norm(rows[0])) - 1) < 1e-2 for rows in answers):
        raise EngineUnavailable(
            "Its first answer is no unit embedding. Fetch the checkpoint again, or set CLIP_APP_ENGINE to another."
        )
