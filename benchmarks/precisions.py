"""The image encoder of ViT-B/32 in each precision beside the same precision's matrix product; writes the table of
docs/performance.md.

python benchmarks/precisions.py

Random weights: speed does not depend on the values. What this processor can, and the same held to smaller instruction
sets by oneDNN's own variable, which imitates older processors. All that one line compares takes turns in one process.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
FORWARD_GFLOP = 8.82  # one picture through the image encoder of ViT-B/32, two per multiply and add
BATCH, SIZE = 8, 2048
ROUNDS, SECONDS = 7, 0.4
SETS = {
    "as it is": {},
    "AVX512 with VNNI": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "AVX512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
}
HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
PATIENCE = 420  # seconds, for one set of instructions


def main() -> None:
    """Convert once, measure under each set of instructions, and write the table."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2].split(","))))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        convert(work)
        found = {name: held(work, env) for name, env in SETS.items()}
    write(found)


def convert(work: Path) -> None:
    """Make both conversions of the checkpoint, and a product of matrices in int8."""
    import nncf
    import openvino as ov
    import torch
    from checkpoint import make_checkpoint

    from clip_app.engines.conversion import ConversionStore
    from clip_app.source import examples_folder

    checkpoint = make_checkpoint(work / "checkpoint")
    for variant in ("float", "int8"):
        ConversionStore(work / "converted").make(checkpoint, variant, examples_folder())
    layer = torch.nn.Linear(SIZE, SIZE, bias=False).eval()
    product = ov.convert_model(layer, example_input=torch.zeros(SIZE, SIZE), input=[(SIZE, SIZE)])
    ov.save_model(product, work / "product.xml", compress_to_fp16=False)
    rows = [np.random.default_rng(i).standard_normal((SIZE, SIZE)).astype(np.float32) for i in range(3)]
    ov.save_model(nncf.quantize(product, nncf.Dataset(rows)), work / "product-int8.xml", compress_to_fp16=False)


def held(work: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """Measure in another process, which reads the variable at its start; float32 alone where a precision hangs."""
    from clip_app.machine import has_bfloat16

    wanted = ["float32", "int8"] if env or not has_bfloat16() else ["float32", "bfloat16", "int8"]
    while True:
        command = [sys.executable, __file__, str(work), ",".join(wanted)]
        try:
            run = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            wanted.pop()
            continue
        if run.returncode == 0:
            return dict(json.loads(run.stdout.splitlines()[-1]))
        raise RuntimeError(run.stderr[-2000:])


def measure(work: Path, precisions: list[str]) -> dict[str, Any]:
    """Return milliseconds for one picture, and GFLOP/s of the encoder at batch 8 and of the product, by precision."""
    calls: dict[str, Callable[[], Any]] = {}
    for precision in precisions:
        encoder, product = compiled(work, precision)
        one, several = (
            np.random.default_rng(0).standard_normal((n, 3, 224, 224)).astype(np.float32) for n in (1, BATCH)
        )
        square = np.ones((SIZE, SIZE), np.float32)
        calls[f"{precision} one"] = lambda encoder=encoder, one=one: encoder(one)  # type: ignore[misc]
        calls[f"{precision} several"] = lambda encoder=encoder, several=several: encoder(several)  # type: ignore[misc]
        calls[f"{precision} product"] = lambda product=product, square=square: product(square)  # type: ignore[misc]
        calls |= torch_product(precision)
    seconds = by_turns(calls)
    return {precision: figures(precision, seconds) for precision in precisions}


def compiled(work: Path, precision: str) -> tuple[Any, Any]:
    """Return the image encoder and the product, as OpenVINO runs them."""
    import openvino as ov

    from clip_app.machine import available_cpus

    core = ov.Core()
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": available_cpus(),
        "INFERENCE_PRECISION_HINT": HINTS[precision],
    }
    if precision == "float32":
        options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
    variant, product = ("int8", "product-int8.xml") if precision == "int8" else ("float", "product.xml")
    return (
        core.compile_model(work / "converted" / variant / "image.xml", "CPU", options),
        core.compile_model(work / product, "CPU", options),
    )


def torch_product(precision: str) -> dict[str, Callable[[], Any]]:
    """The product as torch computes it, where it does in this precision."""
    import torch

    if precision == "int8":
        return {}
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(SIZE, SIZE).to(kind) for _ in range(2))
    return {f"{precision} torch": lambda: torch.mm(left, right)}


def by_turns(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Let everything take turns; return the median of the rounds' best, in seconds."""
    best: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            taken: list[float] = []
            end = time.perf_counter() + SECONDS / ROUNDS
            while not taken or time.perf_counter() < end:
                started = time.perf_counter()
                call()
                taken.append(time.perf_counter() - started)
            best[name].append(min(taken))
    return {name: statistics.median(values) for name, values in best.items()}


def figures(precision: str, seconds: Mapping[str, float]) -> dict[str, float]:
    """Turn seconds into what the table shows; of the two products the faster."""
    product = min(seconds[name] for name in (f"{precision} product", f"{precision} torch") if name in seconds)
    return {
        "milliseconds": 1000 * seconds[f"{precision} one"],
        "encoder": BATCH * FORWARD_GFLOP / seconds[f"{precision} several"],
        "product": 2e-9 * SIZE**3 / product,
    }


def write(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Put the table into the page."""
    heads = ("instructions", "precision", "one picture", "to float32", "batch 8", "product 2048x2048", "share of it")
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|---|---|"]
    for name, precisions in found.items():
        for precision, row in precisions.items():
            ratio = row["milliseconds"] / precisions["float32"]["milliseconds"]
            share = row["encoder"] / row["product"]
            rates = f"{row['encoder']:,.0f} GFLOP/s | {row['product']:,.0f} GFLOP/s"
            lines.append(
                f"| {name} | {precision} | {row['milliseconds']:.1f} ms | {ratio:.2f} | {rates} | {share:.2f} |"
            )
    table = "\n".join(lines)
    print(table)
    text = PAGE.read_text(encoding="utf-8")
    marked = f"<!-- precisions -->\n{table}\n<!-- end of precisions -->"
    text = re.sub(r"<!-- precisions -->.*<!-- end of precisions -->", lambda _: marked, text, flags=re.S)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
