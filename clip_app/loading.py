"""Getting a model ready: in the background, with progress, and with a fallback."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clip_app.errors import ClipAppError, NotReady
from clip_app.labels import load_groups, preset_folder
from clip_app.settings import Settings
from clip_app.status import LoadStatus, describe
from clip_app.telemetry import MODEL_LOAD_SECONDS, MODEL_READY, set_model_info
from clip_app.turns import Ledger

if TYPE_CHECKING:
    from clip_app.serving import Serving

__all__ = ["Loader"]

logger = logging.getLogger("clip_app")


class Loader:
    """Loads the model that the settings name, once."""

    def __init__(
        self, settings: Settings, *, preload: Sequence[str] | None = None, ledger: Ledger | None = None
    ) -> None:
        """Prepare to load; ``preload`` names the groups to embed first, by default the default groups.

        ``ledger`` says who had how much of the work lately.

        Raises:
            LabelFileError: a file of labels cannot be used.
        """
        self.status = LoadStatus()
        self._settings = settings
        self._preload = preload
        self._ledger = ledger or Ledger()
        self._serving: Serving | None = None
        self._closing = threading.Event()
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

    @property
    def encoding_for(self) -> float:
        """For how many seconds the image encoder has been at one batch; 0 where it waits."""
        return self._serving.batcher.busy_for if self._serving is not None else 0.0

    @property
    def loading(self) -> bool:
        """Whether the thread still loads: it may be anywhere, in a download or inside an engine."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop encoding, once what waits is answered."""
        self._closing.set()
        if self._serving is not None:
            # An engine that computes while the process ends takes it down.
            if self._thread.is_alive():
                self._thread.join()
            self._serving.batcher.close()

    def run(self) -> None:
        """Load now; the status says how it ended."""
        # The door to everything heavy: the port listens before it is opened.
        from clip_app.serving import make_serving  # noqa: PLC0415

        started = time.monotonic()
        MODEL_READY.set(0)
        try:
            serving = make_serving(self._settings, self.groups, self._report, self._preload, self._ledger)
        except Exception as error:  # the loading thread's last line of defence: say it, stay alive
            known = isinstance(error, ClipAppError)
            reason = str(error) if known else f"{type(error).__name__}. The server's log says more."
            self.status = LoadStatus("failed", 0.0, reason)
            logger.error("no model: %s", reason, exc_info=error)
            return
        self._take(serving, time.monotonic() - started)

    def _take(self, serving: Serving, seconds: float) -> None:
        self._serving = serving
        source, info = serving.source, serving.model.info
        set_model_info(info, serving.model.device)
        MODEL_LOAD_SECONDS.set(seconds)
        MODEL_READY.set(1)
        self.status = LoadStatus("ready", 1.0, source.reason, source.verified, serving.left_out)
        logger.info(
            "ready: %s at %s, %s %s, after %.1f s", info.id, info.revision, info.engine, info.precision, seconds
        )
        serving.warm_up(self._closing)

    def _report(self, status: LoadStatus) -> None:
        self.status = status
