"""The sentence encoder all-MiniLM-L6-v2 (Reimers and Gurevych 2019, Wang et al. 2020) as ONNX, its vocabulary cut."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from graph import Array, Graph
from head import Head
from onnx import TensorProto
from safetensors.numpy import load_file

__all__ = ["CONTEXT", "cut_vocabulary", "read_encoder", "write_sentences", "write_text"]

LAYERS = 6
HEADS = 12
WIDTH = 384
LAYER_NORM_EPSILON = 1e-12
CONTEXT = 64  # tokens; a label of 200 characters, the longest accepted, seldom needs more
MASKED = -1e4  # added to the attention that must not be paid; far below every score, and safe in half precision

Weights = Mapping[str, Array]


def read_encoder(folder: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read the weights and the contents of tokenizer.json."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return load_file(folder / "model.safetensors"), tokenizer


def cut_vocabulary(tokenizer: dict[str, Any], texts: Sequence[str]) -> tuple[dict[str, Any], Array]:
    """Keep the tokens that ``texts`` need, and every piece of one or two characters for all other words.

    Returns the contents of the new tokenizer.json, and the old number of each new token [V].
    A word whose own token is gone is spelled with shorter pieces, as WordPiece spells any rare word.
    """
    whole = tokenizers.Tokenizer.from_str(json.dumps(tokenizer))
    whole.no_padding()
    used = {token for encoding in whole.encode_batch(list(texts)) for token in encoding.ids}
    special = {token["id"] for token in tokenizer["added_tokens"]}
    vocabulary = tokenizer["model"]["vocab"]
    kept = sorted(
        number for piece, number in vocabulary.items() if number in used | special or len(piece.removeprefix("##")) <= 2
    )
    new = {old: index for index, old in enumerate(kept)}
    result = json.loads(json.dumps(tokenizer))
    result["model"]["vocab"] = {piece: new[old] for piece, old in vocabulary.items() if old in new}
    for token in result["added_tokens"]:
        token["id"] = new[token["id"]]
    for token in result["post_processor"]["special_tokens"].values():
        token["ids"] = [new[old] for old in token["ids"]]
    result["truncation"] = {"direction": "Right", "max_length": CONTEXT, "strategy": "LongestFirst", "stride": 0}
    result["padding"] = None
    return result, np.array(kept)


def _sentences(graph: Graph, weights: Weights, kept: Array) -> str:
    """Add input_ids and attention_mask [N, T] -> the sentence's unit embedding [N, 384]."""
    ids = graph.input("input_ids", TensorProto.INT64, ["batch", "tokens"])
    mask = graph.input("attention_mask", TensorProto.INT64, ["batch", "tokens"])
    floats = graph.add("Cast", mask, to=TensorProto.FLOAT)
    value = _embeddings(graph, weights, kept, ids)
    # [N, T] -> [N, 1, 1, T]: the same for every head and every place that looks.
    absent = graph.add("Sub", graph.constant(1.0), graph.add("Unsqueeze", floats, graph.constant([1, 2])))
    penalty = graph.add("Mul", absent, graph.constant(MASKED))
    for layer in range(LAYERS):
        value = _layer(graph, weights, value, penalty, f"encoder.layer.{layer}")
    present = graph.add("Unsqueeze", floats, graph.constant([2]))
    total = graph.add("ReduceSum", graph.add("Mul", value, present), graph.constant([1]), keepdims=0)
    return graph.unit(total)  # the mean over the tokens, but for a factor


def write_sentences(path: Path, weights: Weights, kept: Array) -> None:
    """Write the encoder alone, float32: input_ids, attention_mask [N, T] -> sentence_embeds [N, 384]."""
    graph = Graph("sentences", int8=False)
    graph.output(_sentences(graph, weights, kept), "sentence_embeds", ["batch", WIDTH])
    graph.save(path)


def write_text(path: Path, weights: Weights, kept: Array, head: Head, *, int8: bool) -> None:
    """Write the text encoder: input_ids, attention_mask [N, T] -> text_embeds [N, D], unit."""
    graph = Graph("text", int8=int8)
    sentences = _sentences(graph, weights, kept)
    graph.output(head.text_side(graph, sentences), "text_embeds", ["batch", head.matrix.shape[1]])
    graph.save(path)


def _embeddings(graph: Graph, weights: Weights, kept: Array, ids: str) -> str:
    words = graph.rows(weights["embeddings.word_embeddings.weight"][kept], ids)
    # The first T positions, all of the one token type.
    table = weights["embeddings.position_embeddings.weight"][:CONTEXT]
    table = table + weights["embeddings.token_type_embeddings.weight"][0]
    length = graph.add("Slice", graph.add("Shape", ids), graph.constant([1]), graph.constant([2]))
    places = graph.add("Slice", graph.constant(table), graph.constant([0]), length, graph.constant([0]))
    return _norm(graph, weights, graph.add("Add", words, places), "embeddings.LayerNorm")


def _layer(graph: Graph, weights: Weights, value: str, penalty: str, name: str) -> str:
    attended = _linear(
        graph, weights, _attention(graph, weights, value, penalty, name), f"{name}.attention.output.dense"
    )
    value = _norm(graph, weights, graph.add("Add", value, attended), f"{name}.attention.output.LayerNorm")
    hidden = _gelu(graph, _linear(graph, weights, value, f"{name}.intermediate.dense"))
    result = graph.add("Add", value, _linear(graph, weights, hidden, f"{name}.output.dense"))
    return _norm(graph, weights, result, f"{name}.output.LayerNorm")


def _attention(graph: Graph, weights: Weights, value: str, penalty: str, name: str) -> str:
    query, key, values = (
        _heads(graph, _linear(graph, weights, value, f"{name}.attention.self.{part}"), order)
        for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
    )
    scores = graph.add("Mul", graph.add("MatMul", query, key), graph.constant((WIDTH / HEADS) ** -0.5))
    share = graph.add("Softmax", graph.add("Add", scores, penalty), axis=-1)
    mixed = graph.add("Transpose", graph.add("MatMul", share, values), perm=[0, 2, 1, 3])
    return graph.add("Reshape", mixed, graph.constant([0, 0, WIDTH]))


def _heads(graph: Graph, value: str, order: list[int]) -> str:
    return graph.add(
        "Transpose", graph.add("Reshape", value, graph.constant([0, 0, HEADS, WIDTH // HEADS])), perm=order
    )


def _linear(graph: Graph, weights: Weights, value: str, name: str) -> str:
    matrix = np.ascontiguousarray(weights[f"{name}.weight"].T)
    return graph.add(
        "Add", graph.add("MatMul", value, graph.weight(matrix, axis=1)), graph.constant(weights[f"{name}.bias"])
    )


def _norm(graph: Graph, weights: Weights, value: str, name: str) -> str:
    gain, shift = graph.constant(weights[f"{name}.weight"]), graph.constant(weights[f"{name}.bias"])
    return graph.add("LayerNormalization", value, gain, shift, axis=-1, epsilon=LAYER_NORM_EPSILON)


def _gelu(graph: Graph, value: str) -> str:
    """The exact one, by the error function."""
    share = graph.add("Add", graph.add("Erf", graph.add("Mul", value, graph.constant(0.5**0.5))), graph.constant(1.0))
    return graph.add("Mul", graph.add("Mul", value, share), graph.constant(0.5))
