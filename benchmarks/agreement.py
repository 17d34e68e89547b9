"""How far the engines and precisions agree with the float32 reference, on photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clip_app.bank import LabelBank
from clip_app.checkpoint import read_preprocessing
from clip_app.engines import Choice, Embeddings, Precision
from clip_app.engines.conversion import conversions
from clip_app.engines.openvino import open_converted
from clip_app.images import decode
from clip_app.labels import load_groups
from clip_app.model import Model, load_model
from clip_app.results import ModelInfo
from clip_app.source import Source, bundled_folder, examples_folder

from checkpoint import export_pair, photographs  # isort: skip

__all__ = ["measure_agreement"]

TOP = 5
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
RANDOM = "random weights"


def measure_agreement(checkpoint: Path, work: Path) -> list[dict[str, Any]]:
    """Compare with a float32 reference and full decoding: the bundled model by its labels, the other by cosines.

    The reference of ViT-B/32, converted and exported to ONNX, is torch; of the bundled
    ONNX files it is onnxruntime.

    Raises:
        AssertionError: float32 of OpenVINO has other best five labels than the reference somewhere.
    """
    bundled = Source(folder=bundled_folder(), name="bundled", revision="x", artifacts=work / "bundled")
    vit = Source(folder=checkpoint, name=f"ViT-B/32, {RANDOM}", revision="x", artifacts=work / "vit")
    pair = Source(
        folder=export_pair(checkpoint, work / "pair"), name=f"ViT-B/32 as ONNX, {RANDOM}", revision="x", artifacts=work
    )
    converted = [Choice("openvino", precision) for precision in PRECISIONS]
    torch = load_model(vit, Choice("torch", "float32"))
    return [
        *_compare(bundled, load_model(bundled, Choice("onnxruntime", "float32")), converted[:2], labels=True),
        *_compare(vit, torch, converted, labels=False),
        *_compare(pair, torch, [*converted[:2], Choice("onnxruntime", "float32")], labels=False),
    ]


def _compare(source: Source, reference: Model, choices: list[Choice], *, labels: bool) -> list[dict[str, Any]]:
    expected = _embed(reference, exact=True)
    rows = []
    for choice in choices:
        model = _open(source, choice)
        for exact in (True, False):
            found = _embed(model, exact=exact)
            cosines = (found * expected).sum(1)
            row: dict[str, Any] = {"model": source.name, "engine": choice.engine, "precision": choice.precision}
            row |= {"decode": "exact" if exact else "fast", "photographs": len(found)}
            row |= {"mean_cosine": float(cosines.mean()), "least": float(cosines.min())}
            if labels:
                row |= _label_agreement(reference, model, expected, found)
                if choice.precision == "float32" and exact:
                    assert row["same_top_5"] == 1.0, "float32 must have the reference's best five everywhere"
            rows.append(row)
            print(f"  {row}", flush=True)
    return rows


def _open(source: Source, choice: Choice) -> Model:
    """Open a checkpoint; in int8 with random weights, too, whose labels are as good as each other, which is refused."""
    if choice.precision != "int8":
        return load_model(source, choice)
    store = conversions(source)
    converted = store.find("int8") or store.make(source.folder, "int8", examples_folder())
    encoders, tokenizer = open_converted(converted, precision="int8")
    info = ModelInfo(id=source.name, revision="x", engine="openvino", precision="int8", bundled=False)
    return Model(encoders, tokenizer, read_preprocessing(source.folder), info, None)


def _embed(model: Model, *, exact: bool) -> Embeddings:
    pixels = []
    for path in photographs():
        target = None if exact else model.preprocessing.target
        decoded = decode(path.read_bytes(), max_bytes=10**8, max_pixels=10**8, target=target)
        pixels.append(model.preprocessing(decoded.image, exact=exact))
    return np.concatenate([model.encode_images(np.stack(pixels[i : i + 8])) for i in range(0, len(pixels), 8)])


def _label_agreement(reference: Model, model: Model, expected: Embeddings, found: Embeddings) -> dict[str, float]:
    """Share of photographs with the same best label, and with the same best five in the same order."""
    assert reference.label_folder is not None
    (group,) = load_groups(reference.label_folder).values()
    theirs = np.argsort(-expected @ LabelBank(reference).keep(group)[0].T, axis=1, kind="stable")[:, :TOP]
    ours = np.argsort(-found @ LabelBank(model).keep(group)[0].T, axis=1, kind="stable")[:, :TOP]
    return {
        "same_top_1": float((ours[:, 0] == theirs[:, 0]).mean()),
        "same_top_5": float((ours == theirs).all(1).mean()),
        "top_5_overlap": float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(ours, theirs, strict=True)])),
    }
