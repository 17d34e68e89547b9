"""Draw docs/images/architecture.png: the rooms of the house, and who imports from whom, read from the code.

python docs/draw_architecture.py
"""

from __future__ import annotations

from pathlib import Path

import grimp
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

PICTURE = Path(__file__).parent / "images" / "architecture.png"
# Rooms from the roof to the ground; a module that is in none of them is drawn nowhere, which fails the run.
ROOMS = {
    "faces": (
        "cli",
        "ui",
        "question",
        "view",
        "verdict",
        "gradio_api",
        "gradio_host",
        "snippets",
        "rest",
        "embeddings_api",
        "collection_api",
        "mcp_server",
        "forms",
        "doctor",
    ),
    "many, and where": (
        "collection",
        "search",
        "batch",
        "archives",
        "bulk",
        "evaluation",
        "explainer",
        "contrast",
        "heatmaps",
        "overlay",
    ),
    "the server": (
        "server",
        "connections",
        "middleware",
        "mcp_route",
        "threads",
        "loading",
        "gradio_routes",
        "uploads",
        "log",
    ),
    "what serves": ("serving", "bank", "few_shot"),
    "the way of one image": (
        "analyzer",
        "intake",
        "turns",
        "scoring",
        "ranking",
        "batching",
        "preprocessing",
        "images",
        "bounds",
        "budget",
        "streamed",
        "tones",
        "truncated",
        "containers",
        "observation",
    ),
    "model and engines": ("model", "engines", "checkpoint", "tokenizer"),
    "the Hub and its cache": ("preparation", "source", "hub", "models"),
    "said by all": (
        "options",
        "labels",
        "example_pictures",
        "endpoints",
        "results",
        "status",
        "signatures",
        "telemetry",
    ),
    "the ground": ("settings", "errors", "machine", "junk"),
}
PLACES = {
    "faces": (0.5, 7),
    "many, and where": (0.84, 7),
    "the server": (0.16, 5.4),
    "what serves": (0.5, 5.4),
    "the way of one image": (0.84, 5.4),
    "model and engines": (0.3, 3.6),
    "the Hub and its cache": (0.72, 3.6),
    "said by all": (0.5, 2.0),
    "the ground": (0.5, 0.6),
}


def arrows() -> dict[tuple[str, str], int]:
    """Count the imports from each room into each other."""
    graph = grimp.build_graph("clip_app", exclude_type_checking_imports=True)
    room_of = {module: room for room, modules in ROOMS.items() for module in modules}
    counts: dict[tuple[str, str], int] = {}
    for module in sorted(graph.modules):
        for imported in graph.find_modules_directly_imported_by(module):
            names = [name.split(".")[1] for name in (module, imported) if name.count(".")]
            if len(names) < 2 or "__main__" in names:
                continue
            pair = room_of[names[0]], room_of[names[1]]
            if pair[0] != pair[1]:
                counts[pair] = counts.get(pair, 0) + 1
    return counts


def main() -> None:
    """Draw the rooms over the arrows, those that lead upward in another colour."""
    figure, axes = plt.subplots(figsize=(11, 8), dpi=110)
    for (start, end), count in arrows().items():
        upward = PLACES[end][1] > PLACES[start][1]
        style = {"arrowstyle": "-|>", "color": "#b45309" if upward else "#94a3b8", "lw": 0.6 + 0.12 * min(count, 20)}
        axes.annotate("", PLACES[end], PLACES[start], arrowprops=style | {"shrinkA": 34, "shrinkB": 34}, zorder=1)
    for room, (x, y) in PLACES.items():
        names = ROOMS[room]
        lines = [", ".join(names[i : i + 5]) for i in range(0, len(names), 5)]
        axes.add_patch(
            FancyBboxPatch(
                (x - 0.14, y - 0.42),
                0.28,
                0.84,
                boxstyle="round,pad=0.01",
                mutation_aspect=9,
                facecolor="#eef2ff",
                edgecolor="#4f46e5",
                zorder=2,
            )
        )
        axes.text(x, y + 0.2, room, ha="center", va="center", weight="bold", size=11, zorder=3)
        axes.text(x, y - 0.13, "\n".join(lines), ha="center", va="center", size=8, zorder=3)
    axes.set(xlim=(0, 1), ylim=(0, 7.7))
    axes.axis("off")
    figure.tight_layout()
    figure.savefig(PICTURE)


if __name__ == "__main__":
    main()
