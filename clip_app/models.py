"""The models by short name: what each is good for, and at which commit it is trusted.

A row is enough for ``--model NAME``, ``clip-app models`` and docs/models.md.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

__all__ = ["DEFAULT_REVISIONS", "MODELS", "ModelRow", "Speed", "Trust", "full_id", "measured", "nearest"]

Trust = Literal["every file", "the weights", "the commit", "first use"]
OPENCLIP = "OpenCLIP, docs/openclip_results.csv"
SIGLIP2 = "big_vision, README_siglip2.md"
MOBILECLIP = "apple/ml-mobileclip, README.md"
MOBILECLIP2 = "Faghri et al. 2025, arXiv:2508.20691"
MEASURED = Path(__file__).parent / "models_measured.json"
MAIN = ("main",)


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """A model by its short name.

    ``id`` is its repository on the Hub, after a colon the folder that the checkpoint lies in; ``revisions`` are the
    commits that will do, in the order to try; ``megabytes`` are downloaded; ``accuracy`` is ImageNet's zero-shot top-1
    in percent as ``source`` publishes it; ``trust`` is what of it this package knows beforehand.
    """

    name: str
    id: str
    revisions: tuple[str, ...]
    good_for: str
    megabytes: int
    accuracy: float | None
    source: str
    licence: str
    trust: Trust


@dataclass(frozen=True)
class Speed:
    """Milliseconds for one picture through the image encoder, by precision, and on what."""

    milliseconds: Mapping[str, float]
    machine: str


MODELS = {
    row.name: row
    for row in (
        ModelRow(
            name="clip-b32",
            id="openai/clip-vit-base-patch32",
            revisions=("eaee4c876b93e66f7fac584b529025a96d71ad66", "c237dc49a33fc61debc9276459120b7eac67e7ef"),
            good_for="the default: fast, and known by everybody",
            megabytes=609,
            accuracy=63.2,
            source="Radford et al. 2021, arXiv:2103.00020",
            licence="MIT",
            trust="every file",
        ),
        ModelRow(
            name="clip-b16",
            id="Xenova/clip-vit-base-patch16",
            revisions=MAIN,
            good_for="smaller things in the picture, at some four times the work; a pair of ONNX files, int8 too",
            megabytes=602,
            accuracy=68.3,
            source=OPENCLIP,
            licence="MIT",
            trust="first use",
        ),
        ModelRow(
            name="clip-l14",
            id="openai/clip-vit-large-patch14",
            revisions=("32bd64288804d66eefd0ccbe215aa642df71cc41",),
            good_for="OpenAI's best at 224 pixels; slow on a CPU",
            megabytes=1715,
            accuracy=75.5,
            source=OPENCLIP,
            licence="MIT",
            trust="every file",
        ),
        ModelRow(
            name="laion-b32",
            id="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            revisions=("1a25a446712ba5ee05982a381eed697ef9b435cf",),
            good_for="as fast as clip-b32, more often right",
            megabytes=609,
            accuracy=66.6,
            source=OPENCLIP,
            licence="MIT",
            trust="the commit",
        ),
        ModelRow(
            name="datacomp-b32",
            id="laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
            revisions=("f0e2ffa09cbadab3db6a261ec1ec56407ce42912",),
            good_for="the most often right of those as fast as clip-b32",
            megabytes=609,
            accuracy=69.2,
            source=OPENCLIP,
            licence="MIT",
            trust="the commit",
        ),
        ModelRow(
            name="siglip-b16",
            id="google/siglip-base-patch16-224",
            revisions=("7fd15f0689c79d79e38b1c2e2e2370a7bf2761ed",),
            good_for="labels that do not exclude each other: trained on each pair alone",
            megabytes=817,
            accuracy=76.0,
            source=OPENCLIP,
            licence="Apache-2.0",
            trust="the commit",
        ),
        ModelRow(
            name="siglip2-b16",
            id="google/siglip2-base-patch16-224",
            revisions=("75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2",),
            good_for="labels in many languages; the best of its speed",
            megabytes=1539,
            accuracy=78.2,
            source=SIGLIP2,
            licence="Apache-2.0",
            trust="the weights",
        ),
        ModelRow(
            name="siglip2-so400m",
            id="google/siglip2-so400m-patch14-384",
            revisions=("e8e487298228002f3d8a82e0cd5c8ea9c567f57f",),
            good_for="the most often right here; wants a GPU, or patience",
            megabytes=4580,
            accuracy=84.1,
            source=SIGLIP2,
            licence="Apache-2.0",
            trust="the commit",
        ),
        ModelRow(
            name="mobileclip-s0",
            id="Xenova/mobileclip_s0",
            revisions=MAIN,
            good_for="the smallest download",
            megabytes=218,
            accuracy=67.8,
            source=MOBILECLIP,
            licence="Apple, research only",
            trust="first use",
        ),
        ModelRow(
            name="mobileclip2-s0",
            id="plhery/mobileclip2-onnx:onnx/s0",
            revisions=("ba95759a5bdbaca53e9111e2550a76ec09c8fd9e",),
            good_for="the lightest image encoder for what it knows",
            megabytes=302,
            accuracy=71.5,
            source=MOBILECLIP2,
            licence="Apple, research only",
            trust="the commit",
        ),
        ModelRow(
            name="mobileclip2-s2",
            id="plhery/mobileclip2-onnx:onnx/s2",
            revisions=("ba95759a5bdbaca53e9111e2550a76ec09c8fd9e",),
            good_for="as often right as siglip-b16, with less than half its work",
            megabytes=400,
            accuracy=77.2,
            source=MOBILECLIP2,
            licence="Apple, research only",
            trust="the commit",
        ),
    )
}
DEFAULT_REVISIONS: Mapping[str, tuple[str, ...]] = {
    row.id.partition(":")[0]: row.revisions for row in MODELS.values() if row.revisions != MAIN
}


def full_id(model: str) -> str:
    """Return the id behind a short name; anything else is itself."""
    return MODELS[model].id if model in MODELS else model


def nearest(model: str) -> str | None:
    """Return the short name that is most like another, None where none is."""
    return next(iter(difflib.get_close_matches(model.lower(), [*MODELS, "bundled"], 1)), None)


@cache
def measured() -> Mapping[str, Speed]:
    """Return how fast models were, by short name, where that was measured (benchmarks/models.py writes it)."""
    found = json.loads(MEASURED.read_text(encoding="utf-8"))
    return {name: Speed(times, found["machine"]) for name, times in found["models"].items()}
