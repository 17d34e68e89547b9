"""Getting a model ready: in the background, with progress, and with a fallback."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from clip_app.engines.conversion import Converted, variant_of
from clip_app.errors import CheckpointError, NotReady
from clip_app.labels import DEFAULT_NEUTRAL, LabelGroup, load_groups, preset_folder
from clip_app.machine import available_cpus
from clip_app.settings import Settings
from clip_app.source import Source, bundled_source, find_source
from clip_app.telemetry import MODEL_LOAD_SECONDS, MODEL_READY, set_model_info

if TYPE_CHECKING:  # loading imports these in its own time, in the background
    from clip_app.bank import LabelBank, LabelStore
    from clip_app.batching import MicroBatcher
    from clip_app.engines import Choice
    from clip_app.model import Model

__all__ = ["LoadStatus", "Loader", "Serving"]

logger = logging.getLogger("clip_app")

Phase = Literal["starting", "fetching", "converting", "loading", "labels", "warming up", "ready", "failed"]


@dataclass(frozen=True)
class LoadStatus:
    """How far loading is.

    ``reason`` says why it failed, or why the bundled model serves; ``verified`` is False
    where the model came over a connection whose certificate was not verified.
    """

    phase: Phase = "starting"
    progress: float = 0.0
    reason: str | None = None
    verified: bool = True

    @property
    def ready(self) -> bool:
        """True once a real inference was answered."""
        return self.phase == "ready"


@dataclass(frozen=True, kw_only=True)
class Serving:
    """A model that has answered, and what goes with it."""

    model: Model
    bank: LabelBank
    batcher: MicroBatcher
    groups: dict[str, LabelGroup]
    default_groups: tuple[str, ...]


class Loader:
    """Loads the model that the settings name, once."""

    def __init__(self, settings: Settings, *, preload: Sequence[str] | None = None) -> None:
        """Prepare to load; ``preload`` names the groups to embed first, by default the default groups."""
        self.status = LoadStatus()
        self._settings = settings
        self._preload = preload
        self._serving: Serving | None = None
        self._thread = threading.Thread(target=self.run, name="model-loader", daemon=True)
        # Read now, so that a bad label file stops the start.
        self.groups = load_groups(preset_folder(), *([settings.labels_dir] if settings.labels_dir else []))

    def start(self) -> None:
        """Load in the background."""
        self._thread.start()

    def serving(self) -> Serving:
        """Return what serves.

        Raises:
            NotReady: with how far loading is, or why it failed.
        """
        if self._serving is None:
            raise NotReady(describe(self.status))
        return self._serving

    def close(self) -> None:
        """Stop encoding, once what waits is answered."""
        if self._serving is not None:
            self._serving.batcher.close()

    def run(self) -> None:
        """Load now; the status says how it ended."""
        started = time.monotonic()
        MODEL_READY.set(0)
        try:
            source, serving = self._load()
        except Exception as error:  # the loading thread's last line of defence: say it, stay alive
            self.status = LoadStatus("failed", 0.0, _safe_reason(error))
            logger.error("no model: %s", self.status.reason, exc_info=error)
            return
        self._serving = serving
        model = serving.model
        set_model_info(model.info, model.device)
        MODEL_LOAD_SECONDS.set(time.monotonic() - started)
        MODEL_READY.set(1)
        self.status = LoadStatus("ready", 1.0, source.reason, verified=source.verified)
        logger.info(
            "ready: %s at %s, %s %s, after %.1f s",
            *(model.info.id, model.info.revision, model.info.engine, model.info.precision),
            time.monotonic() - started,
        )
        model.encode_texts(DEFAULT_NEUTRAL)  # so that the first labels of somebody's own need not wait for it

    def _load(self) -> tuple[Source, Serving]:
        from clip_app.hub import HubError

        try:
            if self._settings.model != "bundled":
                self.status = LoadStatus("fetching")
            return self._serve(find_source(self._settings, self._report("fetching")))
        except (HubError, CheckpointError) as error:
            if self._settings.fallback == "none" or self._settings.model == "bundled":
                raise
            logger.warning("the bundled demonstration model serves instead of %s: %s", self._settings.model, error)
            return self._serve(bundled_source(reason=str(error)))

    def _serve(self, source: Source) -> tuple[Source, Serving]:
        from clip_app.bank import LabelStore
        from clip_app.engines import choose_engine
        from clip_app.model import load_model

        settings = self._settings
        choice = choose_engine(settings)
        converted = self._converted(source, choice) if choice.engine == "openvino" else None
        self.status = LoadStatus("loading")
        model = load_model(
            source.folder,
            name=source.name,
            revision=source.revision,
            bundled=source.bundled,
            device=choice.device,
            precision=choice.precision,
            threads=available_cpus() if settings.threads == "auto" else settings.threads,
            converted=converted,
        )
        store = LabelStore(source.artifacts / f"labels-{source.revision}-{model.info.precision}.safetensors")
        return source, self._prepare(model, store)

    def _converted(self, source: Source, choice: Choice) -> Converted | None:
        """Find the conversion or make it; None where it cannot be had and torch may serve instead."""
        from clip_app.hub import HubError

        variant = variant_of(choice.precision)
        if (found := source.conversions.find(variant)) is not None:
            return found
        self.status = LoadStatus("converting")
        try:
            return source.convert(variant)
        except (HubError, CheckpointError) as error:
            if self._settings.engine == "openvino" or variant == "int8":
                raise
            logger.warning("torch serves, several times slower: the model could not be converted. %s", error)
            return None

    def _prepare(self, model: Model, store: LabelStore) -> Serving:
        from clip_app.bank import LabelBank
        from clip_app.batching import MicroBatcher

        groups, defaults = self._groups_of(model)
        bank = LabelBank(model, store=store)
        wanted = defaults if self._preload is None else [name for name in self._preload if name in groups]
        for i, name in enumerate(wanted):
            report = self._report("labels", start=i / len(wanted), share=1 / len(wanted))
            bank.keep(groups[name], report)
        self.status = LoadStatus("warming up")
        batcher = MicroBatcher(model.encode_images, max_batch_size=self._settings.max_batch_size)
        _answer_once(model, batcher)
        return Serving(model=model, bank=bank, batcher=batcher, groups=groups, default_groups=tuple(defaults))

    def _groups_of(self, model: Model) -> tuple[dict[str, LabelGroup], list[str]]:
        """A checkpoint that brings groups of its own is asked for those first."""
        brought = load_groups(model.label_folder) if model.label_folder else {}
        groups = brought | self.groups
        if not brought:
            return groups, list(groups)
        own = set(load_groups(self._settings.labels_dir)) if self._settings.labels_dir else set()
        return groups, [name for name in groups if name in brought or name in own]

    def _report(self, phase: Phase, start: float = 0.0, share: float = 1.0) -> Callable[[float], None]:
        def report(done: float) -> None:
            self.status = LoadStatus(phase, min(1.0, start + share * done))

        return report


def _safe_reason(error: Exception) -> str:
    """The message of an error that was written to be shown; of others the kind, they may hold paths."""
    from clip_app.hub import HubError

    if isinstance(error, (HubError, CheckpointError)):
        return str(error)
    return f"{type(error).__name__}. The server's log says more."


def describe(status: LoadStatus) -> str:
    """Say in a sentence how far loading is."""
    if status.phase == "failed":
        return f"No model could be loaded: {status.reason}"
    names = {
        "starting": "The model is about to load.",
        "fetching": "The model is being fetched from the Hub.",
        "converting": "The model is being converted for this machine, once.",
        "loading": "The model is being loaded.",
        "labels": "The labels are being embedded.",
        "warming up": "The model is warming up.",
        "ready": "The model is ready.",
    }
    share = f" {status.progress:.0%} done." if status.phase in ("fetching", "labels") else ""
    return names[status.phase] + share


def _answer_once(model: Model, batcher: MicroBatcher) -> None:
    """Readiness means one real inference: a grey picture, all the way."""
    from PIL import Image

    embedding = batcher.encode(model.preprocessing(Image.new("RGB", (320, 240), "grey"))).embedding
    if not abs(float(embedding @ embedding) - 1) < 1e-2:
        raise RuntimeError("the model's first answer is no unit embedding; fetch the checkpoint again")
