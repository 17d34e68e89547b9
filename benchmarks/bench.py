"""Time one analysis beside the transformers pipeline: same weights, same photograph, turn by turn.

The weights are random in the shape of openai/clip-vit-base-patch32; speed does not
depend on their values.

    make bench
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel, pipeline

from clip_app.analysis import CLI, Analysis
from clip_app.analyzer import Analyzer, Options
from clip_app.loading import Loader
from clip_app.machine import available_cpus
from clip_app.settings import Settings
from clip_app.source import bundled_folder

ROUNDS = 7
LABELS = ("cat", "dog", "rabbit")


def make_checkpoint(folder: Path) -> None:
    """Write a ViT-B/32 with random weights and the bundled model's tokenizer."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder())
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    CLIPModel(CLIPConfig(text_config=special)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    logging.disable(logging.WARNING)
    photo = Path(str(files("skimage.data") / "chelsea.png"))
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder))
        settings = Settings(model=folder, fallback="none")
        loader = Loader(settings, preload=())
        loader.run()
        analyzer = Analyzer(loader, settings, decoders=available_cpus())
        peer = pipeline("zero-shot-image-classification", model=folder, device="cpu")
        data, options = photo.read_bytes(), Options(labels=LABELS)
        sides: dict[str, Callable[[], object]] = {
            "clip_app": lambda: analyzer.analyze(data, options, Analysis(CLI)),
            "transformers pipeline": lambda: peer(Image.open(photo).convert("RGB"), candidate_labels=list(LABELS)),
        }
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(ROUNDS + 1):
            for name, call in sides.items():
                times[name].append(seconds(call))
        loader.close()
    print(f"one {photo.name}, {len(LABELS)} labels, ViT-B/32 shape, {available_cpus()} CPUs, median of {ROUNDS}:")
    for name, measured in times.items():
        rounds = measured[1:]
        median, low, high = statistics.median(rounds), min(rounds), max(rounds)
        print(f"  {name:22} {1000 * median:7.1f} ms  ({1000 * low:.1f} to {1000 * high:.1f})")
    ratio = statistics.median(b / a for a, b in zip(*(t[1:] for t in times.values()), strict=True))
    print(f"  pipeline / clip_app    {ratio:7.2f}")


if __name__ == "__main__":
    main()
