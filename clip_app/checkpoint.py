"""A checkpoint in the Hub's format: the files that it needs, and what they say of it.

Two formats are served: transformers' (safetensors), and a pair of ONNX files, one for
each encoder, as the Hub's exports are laid out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from clip_app.errors import CheckpointError
from clip_app.preprocessing import Preprocessing

__all__ = [
    "CONFIG",
    "FAMILIES",
    "Format",
    "OnnxPair",
    "Variant",
    "check_family",
    "check_folder",
    "choose_files",
    "default_groups",
    "find_pair",
    "format_advice",
    "formats_in",
    "list_files",
    "missing_files",
    "pair_in",
    "read_json",
    "read_preprocessing",
    "understood",
    "variant_of",
    "within",
]

Format = Literal["safetensors", "onnx"]
# What the weights are kept in: float serves float32 and bfloat16 alike.
Variant = Literal["float", "int8"]
T = TypeVar("T")

FAMILIES = ("clip", "siglip")
CONFIG, PREPROCESSORS, TOKENIZER = (
    "config.json",
    ("preprocessor_config.json", "processor_config.json"),
    "tokenizer.json",
)
SAFETENSORS = ("model.safetensors", "model-*-of-*.safetensors")
SHARED = (
    CONFIG,
    *PREPROCESSORS,
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
)
# What transformers makes a tokenizer of where there is no tokenizer.json.
SLOW_TOKENIZERS = ({"vocab.json", "merges.txt"}, {"spiece.model"})
TRANSFORMERS_ONLY = (*SAFETENSORS, "model.safetensors.index.json", "vocab.json", "merges.txt", "spiece.model")
# The names that exports go by, the exact ones first; a float file's 8-bit form is the last resort of float.
FLOAT_ENDINGS = ("", "_fp32", "_fp16")
INT8_ENDINGS = ("_quantized", "_int8", "_uint8")
PAIR_FOLDERS = ("onnx", "")
VISION = re.compile(r"vision_model(_\w+)\.onnx")
SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
OPEN_CLIP = "open_clip*"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class OnnxPair:
    """The two files of an ONNX checkpoint, as names relative to its folder, and what their weights are kept in."""

    vision: str
    text: str
    variant: Variant


def variant_of(precision: str) -> Variant:
    """Return what a precision's weights are kept in."""
    return "int8" if precision == "int8" else "float"


def list_files(folder: Path) -> list[str]:
    """Return the names of a folder's files, those of its ``onnx`` folder included."""
    paths = [*folder.glob("*"), *folder.glob("onnx/*")]
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())


def within(names: Iterable[str], part: str) -> dict[str, str]:
    """Return the names of a repository as they are seen from a folder of it, with what they are in the repository.

    Small files that the folder lacks are those at the top.
    """
    if not part:
        return {name: name for name in names}
    names = list(names)
    shared = {name: name for name in names if name in SHARED}
    return shared | {name.removeprefix(f"{part}/"): name for name in names if name.startswith(f"{part}/")}


def formats_in(names: Iterable[str]) -> tuple[Format, ...]:
    """Return the formats whose weights are among the names."""
    names = list(names)
    found: list[Format] = ["safetensors"] if any(_is_one_of(name, SAFETENSORS) for name in names) else []
    if find_pair(names, "float") is not None:
        found.append("onnx")
    return tuple(found)


def find_pair(names: Iterable[str], variant: Variant) -> OnnxPair | None:
    """Return the pair of ONNX files for a variant; None where one of the two is missing.

    int8 is one of the quantised exports. Float is the exact export, else the half-precision
    one, else what is there.
    """
    names = set(names)
    for ending in INT8_ENDINGS if variant == "int8" else _float_endings(names):
        for folder in PAIR_FOLDERS:
            vision, text = (str(PurePosixPath(folder, f"{side}_model{ending}.onnx")) for side in ("vision", "text"))
            if {vision, text} <= names:
                return OnnxPair(vision, text, "int8" if ending in INT8_ENDINGS else "float")
    return None


def _float_endings(names: Iterable[str]) -> Iterator[str]:
    """The endings that serve float: the known ones in their order, then whatever else is there."""
    yield from (*FLOAT_ENDINGS, *INT8_ENDINGS)
    for name in sorted(names):
        if (found := VISION.fullmatch(PurePosixPath(name).name)) is not None:
            yield found[1]


def choose_files(names: Iterable[str], wanted: Format, variant: Variant) -> list[str]:
    """Return the files to have of a repository that holds these; the wanted format counts where it has both.

    Raises:
        CheckpointError: something is missing, which is named.
    """
    names = sorted(names)
    _check_names(names)
    formats = formats_in(names)
    if "onnx" not in formats or (wanted == "safetensors" and "safetensors" in formats):
        return [name for name in names if _is_one_of(name, (*SHARED, *TRANSFORMERS_ONLY))]
    pair = _pair_or_error(names, variant)
    # The weights may lie beside the file that uses them: model.onnx_data, model.onnx.data.
    weights = tuple(f"{name}{ending}" for name in (pair.vision, pair.text) for ending in ("", "_data*", ".data*"))
    return [name for name in names if _is_one_of(name, (*SHARED, *weights))]


def missing_files(names: Iterable[str]) -> list[str]:
    """Return everything that a checkpoint of these files lacks."""
    names = list(names)
    missing = [CONFIG] if CONFIG not in names else []
    if not any(name in names for name in PREPROCESSORS):
        missing.append(PREPROCESSORS[0])
    formats = formats_in(names)
    if formats == ("safetensors",) and SAFETENSORS[0] not in names:
        missing += _missing_shards(names)
    if not formats:
        missing.append(_missing_weights(names))
    elif not (TOKENIZER in names or (formats != ("onnx",) and any(kind <= set(names) for kind in SLOW_TOKENIZERS))):
        missing.append(TOKENIZER)
    return missing


def _missing_shards(names: Iterable[str]) -> list[str]:
    """The parts of weights that are spread over several files, of which some are there."""
    there = {int(found[1]): found[2] for name in names if (found := SHARD.fullmatch(name))}
    count = next(iter(there.values()), "0")
    missing = [part for part in range(1, int(count) + 1) if part not in there]
    return [f"model-{part:05d}-of-{count}.safetensors" for part in missing]


def format_advice(names: Iterable[str]) -> str:
    """Say what to do about a repository that lacks files: which format it has, where it is one that is not served."""
    names = list(names)
    other = [name for name in names if _is_one_of(PurePosixPath(name).name, (OPEN_CLIP,))]
    pickles = [name for name in names if _is_one_of(name, PICKLES)]
    if formats_in(names):
        return "Change CLIP_APP_REVISION or CLIP_APP_MODEL."
    if other:
        what = f"It is in the format of open_clip ({other[0]})"
    elif pickles:
        what = f"Its weights are pickles alone ({pickles[0]}), which are never opened"
    else:
        return "Change CLIP_APP_REVISION or CLIP_APP_MODEL."
    return f"{what}. Set CLIP_APP_MODEL to one with safetensors for transformers, or with a pair of ONNX files."


def check_family(names: Iterable[str], config: Mapping[str, Any]) -> None:
    """Look whether a checkpoint of these files and this config.json is of a kind that is served.

    Raises:
        CheckpointError: it is neither CLIP nor SigLIP, or takes pictures of any shape.
    """
    family = config.get("model_type")
    if "onnx" in formats_in(names) or family in FAMILIES:
        return
    if family == "siglip2":
        raise CheckpointError(
            "A SigLIP 2 checkpoint with NaFlex, for pictures of any shape, is not served. Set CLIP_APP_MODEL to one "
            "of a fixed resolution, such as google/siglip2-base-patch16-224."
        )
    raise CheckpointError(f"A checkpoint of type {family!r} is not CLIP or SigLIP. Change CLIP_APP_MODEL.")


def check_folder(folder: Path) -> None:
    """Look for the files without which nothing can be loaded: safetensors or ONNX, never a pickle.

    Raises:
        CheckpointError: a file is missing, or it is neither CLIP nor SigLIP.
    """
    names = list_files(folder)
    _check_names(names)
    check_family(names, read_json(folder / CONFIG))


def pair_in(folder: Path, variant: Variant) -> OnnxPair:
    """Return the pair of a folder for a variant.

    Raises:
        CheckpointError: there is none.
    """
    return _pair_or_error(list_files(folder), variant)


def default_groups(folder: Path) -> list[str]:
    """Return the app's label groups that a checkpoint says it is good enough to be asked for by default.

    Raises:
        CheckpointError: config.json cannot be read.
    """
    return understood(CONFIG, lambda: [str(name) for name in read_json(folder / CONFIG).get("default_groups", ())])


def read_preprocessing(folder: Path) -> Preprocessing:
    """Read how the checkpoint wants its pictures.

    Raises:
        CheckpointError: it cannot be read.
    """
    name = next((name for name in PREPROCESSORS if (folder / name).is_file()), PREPROCESSORS[0])
    config = read_json(folder / name)
    # processor_config.json holds the settings of all of a model's inputs.
    return understood(name, lambda: Preprocessing.from_config(config.get("image_processor", config)))


def _check_names(names: list[str]) -> None:
    if missing := missing_files(names):
        raise CheckpointError(f"The checkpoint lacks {', '.join(missing)}. CLIP_APP_MODEL needs a complete one.")


def _missing_weights(names: list[str]) -> str:
    """Say which files are needed, beside the half of a pair or the joint file that is there."""
    onnx = [name for name in names if name.endswith(".onnx")]
    for name, other in (("vision_model", "text_model"), ("text_model", "vision_model")):
        if found := next((path for path in onnx if PurePosixPath(path).name.startswith(name)), None):
            return str(PurePosixPath(found).with_name(PurePosixPath(found).name.replace(name, other)))
    if onnx:
        return (
            "onnx/vision_model.onnx and onnx/text_model.onnx, one file for each encoder "
            f"({onnx[0]} is a joint one, which cannot embed a picture without a text)"
        )
    return "model.safetensors"


def _pair_or_error(names: list[str], variant: Variant) -> OnnxPair:
    if (pair := find_pair(names, variant)) is not None:
        return pair
    if variant == "int8" and find_pair(names, "float") is not None:
        raise CheckpointError(
            "The checkpoint's ONNX files have no int8 form (onnx/vision_model_quantized.onnx and "
            "onnx/text_model_quantized.onnx). Set CLIP_APP_PRECISION=auto."
        )
    raise CheckpointError(f"The checkpoint lacks {_missing_weights(names)}. CLIP_APP_MODEL needs a complete one.")


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a checkpoint's configs.

    Raises:
        CheckpointError: it is missing, no JSON, or no object.
    """
    content = understood(path.name, lambda: json.loads(path.read_text(encoding="utf-8")))
    if not isinstance(content, dict):
        raise _unreadable(path.name)
    return content


def understood(name: str, read: Callable[[], T]) -> T:
    """Return what ``read`` makes of a file's contents.

    Raises:
        CheckpointError: it makes nothing of them; the file is named.
    """
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise _unreadable(name) from error


def _unreadable(name: str) -> CheckpointError:
    return CheckpointError(f"The checkpoint's {name} cannot be read. Fetch it again.")


def _is_one_of(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
