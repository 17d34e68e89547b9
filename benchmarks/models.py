"""How long one picture takes in the image encoders of `clip-app models`; writes clip_app/models_measured.json.

python benchmarks/models.py [NAME ...]

Random weights in the real shape, as transformers builds it: speed does not depend on the values. OpenVINO on the CPU,
one picture at a time, the precisions by turns; the median counts. Models that transformers cannot build are left out.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from clip_app.engines import Choice
from clip_app.machine import available_cpus, has_bfloat16
from clip_app.model import load_model
from clip_app.models import MEASURED
from clip_app.source import bundled_source

BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
B32, B16, L14 = ({**shape, "patch_size": patch} for shape, patch in ((BASE, 32), (BASE, 16), (LARGE, 14)))
SHAPES: Mapping[str, tuple[str, dict[str, int]]] = {
    "clip-b32": ("clip", {**B32, "projection_dim": 512}),
    "clip-b16": ("clip", {**B16, "projection_dim": 512}),
    "clip-l14": ("clip", {**L14, "projection_dim": 768}),
    "laion-b32": ("clip", {**B32, "projection_dim": 512}),
    "datacomp-b32": ("clip", {**B32, "projection_dim": 512}),
    "siglip-b16": ("siglip", B16),
    "siglip2-b16": ("siglip", B16),
    "siglip2-so400m": ("siglip", {**SO400M, "patch_size": 14, "image_size": 384}),
}
HINTS = {"float32": "f32", "bfloat16": "bf16"}
ROUNDS, SECONDS = 5, 1.0


def build(family: str, shape: dict[str, int]) -> tuple[Any, int]:
    """Return an OpenVINO model of the image encoder, and the side of its pictures."""
    torch.manual_seed(0)
    shape = {"image_size": 224, **shape}
    network: Any = (
        CLIPVisionModelWithProjection(CLIPVisionConfig(**shape))
        if family == "clip"
        else SiglipVisionModel(SiglipVisionConfig(**shape))
    )
    side = shape["image_size"]
    example = torch.zeros(1, 3, side, side)
    return ov.convert_model(network.eval(), example_input=(example,), input=[(1, 3, side, side)]), side


def times(run: Mapping[str, Any], pixels: np.ndarray[Any, Any]) -> dict[str, float]:
    """Let the precisions take turns; return the median of each in milliseconds."""
    taken: dict[str, list[float]] = {name: [] for name in run}
    for _ in range(ROUNDS):
        for name, call in run.items():
            call(pixels)
            end = time.perf_counter() + SECONDS / ROUNDS
            while time.perf_counter() < end or len(taken[name]) < 3:
                started = time.perf_counter()
                call(pixels)
                taken[name].append(1000 * (time.perf_counter() - started))
    return {name: round(statistics.median(values), 1) for name, values in taken.items()}


def measure(name: str, precisions: list[str]) -> dict[str, float]:
    """Measure one model of the table, or the bundled one."""
    if name == "bundled":
        models = {p: load_model(bundled_source(), Choice("openvino", p)) for p in precisions}  # type: ignore[arg-type]
        side = next(iter(models.values())).preprocessing.target
        return times({p: model.encode_images for p, model in models.items()}, np.zeros((1, 3, side, side), np.float32))
    network, side = build(*SHAPES[name])
    core = ov.Core()
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": available_cpus()}
    compiled = {
        p: core.compile_model(network, "CPU", options | {"INFERENCE_PRECISION_HINT": HINTS[p]}) for p in precisions
    }
    return times(compiled, np.zeros((1, 3, side, side), np.float32))


def processor() -> str:
    """The processor's name, as /proc tells it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Measure those that are named, else all, and keep what was measured of the others on the same machine."""
    precisions = ["float32", "bfloat16"] if has_bfloat16() else ["float32"]
    machine = f"{available_cpus()} cores of an {processor()}, OpenVINO {ov.__version__.partition('-')[0]}"
    kept = json.loads(MEASURED.read_text(encoding="utf-8"))
    found = dict(kept["models"]) if kept["machine"] == machine else {}
    for name in sys.argv[1:] or ["bundled", *SHAPES]:
        found[name] = measure(name, precisions)
        print(name, found[name], flush=True)
    MEASURED.write_text(json.dumps({"machine": machine, "models": found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
