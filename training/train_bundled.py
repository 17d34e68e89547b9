"""Train the small CLIP checkpoint that ships inside the package.

The data is any folder or zip with one folder per kind: ``train/<kind>/*`` and
``val/<kind>/*``. The kind's folder name is the label. A two-tower CLIP
(Radford et al. 2021, https://arxiv.org/abs/2103.00020) learns to match each
photograph with the prompt of its kind among the prompts of all kinds; prompts
that name nothing are matched with pictures that show nothing (shuffled
patches, noise, plain gradients), so that "no match" means something.

    python training/train_bundled.py --data photos.zip --out clip_app/bundled

It writes the Hub's own format: config.json, model.safetensors, tokenizer.json,
preprocessor_config.json, a model card with the held-out accuracy, and
labels/kinds.txt. Stopping and starting again resumes after the last epoch.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import swa_utils
from tqdm import tqdm
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

TEMPLATES = ["a photo of a {}.", "a picture of a {}.", "a photo of the {}.", "{}."]
NEUTRAL = ["a photo.", "a picture.", "a photo of something.", "a picture of something."]
IMAGE_SIZE = 64
CONTEXT_LENGTH = 32
VOCABULARY = 2048
# Statistics of the CLIP family, so that the preprocessing reads like every other checkpoint's.
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


@dataclass(frozen=True)
class Photos:
    """Pictures, shape [N, 64, 64, 3] uint8, and the index of each one's kind, shape [N]."""

    pixels: np.ndarray
    kinds: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)


def list_files(data: Path, split: str) -> tuple[list[str], list[str]]:
    """Return the paths of a split and the kind of each, sorted."""
    if data.is_dir():
        names = [str(p.relative_to(data)) for p in (data / split).rglob("*") if p.is_file()]
    else:
        with zipfile.ZipFile(data) as archive:
            names = [n for n in archive.namelist() if n.startswith(f"{split}/") and n[-1] != "/"]
    names.sort()
    return names, [name.split("/")[1] for name in names]


def open_files(data: Path, names: list[str]) -> Iterator[bytes]:
    if data.is_dir():
        yield from ((data / name).read_bytes() for name in names)
        return
    with zipfile.ZipFile(data) as archive:
        yield from (archive.read(name) for name in names)


def to_square(data: bytes) -> np.ndarray:
    """Resize the shortest side to 64 and crop the centre, as the checkpoint's processor does."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = IMAGE_SIZE / min(image.size)
    size = (max(IMAGE_SIZE, round(image.width * scale)), max(IMAGE_SIZE, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (image.width - IMAGE_SIZE) // 2, (image.height - IMAGE_SIZE) // 2
    return np.asarray(image.crop((left, top, left + IMAGE_SIZE, top + IMAGE_SIZE)))


def load_photos(data: Path, split: str, work: Path) -> tuple[Photos, list[str]]:
    """Decode a split once into a memory-mapped array beside the training state."""
    names, folders = list_files(data, split)
    if not names:
        raise SystemExit(f"no pictures under {split}/<kind>/ in {data.name}")
    labels = sorted(set(folders))
    kinds = np.array([labels.index(folder) for folder in folders])
    digest = hashlib.sha256("\n".join([str(data.resolve()), *names]).encode()).hexdigest()[:12]
    cache = work / f"{split}-{digest}.npy"
    if not cache.exists():
        pixels = np.empty((len(names), IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
        for i, content in enumerate(tqdm(open_files(data, names), split, len(names), unit="photo")):
            pixels[i] = to_square(content)
        partial = cache.with_suffix(".partial.npy")
        np.save(partial, pixels)
        partial.rename(cache)
    return Photos(np.load(cache, mmap_mode="r"), kinds), labels


def build_tokenizer(texts: list[str]) -> CLIPTokenizer:
    """Learn a lower-case byte-level BPE in CLIP's layout from the words it will meet."""
    empty = CLIPTokenizer()
    bpe = Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.pre_tokenizer = empty.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    learnt = json.loads(bpe.to_str())["model"]
    # CLIP's order: bytes, bytes that end a word, merges, then the two special tokens.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [f"{byte}</w>" for byte in alphabet]
    tokens += [token for token in learnt["vocab"] if token not in set(tokens)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(merge) for merge in learnt["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CONTEXT_LENGTH)


def build_model(tokenizer: CLIPTokenizer, width: int, depth: int) -> CLIPModel:
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": CONTEXT_LENGTH,
        "hidden_act": "gelu",
        "pad_token_id": tokenizer.pad_token_id,
        **special,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // 64,
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
        "hidden_act": "gelu",
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)
    return CLIPModel(config)


def prompt_tokens(tokenizer: CLIPTokenizer, prompts: list[str]) -> Tensor:
    return tokenizer(prompts, padding=True, return_tensors="pt").input_ids


def embed_text(model: CLIPModel, tokens: Tensor) -> Tensor:
    """Return unit text embeddings, shape [len(tokens), D]."""
    return F.normalize(model.get_text_features(input_ids=tokens).pooler_output.float(), dim=-1)


def embed_images(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Return unit image embeddings, shape [N, D], of pixels [N, 3, S, S]; S may be below 64."""
    pooled = model.vision_model(
        pixel_values=pixels, interpolate_pos_encoding=pixels.shape[-1] != IMAGE_SIZE
    ).pooler_output
    return F.normalize(model.visual_projection(pooled).float(), dim=-1)


def normalize(pixels: np.ndarray) -> Tensor:
    """Turn uint8 [N, H, W, 3] into normalised float [N, 3, H, W]."""
    x = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float().div_(255)
    return (x - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def augment(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Random resized crop, flip, brightness and contrast for a whole batch, to [N, 3, size, size]."""
    n = len(x)
    uniform = lambda low, high: torch.empty(n).uniform_(low, high, generator=generator)  # noqa: E731
    area, ratio = uniform(0.35, 1.0), uniform(math.log(3 / 4), math.log(4 / 3)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    flip = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * flip, height
    theta[:, 0, 2], theta[:, 1, 2] = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    if size < IMAGE_SIZE:  # average instead of aliasing when the view is smaller than the picture
        x = F.interpolate(x, size=(IMAGE_SIZE + size) // 2, mode="bilinear", antialias=True)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    contrast, brightness = uniform(0.7, 1.3).view(-1, 1, 1, 1), uniform(-0.3, 0.3).view(-1, 1, 1, 1)
    return x * contrast + brightness


def pictures_of_nothing(x: Tensor, generator: torch.Generator) -> Tensor:
    """Make pictures that show nothing from [N, 3, S, S]: shuffled patches, noise, gradients."""
    n, _, size, _ = x.shape
    block = size // 4
    blocks = x.unfold(2, block, block).unfold(3, block, block).flatten(2, 3)
    order = torch.rand(n, 16, generator=generator).argsort(1)
    blocks = torch.stack([blocks[i][:, order[i]] for i in range(n)])
    grid = blocks.view(n, 3, 4, 4, block, block).transpose(3, 4)
    shuffled = grid.reshape(n, 3, size, size)
    coarse = torch.randn(n, 3, 3, 3, generator=generator)
    gradient = F.interpolate(coarse, size=size, mode="bicubic")
    noise = torch.randn(x.shape, generator=generator)
    choice = torch.rand(n, 1, 1, 1, generator=generator)
    return torch.where(choice < 0.6, shuffled, torch.where(choice < 0.8, gradient, noise))


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[dict[str, object]]]:
    """Split into the encoders' matrices (Muon) and everything else (AdamW)."""
    matrices, decayed, plain = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and ".layers." in name:
            matrices.append(parameter)
        elif parameter.ndim >= 2 and "embedding" not in name:
            decayed.append(parameter)
        else:
            plain.append(parameter)
    return matrices, [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]


@dataclass(frozen=True)
class Stage:
    """Some epochs at one resolution; small pictures first cost a fraction of full ones."""

    size: int
    epochs: int


def parse_stages(text: str) -> list[Stage]:
    return [Stage(*map(int, part.split(":"))) for part in text.split(",")]


class Training:
    """Everything that changes while training, saved after each epoch."""

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer, labels: list[str], args: argparse.Namespace):
        self.model, self.tokenizer, self.labels = model, tokenizer, labels
        self.generator = torch.Generator().manual_seed(args.seed)
        matrices, others = parameter_groups(model)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=args.lr, betas=(0.9, 0.98)),
        ]
        self.average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.998))
        self.peak, self.smoothing, self.epoch = args.lr, args.label_smoothing, 0
        texts = [template.format(label) for template in TEMPLATES for label in labels]
        self.prompts = prompt_tokens(tokenizer, texts + NEUTRAL)

    def set_rate(self, progress: float) -> None:
        """Warm up over the first 2 %, then a cosine to zero."""
        warm, cosine = min(1.0, progress / 0.02), 0.5 * (1 + math.cos(math.pi * progress))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.peak * warm * cosine

    def step(self, pixels: np.ndarray, kinds: np.ndarray, size: int) -> float:
        x = augment(normalize(pixels), size, self.generator)
        nothing = pictures_of_nothing(x[: max(1, len(x) // 32)], self.generator)
        target = torch.cat([torch.from_numpy(kinds), torch.full((len(nothing),), len(self.labels))])
        template = int(torch.randint(len(TEMPLATES), (1,), generator=self.generator))
        neutral = int(torch.randint(len(NEUTRAL), (1,), generator=self.generator))
        rows = torch.arange(len(self.labels)) + template * len(self.labels)
        tokens = torch.cat([self.prompts[rows], self.prompts[[len(TEMPLATES) * len(self.labels) + neutral]]])
        with torch.autocast("cpu", torch.bfloat16):
            image, text = embed_images(self.model, torch.cat([x, nothing])), embed_text(self.model, tokens)
        logits = self.model.logit_scale.exp() * image @ text.T
        loss = F.cross_entropy(logits, target, label_smoothing=self.smoothing)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            self.model.logit_scale.clamp_(max=math.log(100))
        self.average.update_parameters(self.model)
        return float(loss.detach())

    def save(self, path: Path) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.rename(path)

    def resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.epoch = state["epoch"]


def train(run: Training, photos: Photos, stages: list[Stage], batch_size: int, state: Path, val: Photos) -> None:
    sizes = [stage.size for stage in stages for _ in range(stage.epochs)]
    steps = len(photos) // batch_size
    for epoch in range(run.epoch, len(sizes)):
        order = torch.randperm(len(photos), generator=run.generator).numpy()
        bar = tqdm(range(steps), f"epoch {epoch + 1}/{len(sizes)} at {sizes[epoch]} px", mininterval=5)
        losses = []
        run.model.train()
        for i in bar:
            run.set_rate((epoch * steps + i) / (len(sizes) * steps))
            rows = np.sort(order[i * batch_size : (i + 1) * batch_size])
            losses.append(run.step(photos.pixels[rows], photos.kinds[rows], sizes[epoch]))
            if i % 20 == 0:
                bar.set_postfix(loss=f"{np.mean(losses[-100:]):.3f}")
        run.epoch = epoch + 1
        run.save(state)
        top1, top5 = accuracy(run.average.module, run.tokenizer, run.labels, val)
        print(f"epoch {run.epoch}: loss {np.mean(losses):.3f}, held-out top-1 {top1:.1%}, top-5 {top5:.1%}", flush=True)


@torch.inference_mode()
def accuracy(model: CLIPModel, tokenizer: CLIPTokenizer, labels: list[str], photos: Photos) -> tuple[float, float]:
    """Zero-shot top-1 and top-5 over all kinds, prompts of all templates averaged, float32."""
    model.eval()
    texts = [template.format(label) for template in TEMPLATES for label in labels]
    text = embed_text(model, prompt_tokens(tokenizer, texts)).view(len(TEMPLATES), len(labels), -1)
    text = F.normalize(text.mean(0), dim=-1)
    hits = np.zeros(2)
    for start in range(0, len(photos), 256):
        image = embed_images(model, normalize(photos.pixels[start : start + 256]))
        ranked = (image @ text.T).topk(5, dim=-1).indices.numpy()
        found = ranked == photos.kinds[start : start + 256, None]
        hits += found[:, 0].sum(), found.sum()
    return hits[0] / len(photos), hits[1] / len(photos)


def export(run: Training, out: Path, card: str) -> None:
    """Write the averaged weights in the Hub's format; float16 on disk, half the size."""
    out.mkdir(parents=True, exist_ok=True)
    model = run.average.module
    model.half().save_pretrained(out)
    model.float()
    run.tokenizer.save_pretrained(out)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size=size, image_mean=MEAN, image_std=STD
    ).save_pretrained(out)
    (out / "README.md").write_text(card, encoding="utf-8")
    group = ["# The kinds of thing the bundled demonstration model was trained on.", "title: Kinds"]
    group += [f"template: {t}" for t in TEMPLATES] + [f"neutral: {t}" for t in NEUTRAL] + [""]
    (out / "labels").mkdir(exist_ok=True)
    (out / "labels" / "kinds.txt").write_text("\n".join(group + run.labels) + "\n", encoding="utf-8")


def model_card(run: Training, photos: Photos, val: Photos, args: argparse.Namespace, minutes: float) -> str:
    top1, top5 = accuracy(run.average.module, run.tokenizer, run.labels, val)
    millions = sum(p.numel() for p in run.average.module.parameters()) / 1e6
    return f"""---
license: mit
library_name: transformers
pipeline_tag: zero-shot-image-classification
---
# The bundled demonstration model

A small CLIP ({millions:.1f} M parameters, {IMAGE_SIZE}x{IMAGE_SIZE} pixels, patches of 8) in the Hub's own format.
It lets the app start, be tried and be tested where the Hub cannot be reached. It is **not** a replacement for
`openai/clip-vit-base-patch32`: it knows {len(run.labels)} kinds of thing by name (`labels/kinds.txt`) and guesses at
every other word.

## What was measured

Zero-shot over all {len(run.labels)} kinds on {len(val):,} held-out photographs, float32, the prompts of
{len(TEMPLATES)} templates averaged:

| top-1 | top-5 |
|---|---|
| {top1:.1%} | {top5:.1%} |

## How it was trained

`training/train_bundled.py` on {len(photos):,} photographs of {len(run.labels)} kinds drawn from Tiny ImageNet and
CIFAR-10 (research data sets, not included), stages `{args.stages}` (pixels:epochs), batch {args.batch_size},
seed {args.seed}, bfloat16 autocast on a CPU{f", {minutes:.0f} minutes on 2 cores" if minutes else ""}. Matrices of the
encoders by Muon, the rest by AdamW; the weights are an exponential moving average, stored as float16.

## Limits

Photographs of one clear subject work best. Pictures are seen at {IMAGE_SIZE} pixels, so small things are lost.
Confidence is a softmax over labels, not a probability of being right.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder or zip with train/<kind>/* and val/<kind>/*")
    parser.add_argument("--out", type=Path, default=Path("clip_app/bundled"), help="where the checkpoint goes")
    parser.add_argument("--work", type=Path, default=Path(".training"), help="decoded pictures and training state")
    parser.add_argument("--stages", default="32:6,48:9,64:3", help="pixels:epochs, comma separated")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    photos, labels = load_photos(args.data, "train", args.work)
    val, val_labels = load_photos(args.data, "val", args.work)
    if val_labels != labels:
        raise SystemExit("train and val name different kinds")
    tokenizer = build_tokenizer([t.format(label) for t in TEMPLATES for label in labels] * 8 + NEUTRAL)
    run = Training(build_model(tokenizer, args.width, args.depth), tokenizer, labels, args)
    state, started = args.work / "state.pt", time.monotonic()
    if resumed := state.exists():
        run.resume(state)
    train(run, photos, parse_stages(args.stages), args.batch_size, state, val)
    minutes = 0.0 if resumed else (time.monotonic() - started) / 60
    export(run, args.out, model_card(run, photos, val, args, minutes))


if __name__ == "__main__":
    main()
