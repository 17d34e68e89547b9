"""The tables of docs/performance.md, from the results."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["write_report"]


def write_report(results: Mapping[str, Any], path: Path) -> None:
    """Put the tables between the marks of the page; what people wrote around them stays."""
    text = path.read_text(encoding="utf-8")
    for mark, table in (("table", _table(results)), ("agreement", _agreement(results["agreement"]))):
        block = f"<!-- {mark} -->\n{table}\n<!-- end of {mark} -->"
        block = block.replace("\\", r"\\")  # re.sub reads escapes
        text = re.sub(rf"<!-- {mark} -->.*<!-- end of {mark} -->", block, text, flags=re.S)
    path.write_text(text, encoding="utf-8")


def _table(results: Mapping[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['cpus']} CPUs ({machine['processor']}, bfloat16: {'yes' if machine['bfloat16'] else 'no'}), "
        f"{machine['memory_gb']} GB, Python {machine['python']}, {versions}. "
        f"Medians, the spread of the rounds in brackets; the run took {results['minutes']} minutes.",
        "",
        "| measured by turns | clip_app | peer | | ratio | wanted | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        sign = "≤" if row["at_most"] else "≥"
        cells = (
            row["name"],
            _side(row["ours"], row["unit"]),
            row["peer_name"],
            _side(row["peer"], row["unit"]),
            f"**{row['ratio']:.2f}**",
            f"{sign} {row['target']:g}",
            "met" if row["met"] else "**not met**",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _side(side: Mapping[str, float], unit: str) -> str:
    digits = 2 if unit == "s" else 0 if side["median"] >= 100 else 1
    text = f"{side['median']:,.{digits}f} {unit}"
    if side["least"] != side["most"]:
        text += f" ({side['least']:,.{digits}f} to {side['most']:,.{digits}f})"
    return text


NAMED = ("model", "engine", "precision", "decode")


def _agreement(rows: list[Mapping[str, Any]]) -> str:
    lines = [
        "| model | engine | precision | decode | mean cosine | least | same best label | same best five |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        labels = (f"{row['same_top_1']:.0%}", f"{row['same_top_5']:.0%}") if "same_top_1" in row else ("", "")
        cosines = (f"{row['mean_cosine']:.5f}", f"{row['least']:.5f}")
        lines.append(f"| {' | '.join((*(row[name] for name in NAMED), *cosines, *labels))} |")
    return "\n".join(lines)
