"""LeGrad (Bousselham et al. 2024): what the pooling's attention would have to be for more of a label, layer by layer.

For a network whose picture is gathered by one query at its end, an attention pooling, such as SigLIP's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.nn import functional as F

from clip_app.contrast import Direction
from clip_app.errors import EngineUnavailable
from clip_app.heatmaps.grid import Heat
from clip_app.heatmaps.vision_tower import VisionTower, open_tower
from clip_app.preprocessing import Pixels

if TYPE_CHECKING:
    from clip_app.serving import Serving

__all__ = ["LeGrad", "open_mapper", "pool", "sensitivity"]


class LeGrad:
    """:class:`~clip_app.heatmaps.Mapper` by the gradients of the pooling's attention."""

    def __init__(self, tower: VisionTower) -> None:
        self._tower = tower

    def look(self, image: Image.Image) -> Callable[[Direction], Heat]:
        return partial(self._heat, self._tower.pixels(image))

    def _heat(self, pixels: Pixels, direction: Direction) -> Heat:
        network = self._tower.network
        with self._tower.turn(pixels) as (batch, (rows, columns)):
            with torch.no_grad():
                seen = network(
                    pixel_values=batch, interpolate_pos_encoding=True, output_hidden_states=True, return_dict=True
                )
                # The second half of the layers: what is pooled from earlier ones has no meaning yet.
                layers = [network.post_layernorm(layer) for layer in _second_half(seen.hidden_states)]
            heat = sensitivity(network.head, layers, torch.from_numpy(direction).to(batch.device))
            result: Heat = (heat - heat.min()).reshape(rows, columns).cpu().numpy()
            return result


def sensitivity(head: Any, layers: Sequence[torch.Tensor], direction: torch.Tensor) -> torch.Tensor:
    """Return the mean over layers and the pooling's heads of the gradient of the score by attention, shape [T].

    Args:
        head: the attention pooling.
        layers: the tokens of each layer, as the pooling takes them, shape [1, T, width].
        direction: what the pooled and normalised embedding is scored against, shape [D].

    Equations 5 to 8 of the paper, each layer pooled by the same head; negative parts dropped.
    """
    total = torch.zeros(layers[0].shape[1], device=direction.device)
    with torch.enable_grad():
        for tokens in layers:
            attention = pooling_attention(head, tokens).detach().requires_grad_()
            score = F.normalize(pool(head, tokens, attention), dim=0) @ direction
            (gradient,) = torch.autograd.grad(score, attention)
            total += gradient.clamp(min=0).mean(dim=0)
    return total / len(layers)


def pooling_attention(head: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return the attention of the pooling's query over tokens [1, T, width], shape [heads, T]."""
    query, key, _ = _projected(head.attention, head.probe, tokens)
    scores: torch.Tensor = (key @ query.transpose(1, 2))[:, :, 0] / key.shape[-1] ** 0.5
    return scores.softmax(dim=-1)


def pool(head: Any, tokens: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """Return the embedding, shape [width], that a pooling with this attention [heads, T] makes of tokens."""
    _, _, value = _projected(head.attention, head.probe, tokens)
    gathered = (attention[:, None] @ value).flatten()
    pooled = head.attention.out_proj(gathered)
    embedding: torch.Tensor = pooled + head.mlp(head.layernorm(pooled))
    return embedding


def _projected(attention: Any, probe: torch.Tensor, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Query [heads, 1, d], keys and values [heads, T, d]."""
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    given = (probe, tokens, tokens)
    rows = [F.linear(each[0], weight, bias) for each, weight, bias in zip(given, weights, biases, strict=True)]
    return [row.view(len(row), attention.num_heads, -1).transpose(0, 1) for row in rows]


def _second_half(states: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
    layers = states[1:]  # the first is what the layers are given
    return layers[len(layers) // 2 :]


def open_mapper(serving: Serving) -> LeGrad:
    """Load the image half of the checkpoint.

    Raises:
        ClipAppError: it cannot be loaded.
    """
    model = serving.model
    tower = open_tower(serving.source, model.device, model.preprocessing, "sdpa")
    if not tower.network.config.vision_use_head:
        raise EngineUnavailable("The checkpoint has no attention pooling.")
    return LeGrad(tower)
