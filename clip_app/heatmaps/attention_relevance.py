"""Gradient-weighted attention of all layers (Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability").

For a network whose class token gathers the picture by self-attention, such as CLIP's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch.nn import functional as F

from clip_app.contrast import Direction
from clip_app.heatmaps.grid import Heat
from clip_app.heatmaps.vision_tower import AREA, VisionTower, open_tower
from clip_app.preprocessing import Pixels

if TYPE_CHECKING:
    from clip_app.serving import Serving

__all__ = ["AttentionRelevance", "open_mapper", "relevance"]

ATTENTION_BYTES = 256_000_000  # of the attention of all layers and heads, kept for their gradients


class AttentionRelevance:
    """:class:`~clip_app.heatmaps.Mapper` by the gradients of every layer's attention."""

    def __init__(self, tower: VisionTower, *, area: float = AREA) -> None:
        """Look at pictures in the pixels of so many of the network's squares, fewer where that is too many."""
        self._tower, self._area = tower, area
        config = tower.network.config
        maps = config.num_hidden_layers * config.num_attention_heads
        self._most_tokens = math.sqrt(ATTENTION_BYTES / (4 * maps)) - 1

    def look(self, image: Image.Image) -> Callable[[Direction], Heat]:
        return partial(self._heat, self._tower.pixels(image, area=self._area, most_tokens=self._most_tokens))

    def _heat(self, pixels: Pixels, direction: Direction) -> Heat:
        with self._tower.turn(pixels) as (batch, (rows, columns)), torch.enable_grad():
            # Without this nothing has a gradient: the weights are held.
            batch = batch.requires_grad_()
            seen = self._tower.network(
                pixel_values=batch, interpolate_pos_encoding=True, output_attentions=True, return_dict=True
            )
            score = F.normalize(seen.image_embeds[0], dim=0) @ torch.from_numpy(direction).to(batch.device)
            gradients = torch.autograd.grad(score, seen.attentions)
            heat = relevance([layer[0].detach() for layer in seen.attentions], [layer[0] for layer in gradients])
            # What every place has, as each holds itself, is no heat.
            result: Heat = (heat - heat.min()).reshape(rows, columns).cpu().numpy()
            return result


def relevance(attentions: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the relevance of the patches, shape [T], to what the class token, the first one, holds in the end.

    Args:
        attentions: of each layer, shape [heads, 1 + T, 1 + T].
        gradients: of the score with respect to each.

    Equations 5 and 6 of the paper: each layer adds the mean over its heads of attention times
    gradient, negative parts dropped, applied to the relevance so far.
    """
    total = torch.eye(attentions[0].shape[-1], device=attentions[0].device)
    for attention, gradient in zip(attentions, gradients, strict=True):
        total = total + (attention * gradient).clamp(min=0).mean(dim=0) @ total
    return total[0, 1:]


def open_mapper(serving: Serving) -> AttentionRelevance:
    """Load the image half of the checkpoint.

    Raises:
        ClipAppError: it cannot be loaded.
    """
    model = serving.model
    return AttentionRelevance(open_tower(serving.source, model.device, model.preprocessing, "eager"))
