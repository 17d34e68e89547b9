"""Getting a model ready: in the background, with progress, and with a fallback."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clip_app import __version__
from clip_app.errors import NotReady
from clip_app.labels import LabelGroup, load_groups, preset_folder
from clip_app.machine import available_cpus
from clip_app.settings import Settings
from clip_app.telemetry import MODEL_LOAD_SECONDS, MODEL_READY, set_model_info

if TYPE_CHECKING:  # both import torch; loading does so in its own time, in the background
    from clip_app.bank import LabelBank, LabelStore
    from clip_app.batching import MicroBatcher
    from clip_app.model import Model

__all__ = ["LoadStatus", "Loader", "Serving", "bundled_folder", "local_folder"]

logger = logging.getLogger("clip_app")

Phase = Literal["starting", "fetching", "loading", "labels", "warming up", "ready", "failed"]


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


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    model: Model = field(kw_only=False)
    reason: str | None = None
    store: LabelStore | None = None
    verified: bool = True


def local_folder(model: str) -> Path | None:
    """Return the folder that MODEL names, None where it is the id of a repository on the Hub."""
    folder = Path(model).expanduser()
    return folder if folder.is_dir() or model.startswith(("/", ".", "~")) or model.count("/") > 1 else None


def bundled_folder() -> Path:
    """The checkpoint inside the package."""
    return Path(__file__).parent / "bundled"


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
            loaded = self._load()
            serving = self._prepare(loaded)
        except Exception as error:  # the loading thread's last line of defence: say it, stay alive
            self.status = LoadStatus("failed", 0.0, _safe_reason(error))
            logger.error("no model: %s", self.status.reason, exc_info=error)
            return
        self._serving = serving
        model = serving.model
        set_model_info(model.info, model.device)
        MODEL_LOAD_SECONDS.set(time.monotonic() - started)
        MODEL_READY.set(1)
        self.status = LoadStatus("ready", 1.0, loaded.reason, verified=loaded.verified)
        logger.info("ready: %s at %s after %.1f s", model.info.id, model.info.revision, time.monotonic() - started)

    def _load(self) -> _Loaded:
        from clip_app.hub import HubError
        from clip_app.model import CheckpointError

        wanted = self._settings.model
        if wanted == "bundled":
            return _Loaded(self._load_bundled())
        try:
            return self._load_wanted(wanted)
        except (HubError, CheckpointError) as error:
            if self._settings.fallback == "none":
                raise
            logger.warning("the bundled demonstration model serves instead of %s: %s", wanted, error)
            return _Loaded(self._load_bundled(), reason=str(error))

    def _load_wanted(self, wanted: str) -> _Loaded:
        from clip_app.model import CheckpointError

        if (folder := local_folder(wanted)) is not None:
            if not folder.is_dir():
                raise CheckpointError("CLIP_APP_MODEL names a folder that does not exist.")
            return _Loaded(self._load_folder(folder, folder.resolve().name, "local", bundled=False))
        from clip_app.bank import LabelStore
        from clip_app.hub import Hub

        self.status = LoadStatus("fetching")
        hub = Hub(self._settings)
        snapshot = hub.fetch(wanted, self._settings.revision, self._report("fetching"))
        model = self._load_folder(snapshot.folder, wanted, snapshot.revision, bundled=False)
        store = LabelStore(snapshot.cache.own, prefix=f"{snapshot.revision}-{model.info.precision}")
        return _Loaded(model, store=store, verified=hub.verified)

    def _load_bundled(self) -> Model:
        return self._load_folder(bundled_folder(), "bundled", __version__, bundled=True)

    def _load_folder(self, folder: Path, name: str, revision: str, *, bundled: bool) -> Model:
        self.status = LoadStatus("loading")
        from clip_app.model import load_model

        settings = self._settings
        return load_model(
            folder,
            name=name,
            revision=revision,
            bundled=bundled,
            device=settings.device,
            precision=settings.precision,
            threads=available_cpus() if settings.threads == "auto" else settings.threads,
        )

    def _prepare(self, loaded: _Loaded) -> Serving:
        from clip_app.bank import LabelBank
        from clip_app.batching import MicroBatcher

        model = loaded.model
        groups, defaults = self._groups_of(model)
        bank = LabelBank(model, store=loaded.store)
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
    from clip_app.model import CheckpointError

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
