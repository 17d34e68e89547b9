"""What the page shows of a result and of the model's state, as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from clip_app.errors import ClipAppError
from clip_app.labels import LabelGroup
from clip_app.results import AnalysisResult, GroupResult, ModelInfo, Timings
from clip_app.status import LoadStatus, describe

__all__ = ["HEADER", "error_html", "result_html", "status_html", "waiting_html"]

HEADER = """<header class="ca-header"><h1>What is in this picture?</h1>
<p>Drop a photograph. CLIP compares it with hundreds of labels and shows what fits best.</p></header>"""


def result_html(result: AnalysisResult, groups: Mapping[str, LabelGroup]) -> str:
    """Draw a result as score bars per group, with the model and the times below."""
    blocks = [
        _group(group, groups[group.name].title if group.name in groups else "Your labels") for group in result.groups
    ]
    size = f"{result.image.width} x {result.image.height} pixels"
    return (
        f'<section class="ca-results" aria-live="polite">{"".join(blocks)}'
        f'<p class="ca-foot">{_model(result.model)} &middot; {size} &middot; {_times(result.timings_ms)}<br>'
        "A score compares the labels of its group with each other; it is not the probability of being right."
        "</p></section>"
    )


def error_html(error: ClipAppError, request_id: str) -> str:
    """Say what is wrong with the picture or the options, what to do, and what to ask the operator about."""
    return (
        f'<div class="ca-banner ca-bad" role="alert">{escape(error.message)}'
        f'<div class="ca-request">Request {escape(request_id)}</div></div>'
    )


def waiting_html() -> str:
    """Stand where the result will be."""
    return '<p class="ca-empty">The labels that fit best appear here.</p>'


def status_html(status: LoadStatus, model: ModelInfo | None) -> str:
    """Say how far the model is, or that it is only the demonstration model."""
    if status.phase == "failed":
        return _banner("ca-bad", "No model.", f"{describe(status)} The server's log says more.")
    if model is None:
        done = f'<span class="ca-track"><span class="ca-fill" style="width:{status.progress:.0%}"></span></span>'
        moving = done if status.phase in ("fetching", "labels") else ""
        return _banner("ca-busy", "Getting ready.", describe(status), moving)
    if not status.verified:
        text = (
            "The model came without verified certificates; its files match their pinned hashes. Set CLIP_APP_CA_BUNDLE."
        )
        return _banner("ca-warn", "Unverified TLS.", text)
    if not model.bundled and status.left_out:
        return _banner("ca-busy", f"{model.engine} in {model.precision} serves.", f"Left: {' '.join(status.left_out)}")
    if not model.bundled:
        return ""
    why = f" It serves because: {status.reason}" if status.reason else ""
    return _banner(
        "ca-warn",
        "Demonstration model.",
        f"It comes with the app and knows some 1,000 everyday things. People, moods, styles and most places are "
        f"beyond it.{why}",
    )


def _banner(kind: str, title: str, text: str, extra: str = "") -> str:
    return f'<div class="ca-banner {kind}" role="status"><strong>{title}</strong> {escape(text)}{extra}</div>'


def _group(group: GroupResult, title: str) -> str:
    rows = [_row(score.label, score.confidence, f"similarity {score.similarity:.3f}") for score in group.labels]
    rows.append(_row("none of these", group.no_match, "share of the prompts that name nothing", " ca-none"))
    return f'<div class="ca-group" data-group="{escape(group.name)}"><h3>{escape(title)}</h3>{"".join(rows)}</div>'


def _row(label: str, share: float, hint: str, kind: str = "") -> str:
    percent = 100 * share
    return (
        f'<div class="ca-row{kind}" title="{escape(hint)}"><span class="ca-label">{escape(label)}</span>'
        f'<span class="ca-track" role="meter" aria-label="{escape(label)}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{percent:.1f}"><span class="ca-fill" style="width:{percent:.2f}%"></span></span>'
        f'<span class="ca-value">{percent:.1f} %</span></div>'
    )


def _model(model: ModelInfo) -> str:
    revision = model.revision[:7] if len(model.revision) == 40 else model.revision
    return f"{escape(model.id)} ({escape(revision)}), {escape(model.engine)} {escape(model.precision)}"


def _times(times: Timings) -> str:
    parts = {
        "decode": times.decode + times.preprocess,
        "queue": times.queue,
        "encode": times.encode,
        "score": times.score,
    }
    return f"{times.total:.0f} ms: " + ", ".join(f"{name} {ms:.0f}" for name, ms in parts.items())
