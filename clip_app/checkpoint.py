"""A checkpoint folder in the Hub's format: what must lie in it, and what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path

from clip_app.errors import CheckpointError
from clip_app.preprocessing import Preprocessing

__all__ = ["FAMILIES", "check_folder", "read_preprocessing"]

FAMILIES = ("clip", "siglip")


def check_folder(folder: Path) -> None:
    """Look for the files without which nothing can be loaded, safetensors only.

    Raises:
        CheckpointError: a file is missing, or it is no CLIP or SigLIP.
    """
    missing = [name for name in ("config.json", "preprocessor_config.json") if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("model.safetensors")
    if missing:
        raise CheckpointError(f"The checkpoint lacks {', '.join(missing)}. CLIP_APP_MODEL needs a complete one.")
    try:
        family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError("The checkpoint's config.json cannot be read. Fetch it again.") from error
    if family not in FAMILIES:
        raise CheckpointError(f"A checkpoint of type {family!r} is not CLIP or SigLIP. Change CLIP_APP_MODEL.")


def read_preprocessing(folder: Path) -> Preprocessing:
    """Read how the checkpoint wants its pictures.

    Raises:
        CheckpointError: preprocessor_config.json cannot be read.
    """
    try:
        return Preprocessing.from_config(json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError("The checkpoint's preprocessor_config.json cannot be read. Fetch it again.") from error
