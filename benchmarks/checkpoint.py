"""The checkpoint and the pictures that are measured on."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from PIL import Image

from clip_app.source import bundled_folder

__all__ = ["make_checkpoint", "make_photo", "photographs"]


def make_checkpoint(folder: Path) -> None:
    """Write a ViT-B/32 with random weights and the bundled model's tokenizer; speed does not depend on values."""
    import torch
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder())
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    CLIPModel(CLIPConfig(text_config=special)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)


def make_photo(path: Path, size: tuple[int, int]) -> Path:
    """Write a photograph of a cat in so many pixels."""
    photo = Image.open(str(files("skimage.data") / "chelsea.png")).convert("RGB")
    photo.resize(size, Image.Resampling.LANCZOS).save(path, quality=90)
    return path


def photographs() -> list[Path]:
    """Photographs that the development tools bring."""
    names = {
        "skimage.data": ["chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "motorcycle_left.png"],
        "sklearn.datasets.images": ["china.jpg", "flower.jpg"],
        "matplotlib": ["mpl-data/sample_data/grace_hopper.jpg"],
        "gradio": ["media_assets/images/cheetah.jpg", "media_assets/images/lion.jpg", "media_assets/images/tower.jpg"],
    }
    return [Path(str(files(package) / name)) for package, group in names.items() for name in group]
