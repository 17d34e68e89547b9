"""A checkpoint of two ONNX files, whatever runs them: what goes in, what comes out, and how its texts are cut.

Inputs and outputs are found by what they are: exports name them differently, some take a
mask and some none, some hold a fixed number of pictures or tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from clip_app.checkpoint import (
    CONFIG,
    TOKENIZER,
    Variant,
    pair_in,
    read_json,
    read_preprocessing,
    understood,
    variant_of,
)
from clip_app.engines import Embeddings, Maps, Precision
from clip_app.errors import CheckpointError
from clip_app.preprocessing import Pixels
from clip_app.tokenizer import Padding, Tokenizer, Tokens

__all__ = ["PairEncoders", "Port", "Session", "describe_pair", "open_pair", "unusable_file"]

Side = Literal["image", "text"]
Array = npt.NDArray[Any]
T = TypeVar("T")

# What CLIP's cosines are multiplied by where config.json does not say: training holds it to 100 at most, where it
# ends (Radford et al. 2021). SigLIP's lies near it; a pair of ONNX files does not hold the trained number.
LOGIT_SCALE = 100.0
CLIP_CONTEXT, SIGLIP_CONTEXT = 77, 64
OLD_EOS = 2  # what OpenAI's own configs call the end of a text, wrongly
OUTPUTS: Mapping[Side, str] = {"image": "image_embeds", "text": "text_embeds"}
CLASS_MAPS = "class_maps"  # beside the image embedding: what speaks for each class, and where (bundled/vision.py)
POOLED = ("pooler_output", "pooled_output", "embeddings", "sentence_embedding")
# transformers' tokenizers of SigLIP 2, which was trained on lower case; they pad on the left unless told otherwise.
GEMMA = ("Gemma", "Siglip2")
PROBE = "a photo of a cat."
# Embeddings of the same text differ by less than this in half precision, and by more where padding is looked at.
SAME_COSINE = 0.999


@dataclass(frozen=True)
class Port:
    """An input or output: its name, its type, and its shape, None where a number or all of it is open."""

    name: str
    shape: tuple[int | None, ...] | None
    dtype: npt.DTypeLike

    def size(self, axis: int) -> int | None:
        """How long an axis is, None where that is open."""
        return self.shape[axis] if self.shape is not None and axis < len(self.shape) else None


class Session(Protocol):
    """One ONNX file, opened by an engine. Thread-safe."""

    @property
    def inputs(self) -> Sequence[Port]: ...

    @property
    def outputs(self) -> Sequence[Port]: ...

    @property
    def precision(self) -> Precision:
        """What it computes in."""

    def run(self, feeds: Mapping[str, Array], output: str) -> Array:
        """Return one output for the inputs by name."""


class PairEncoders:
    """:class:`~clip_app.engines.Encoders` around a pair of ONNX files. Thread-safe."""

    device = "cpu"

    def __init__(self, vision: _Encoder, text: _Encoder, settings: _TextSettings, precision: Precision) -> None:
        self.logit_scale = settings.logit_scale
        self.precision: Precision = precision
        self._vision, self._text, self._settings = vision, text, settings
        self._pixels = vision.only_input(4, "pixel_values", ())
        self._ids = text.only_input(2, "input_ids", ("attention_mask", "position_ids", "token_type_ids"))
        any_size = self._pixels.size(2) is None and self._pixels.size(3) is None
        self.class_maps = self._class_maps if any_size and vision.gives(CLASS_MAPS, 4) else None

    def encode_images(self, pixels: Pixels) -> Embeddings:
        return self._vision({self._pixels.name: pixels})

    def _class_maps(self, pixels: Pixels) -> Maps:
        return self._vision.rows({self._pixels.name: pixels}, CLASS_MAPS)

    def encode_tokens(self, tokens: Tokens) -> Embeddings:
        ids = tokens.ids
        # Some runtimes read past the end of the token embeddings without a word.
        if self._settings.vocabulary is not None and ids.max() >= self._settings.vocabulary:
            raise IndexError("the tokenizer has a token that the text encoder does not know")
        known = {
            self._ids.name: ids,
            "attention_mask": np.ones_like(ids) if self._settings.padding.fill else tokens.mask,
            "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
            "token_type_ids": np.zeros_like(ids),
        }
        return self._text({name: known[name] for name in self._text.inputs})

    def check_pixels(self, shape: tuple[int, int, int]) -> None:
        """Compare with the shape of one picture's pixels.

        Raises:
            CheckpointError: the file takes others.
        """
        wanted = [self._pixels.size(axis + 1) for axis in range(3)]
        if any(size not in (None, given) for size, given in zip(wanted, shape, strict=True)):
            takes, given = ("x".join("?" if size is None else str(size) for size in sizes) for sizes in (wanted, shape))
            raise CheckpointError(
                f"{self._vision.file} takes pixels of {takes}, and the checkpoint's preprocessor makes {given}. "
                "They do not belong together."
            )

    def fit(self, tokenizer: Tokenizer) -> Tokenizer:
        """Return the tokenizer with the length of texts that the text encoder takes.

        A file that holds a fixed number of tokens is given those. One that looks at the
        padding, which a causal or masked encoder does not, is given the whole context, as
        it was trained.
        """
        if (fixed := self._ids.size(1)) is not None:
            return tokenizer.refilled(context=fixed, fill=True)
        if tokenizer.padding.fill:
            return tokenizer
        full = tokenizer.refilled(context=tokenizer.context, fill=True)
        texts = tokenizer.encode([PROBE])
        short, long = (self.encode_tokens(each.pad(texts))[0] for each in (tokenizer, full))
        return tokenizer if float(short @ long) > SAME_COSINE else full


class _Encoder:
    """One of the two files: rows in, unit embeddings out."""

    def __init__(self, session: Session, file: str, side: Side) -> None:
        self.file = file
        self.precision = session.precision
        self.inputs = {port.name: port for port in session.inputs}
        self._session = session
        self._outputs = session.outputs
        self._output = self._find_output(session.outputs, OUTPUTS[side])

    def __call__(self, feeds: Mapping[str, Array]) -> Embeddings:
        features = self.rows(feeds, self._output.name)
        # A row of zeros stays one, and is noticed by whoever asks for a unit embedding.
        unit: Embeddings = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return unit

    def gives(self, name: str, rank: int) -> bool:
        """Say whether there is an output of this name and rank."""
        return any(port.name == name and len(port.shape or ()) == rank for port in self._outputs)

    def rows(self, feeds: Mapping[str, Array], output: str) -> npt.NDArray[np.float32]:
        """Run any number of rows: all at once, or as many at a time as the file holds."""
        rows = len(next(iter(feeds.values())))
        batch = next((size for port in self.inputs.values() if (size := port.size(0))), rows)
        found = np.concatenate([self._run(feeds, start, batch, output) for start in range(0, rows, batch)])
        return found[:rows].astype(np.float32)

    def _run(self, feeds: Mapping[str, Array], start: int, batch: int, output: str) -> Array:
        cut = {name: _exactly(batch, rows[start : start + batch]) for name, rows in feeds.items()}
        typed = {name: rows.astype(self.inputs[name].dtype, copy=False) for name, rows in cut.items()}
        return self._session.run(typed, output)

    def only_input(self, rank: int, name: str, others: tuple[str, ...]) -> Port:
        """Return the input of this rank, beside ``others`` that are known how to fill.

        Raises:
            CheckpointError: there is none, or one that nothing is known of.
        """
        found = [port for port in self.inputs.values() if port.name not in others]
        if len(found) != 1 or (found[0].shape is not None and len(found[0].shape) != rank):
            wants = ", ".join(self.inputs)
            raise CheckpointError(
                f"{self.file} wants {wants}. Export it with {' and '.join((name, *others[:1]))} alone."
            )
        return found[0]

    def _find_output(self, outputs: Sequence[Port], projected: str) -> Port:
        named = {port.name: port for port in outputs}
        found = [named[name] for name in (projected, *POOLED) if name in named]
        if not found:  # some exports number their outputs: an embedding is the one that is flat
            found = [port for port in outputs if port.shape is not None and len(port.shape) == 2]
        if not found or len(found[0].shape or (0, 0)) != 2:
            given = ", ".join(named)
            raise CheckpointError(f"{self.file} gives {given}, none of them an embedding. Export it with {projected}.")
        return found[0]


@dataclass(frozen=True)
class _TextSettings:
    """How a checkpoint's texts are made to tokens, and what its cosines are multiplied by."""

    context: int
    padding: Padding
    lower_case: bool
    vocabulary: int | None
    end_of_text: int | None
    logit_scale: float


def open_pair(folder: Path, variant: Variant, open_file: Callable[[Path], Session]) -> tuple[PairEncoders, Tokenizer]:
    """Open a checkpoint's pair of ONNX files, and see that they and its tokenizer belong together.

    Args:
        folder: the checkpoint's.
        variant: which of its files.
        open_file: opens one file, or raises CheckpointError.

    Raises:
        CheckpointError: a file is missing, damaged or of something else; it is named.
    """
    pair = pair_in(folder, variant)
    settings = _read_settings(folder)
    vision, text = (
        _Encoder(open_file(folder / name), name, cast(Side, side))
        for name, side in ((pair.vision, "image"), (pair.text, "text"))
    )
    encoders = PairEncoders(vision, text, settings, "int8" if pair.variant == "int8" else vision.precision)
    shape = read_preprocessing(folder).shape
    encoders.check_pixels(shape)
    tokenizer = _open_tokenizer(folder, settings)
    seen = _first_answer(vision.file, lambda: encoders.encode_images(np.zeros((1, *shape), np.float32)))
    tokenizer = _first_answer(text.file, lambda: encoders.fit(tokenizer))
    read = _first_answer(text.file, lambda: encoders.encode_tokens(tokenizer.pad(tokenizer.encode([PROBE]))))
    if seen.shape != read.shape:
        raise CheckpointError(
            f"{vision.file} gives embeddings of {seen.shape[1]} numbers and {text.file} of {read.shape[1]}. They do "
            "not belong together, or were exported without their projections."
        )
    return encoders, tokenizer


def unusable_file(file: str, runtime: str, unknown: str | None) -> CheckpointError:
    """Say that a file cannot be opened; ``unknown`` names operations that the runtime does not know."""
    if unknown:
        return CheckpointError(
            f"{file} uses operations that {runtime} does not know ({unknown.strip()}). Set CLIP_APP_ENGINE to another, "
            "or export it with standard ones."
        )
    return CheckpointError(f"{file} cannot be opened: it is damaged, incomplete or no ONNX file. Fetch it again.")


def describe_pair(folder: Path, precision: Precision) -> str:
    """Say which files would be served, and how large they are.

    Raises:
        CheckpointError: there is no such pair.
    """
    pair = pair_in(folder, variant_of(precision))
    size = sum((folder / name).stat().st_size for name in (pair.vision, pair.text))
    return f"{pair.vision} and {pair.text}, {size / 1e6:.1f} MB"


def _first_answer(file: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except Exception as error:  # whatever a runtime raises where shapes or numbers do not fit
        raise CheckpointError(
            f"{file} fails on its first input ({type(error).__name__}): it is damaged, or not what the configs "
            "beside it say. Fetch or export it again."
        ) from error


def _read_settings(folder: Path) -> _TextSettings:
    config, tokenizer = read_json(folder / CONFIG), read_json(folder / TOKENIZER)
    # What is named later counts: tokenizer_config.json is what transformers goes by.
    names = [name for name in ("special_tokens_map.json", "tokenizer_config.json") if (folder / name).is_file()]
    named = {key: value for name in names for key, value in read_json(folder / name).items()}
    token = understood(TOKENIZER, lambda: _padding_token(config, tokenizer, named))
    return understood(CONFIG, lambda: _settings(config, token, named))


def _settings(config: Mapping[str, Any], padding: int, named: Mapping[str, Any]) -> _TextSettings:
    family = str(config.get("model_type", ""))
    siglip = family.startswith("siglip")
    gemma = str(named.get("tokenizer_class")).startswith(GEMMA)
    side = named.get("padding_side", "left" if gemma else "right")
    text = config.get("text_config", {})
    vocabulary, end = text.get("vocab_size"), text.get("eos_token_id")
    return _TextSettings(
        context=int(text.get("max_position_embeddings", SIGLIP_CONTEXT if siglip else CLIP_CONTEXT)),
        padding=Padding(token=padding, left=side == "left", fill=siglip),  # SigLIP was trained so, without a mask
        lower_case=siglip and gemma,
        vocabulary=int(vocabulary) if vocabulary else None,
        end_of_text=int(end) if family == "clip" and end not in (None, OLD_EOS) else None,
        logit_scale=float(config.get("logit_scale", LOGIT_SCALE)),
    )


def _padding_token(config: Mapping[str, Any], tokenizer: Mapping[str, Any], named: Mapping[str, Any]) -> int:
    """Find the padding token: by its name, else by what the tokenizer or the network says."""
    token = named.get("pad_token")
    token = token["content"] if isinstance(token, dict) else token
    vocabulary = tokenizer["model"]["vocab"]
    # Unigram's is a list of pairs, the others' a mapping.
    ids = dict(vocabulary) if isinstance(vocabulary, dict) else {piece[0]: i for i, piece in enumerate(vocabulary)}
    ids |= {added["content"]: added["id"] for added in tokenizer.get("added_tokens", [])}
    if token in ids:
        return int(ids[token])
    if tokenizer.get("padding"):
        return int(tokenizer["padding"]["pad_id"])
    return int(config.get("text_config", {}).get("pad_token_id") or 0)


def _open_tokenizer(folder: Path, settings: _TextSettings) -> Tokenizer:
    try:
        tokenizer = Tokenizer.read(
            folder / TOKENIZER, context=settings.context, padding=settings.padding, lower_case=settings.lower_case
        )
        (ids,) = tokenizer.encode([PROBE])
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"The checkpoint's {TOKENIZER} cannot be read. Fetch it again.") from error
    vocabulary, end = settings.vocabulary, settings.end_of_text
    if vocabulary is not None and tokenizer.vocabulary > vocabulary:
        raise CheckpointError(
            f"{TOKENIZER} has {tokenizer.vocabulary} tokens and the text encoder {vocabulary}. It belongs to another "
            "model: fetch the checkpoint again."
        )
    if not ids or (end is not None and end not in ids):
        raise CheckpointError(
            f"{TOKENIZER} does not end a text as config.json says (eos_token_id {end}). It belongs to another model: "
            "fetch the checkpoint again."
        )
    return tokenizer


def _exactly(count: int, rows: Array) -> Array:
    """Fill up with copies of the last row."""
    missing = count - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)]) if missing > 0 else rows
