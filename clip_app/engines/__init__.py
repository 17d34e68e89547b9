"""What runs the encoders: a table of engines, and the order in which they are tried.

To add one: a file in this folder with the functions of :class:`EngineModule`, a row in
:data:`ENGINES`, and an extra in pyproject.toml. Nothing here imports an engine before it
is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from clip_app.engines.conversion import conversions
from clip_app.errors import EngineUnavailable
from clip_app.machine import has_bfloat16, has_fast_int8
from clip_app.settings import Settings

if TYPE_CHECKING:
    from clip_app.checkpoint import Format
    from clip_app.preprocessing import Pixels
    from clip_app.source import Source
    from clip_app.tokenizer import Tokenizer, Tokens

__all__ = [
    "ENGINES",
    "Choice",
    "Device",
    "Embeddings",
    "Encoders",
    "EngineFinding",
    "EngineModule",
    "EngineRow",
    "Maps",
    "Precision",
    "candidates",
    "check_installed",
    "check_takes",
    "preferred_format",
]

Embeddings = npt.NDArray[np.float32]
Maps = npt.NDArray[np.float32]
Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "bfloat16", "int8"]

CUDA_DRIVER = Path("/proc/driver/nvidia/version")


class Encoders(Protocol):
    """The two encoders of one checkpoint. Thread-safe."""

    @property
    def precision(self) -> Precision:
        """What they compute in."""

    @property
    def device(self) -> str: ...

    @property
    def logit_scale(self) -> float: ...

    @property
    def class_maps(self) -> Callable[[Pixels], Maps] | None:
        """Return maps [N, C, h, w] of pixels [N, 3, H, W] of any size; None where the network gives none.

        Each is of what an axis of the embedding stands for, the first C of them.
        """

    def encode_images(self, pixels: Pixels) -> Embeddings:
        """Return unit image embeddings, shape [N, D], of pixels, shape [N, 3, H, W]."""

    def encode_tokens(self, tokens: Tokens) -> Embeddings:
        """Return unit text embeddings, shape [N, D], of a batch of tokens."""


@dataclass(frozen=True)
class Choice:
    """Which engine runs, in what precision and where."""

    engine: str
    precision: Precision
    device: Device = "cpu"

    def __str__(self) -> str:
        return f"{self.engine} in {self.precision} on {self.device}"


@dataclass(frozen=True)
class EngineFinding:
    """What ``clip-app doctor`` says of an engine; a bad one says the one thing to change."""

    level: Literal["ok", "warn", "bad"]
    text: str
    fix: str | None = None
    integrity: bool = False


class EngineModule(Protocol):
    """What the file of an engine offers. It may import whatever it needs, at its top."""

    def has_device(self, device: Device) -> bool:
        """Say whether this machine has such a device."""

    def prepare(self, source: Source, precision: Precision, photographs: Path | None) -> str | None:
        """Make what it serves from and keep it in the cache; say what was made, None where nothing need be.

        Raises:
            ClipAppError: it cannot be made or kept.
        """

    def is_prepared(self, source: Source, precision: Precision) -> bool:
        """Say whether :meth:`prepare` has nothing left to do; writes nothing."""

    def open_encoders(self, source: Source, choice: Choice, threads: int | None) -> tuple[Encoders, Tokenizer]:
        """Open a checkpoint for which it is prepared.

        Raises:
            CheckpointError: a file is missing or damaged.
            EngineUnavailable: this machine cannot run it.
        """

    def findings(self, source: Source | None, choice: Choice) -> Iterator[EngineFinding]:
        """Look at what would be used; ``source`` is None where the checkpoint is not there yet."""


@dataclass(frozen=True, kw_only=True)
class EngineRow:
    """One engine: what must be installed for it, and what it can do.

    ``formats`` are those of a checkpoint that it takes, and ``converts`` says that it serves
    from something that is made of safetensors first.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    extra: str | None
    devices: tuple[Device, ...]
    precisions: tuple[Precision, ...]
    formats: tuple[Format, ...]
    converts: bool = False

    @property
    def installed(self) -> bool:
        """True where everything that it imports can be found; nothing is imported."""
        return all(find_spec(package) is not None for package in self.packages)

    def load(self) -> EngineModule:
        """Import the engine's file, which takes a second or more."""
        return cast(EngineModule, import_module(self.module))


# In the order in which they are tried, the fastest first.
ENGINES = {
    row.name: row
    for row in (
        EngineRow(
            name="openvino",
            module="clip_app.engines.openvino",
            packages=("openvino",),
            extra="openvino",
            devices=("cpu",),
            precisions=("bfloat16", "float32", "int8"),
            formats=("onnx", "safetensors"),
            converts=True,
        ),
        EngineRow(
            name="torch",
            module="clip_app.engines.torch",
            packages=("torch", "transformers"),
            extra=None,
            devices=("cuda", "cpu"),
            precisions=("bfloat16", "float32"),
            formats=("safetensors",),
        ),
        EngineRow(
            name="onnxruntime",
            module="clip_app.engines.onnxruntime",
            packages=("onnxruntime",),
            extra="onnxruntime",
            devices=("cpu",),
            precisions=("float32", "int8"),
            formats=("onnx",),
        ),
    )
}


def check_installed(row: EngineRow) -> None:
    """Look that an engine can be imported.

    Raises:
        EngineUnavailable: with what to install.
    """
    if not row.installed:
        name = f"clip-app[{row.extra}]" if row.extra else " ".join(row.packages)
        raise EngineUnavailable(f"{row.name} is not installed: pip install '{name}', or CLIP_APP_ENGINE=auto.")


def candidates(settings: Settings, source: Source | None = None) -> list[Choice]:
    """Return what may serve a checkpoint, in the order to try: one where the settings leave nothing open.

    CUDA comes first where there is a device, then the engines by the table. Auto precision
    is int8 where the processor is fast in it, prefetch made it and it agreed well enough,
    bfloat16 where the processor computes in it, then float32.

    Raises:
        EngineUnavailable: nothing that is installed can do what the settings ask.
    """
    rows = [ENGINES[settings.engine]] if settings.engine != "auto" else list(ENGINES.values())
    if settings.engine != "auto":
        check_installed(rows[0])
    if source is not None:
        rows = _taking(rows, source)
    found = [
        Choice(row.name, precision, device)
        for device in _devices(settings)
        for row in rows
        if row.installed and device in row.devices
        for precision in _precisions(settings, row, device, source)
    ]
    if not found:
        raise EngineUnavailable(
            f"No engine that is installed runs CLIP_APP_PRECISION={settings.precision} with "
            f"CLIP_APP_ENGINE={settings.engine} on CLIP_APP_DEVICE={settings.device}. Set one of them to auto."
        )
    return found


def preferred_format(settings: Settings) -> Format:
    """Return the format to fetch where a repository has more than one: what the engine asked for takes first.

    Where none is asked for, every engine can serve safetensors, if torch is there to read them.
    """
    if settings.engine != "auto":
        return ENGINES[settings.engine].formats[0]
    return "safetensors" if ENGINES["torch"].installed else "onnx"


def check_takes(row: EngineRow, source: Source) -> None:
    """Look that an engine takes the format that a checkpoint is in.

    Raises:
        EngineUnavailable: with which engines do.
    """
    _taking([row], source)


def _taking(rows: list[EngineRow], source: Source) -> list[EngineRow]:
    taking = [row for row in rows if any(source.offers(wanted) for wanted in row.formats)]
    if not any(row.installed for row in taking):
        able = [row for row in ENGINES.values() if any(source.offers(wanted) for wanted in row.formats)]
        kind = "a pair of ONNX files" if source.offers("onnx") else "in transformers' format"
        install = " or ".join(f"'clip-app[{row.extra}]'" for row in able if row.extra)
        raise EngineUnavailable(
            f"The checkpoint is {kind}, which {' and '.join(row.name for row in able)} serve. Set CLIP_APP_ENGINE=auto"
            f"{'' if any(row.installed for row in able) else f', and pip install {install}'}."
        )
    return taking


def _precisions(settings: Settings, row: EngineRow, device: Device, source: Source | None) -> list[Precision]:
    if settings.precision != "auto":
        return [settings.precision] if settings.precision in row.precisions else []
    wanted: list[Precision] = ["bfloat16", "float32"] if device == "cpu" and has_bfloat16() else ["float32"]
    if row.converts and source is not None and has_fast_int8() and conversions(source).serves("int8"):
        wanted.insert(0, "int8")
    return [precision for precision in wanted if precision in row.precisions]


def _devices(settings: Settings) -> list[Device]:
    if settings.device != "auto":
        return [settings.device]
    return ["cuda", "cpu"] if _cuda_wanted(settings) else ["cpu"]


def _cuda_wanted(settings: Settings) -> bool:
    """Ask for a CUDA device only where there is a driver: importing torch takes seconds."""
    torch = ENGINES["torch"]
    if settings.engine not in ("auto", "torch") or settings.precision == "int8" or not CUDA_DRIVER.exists():
        return False
    return torch.installed and torch.load().has_device("cuda")
