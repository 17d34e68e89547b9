"""The methods compute what their papers say, checked against sums written out another way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import small_checkpoint
from PIL import Image
from test_model import tiny_siglip
from transformers import AutoModel

from clip_app.checkpoint import read_preprocessing
from clip_app.errors import CheckpointError, EngineUnavailable
from clip_app.heatmaps import attention_relevance, legrad, vision_tower
from clip_app.heatmaps.grid import between, fitted, scaled
from clip_app.heatmaps.vision_tower import VisionTower, open_tower
from clip_app.source import Source, examples_folder


def tower(folder: Path, attention: vision_tower.Attention = "eager") -> VisionTower:
    source = Source(folder=folder, name="test", revision="test", artifacts=folder)
    return open_tower(source, "cpu", read_preprocessing(folder), attention)


def picture(width: int, height: int) -> Image.Image:
    return Image.open(examples_folder() / "taxis.jpg").convert("RGB").resize((width, height))


def attend(layer: Any, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One layer of a transformer written out: what it gives, and its attention [heads, T, T]."""
    attention, given = layer.self_attn, layer.layer_norm1(hidden)
    split = (len(given), attention.num_heads, -1)
    query, key, value = (
        getattr(attention, f"{name}_proj")(given).view(split).transpose(0, 1) for name in ("q", "k", "v")
    )
    weights = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)
    hidden = hidden + attention.out_proj((weights @ value).transpose(0, 1).flatten(1))
    return hidden + layer.mlp(layer.layer_norm2(hidden)), weights


def test_gradient_weighted_attention_is_that_of_the_paper_written_out() -> None:
    subject = tower(small_checkpoint())
    pixels = subject.pixels(picture(150, 100))
    assert pixels.shape[1] < pixels.shape[2], "at its own aspect ratio"
    direction = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    heat = attention_relevance.AttentionRelevance(subject)._heat(pixels, direction)

    network = AutoModel.from_pretrained(small_checkpoint(), dtype=torch.float32).eval()
    vision = network.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(torch.from_numpy(pixels)[None], interpolate_pos_encoding=True))[0]
    attentions = []
    for layer in vision.encoder.layers:
        hidden, weights = attend(layer, hidden)
        weights.retain_grad()
        attentions.append(weights)
    embedding = network.visual_projection(vision.post_layernorm(hidden[0]))
    (embedding / embedding.norm() @ torch.from_numpy(direction)).backward()
    total = np.eye(len(hidden))
    for weights in attentions:
        assert weights.grad is not None
        product = (weights * weights.grad).detach().numpy()
        total += np.where(product > 0, product, 0).mean(0) @ total
    expected = total[0, 1:].reshape(heat.shape)
    np.testing.assert_allclose(heat, expected - expected.min(), rtol=1e-3, atol=1e-7)


def test_relevance_is_nothing_where_no_layer_looks() -> None:
    identity = [torch.eye(5).expand(2, 5, 5)] * 3
    assert not attention_relevance.relevance(identity, [torch.ones(2, 5, 5)] * 3).any()


def test_pooling_by_hand_is_the_networks_own(tmp_path: Path) -> None:
    head = tower(tiny_siglip(tmp_path), "sdpa").network.head
    tokens = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 16, 64)).astype(np.float32))
    by_hand = legrad.pool(head, tokens, legrad.pooling_attention(head, tokens))
    np.testing.assert_allclose(by_hand.detach(), head(tokens)[0].detach(), atol=1e-5)


def test_legrad_is_how_much_more_attention_would_raise_the_score(tmp_path: Path) -> None:
    head = tower(tiny_siglip(tmp_path), "sdpa").network.head.double()
    random = np.random.default_rng(0)
    layers = [torch.from_numpy(random.standard_normal((1, 9, 64))) for _ in range(2)]
    direction = torch.from_numpy(random.standard_normal(64))

    def score(tokens: torch.Tensor, attention: torch.Tensor) -> float:
        embedding = legrad.pool(head, tokens, attention)
        return float(embedding / embedding.norm() @ direction)

    expected, step = np.zeros(9), 1e-6
    for tokens in layers:
        attention = legrad.pooling_attention(head, tokens)
        for head_index in range(2):
            for place in range(9):
                more, less = attention.clone(), attention.clone()
                more[head_index, place] += step
                less[head_index, place] -= step
                slope = (score(tokens, more) - score(tokens, less)) / (2 * step)
                expected[place] += max(slope, 0) / 2 / len(layers)
    np.testing.assert_allclose(legrad.sensitivity(head, layers, direction).numpy(), expected, atol=1e-6)


def test_a_network_that_sees_pictures_stretched_is_shown_them_so(tmp_path: Path) -> None:
    assert tower(tiny_siglip(tmp_path), "sdpa").pixels(picture(300, 50)).shape == (3, 32, 32)


@pytest.mark.parametrize("size", [(100, 100), (300, 100), (100, 300), (5000, 20), (1, 9000)])
def test_a_picture_is_looked_at_in_a_bounded_number_of_patches(size: tuple[int, int]) -> None:
    subject = tower(small_checkpoint())
    for most, bound in ((float("inf"), 32), (8, 10)):  # rounding each side to whole patches may add some
        _, height, width = subject.pixels(picture(*size), most_tokens=most).shape
        assert height % 16 == width % 16 == 0
        assert 1 <= height * width / 256 <= bound


def test_a_network_too_large_for_the_memory_is_left_before_it_is_loaded(tmp_path: Path) -> None:
    config = json.loads((small_checkpoint() / "config.json").read_text())
    config["vision_config"] |= {"hidden_size": 64_000, "num_hidden_layers": 100}
    for path in small_checkpoint().glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineUnavailable, match="Give the process more memory"):
        tower(tmp_path)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    for path in small_checkpoint().iterdir():
        (tmp_path / path.name).write_bytes(
            path.read_bytes()[:5000] if path.suffix == ".safetensors" else path.read_bytes()
        )
    with pytest.raises(CheckpointError, match="cannot be read"):
        tower(tmp_path)


# The grid.


def test_sizes_keep_the_aspect_ratio_within_their_bound() -> None:
    assert fitted((640, 480), 321, area=6, step=32, extra=1) == (417, 321)
    assert fitted((480, 640), 321, area=6, step=32, extra=1) == (321, 417)
    for size in ((1, 1), (7, 3), (10_000, 100), (100_000, 1), (1, 100_000)):
        width, height = fitted(size, 321, area=6, step=32, extra=1)
        assert (width - 1) % 32 == (height - 1) % 32 == 0
        assert min(width, height) >= 33
        assert width * height <= 6.5 * 321**2
        assert (width >= height) == (size[0] >= size[1])


def test_samples_on_the_edges_become_cells_between_them() -> None:
    cells = between(np.array([[0, 1, 2]], np.float32), 2)
    np.testing.assert_allclose(cells[0], [1 / 6, 0.5, 5 / 6, 7 / 6, 1.5, 11 / 6], rtol=1e-6)
    assert cells.shape == (2, 6)


def test_heat_is_scaled_to_its_highest_and_nothing_stays_nothing() -> None:
    np.testing.assert_allclose(scaled(np.array([[-1, 2, 4]], np.float32)), [[0, 0.5, 1]])
    assert not scaled(np.array([[-1, -2]], np.float32)).any()
