"""What the page shows of a result and of the model's state, as HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from clip_app.errors import ClipAppError
from clip_app.labels import LabelGroup
from clip_app.loading import LoadStatus, describe
from clip_app.results import AnalysisResult, GroupResult, ModelInfo, Timings

__all__ = ["HEADER", "STYLE", "error_html", "result_html", "status_html", "waiting_html"]

HEADER = """<header class="ca-header"><h1>What is in this picture?</h1>
<p>Drop a photograph. CLIP compares it with hundreds of labels and shows what fits best.</p></header>"""

STYLE = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
:root { --ca-quiet: #5b6b82; }
.dark { --ca-quiet: #a3b1c6; }
.ca-header h1 { font-size: 1.9rem; font-weight: 700; margin: .6rem 0 .1rem; }
.ca-header p { color: var(--ca-quiet); margin: 0; }
footer .divider { display: none !important; }
.ca-banner { border-radius: 10px; padding: .7rem 1rem; border: 1px solid; font-size: .95rem; line-height: 1.45; }
.ca-banner strong { font-weight: 700; color: inherit; }
.ca-warn { background: #fff4d6; border-color: #d99a00; color: #5a3d00; }
.ca-bad { background: #fde4e4; border-color: #c62828; color: #6d1313; }
.ca-request { font-size: .8rem; opacity: .75; overflow-wrap: anywhere; }
.ca-busy { background: #e6edff; border-color: #5b7bdb; color: #1d2f66; }
.ca-busy .ca-track { margin-top: .45rem; background: #c9d6fb; }
.ca-group { margin: 0 0 1.15rem; }
.ca-group h3 { font-size: .82rem; letter-spacing: .06em; text-transform: uppercase; font-weight: 600;
  color: var(--ca-quiet); margin: 0 0 .35rem; }
.ca-row { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr) 3.7rem; gap: .8rem; align-items: center;
  padding: .2rem 0; }
.ca-label { overflow-wrap: anywhere; line-height: 1.2; }
.ca-row:first-of-type .ca-label { font-weight: 650; }
.ca-track { display: block; height: .72rem; border-radius: 6px; overflow: hidden;
  background: var(--border-color-primary); }
.ca-fill { display: block; height: 100%; border-radius: 6px; background: linear-gradient(90deg, #6366f1, #22a6c9); }
.ca-none .ca-label { color: var(--ca-quiet); font-style: italic; font-weight: 400 !important; }
.ca-none .ca-fill { background: #94a3b8; }
.ca-value { text-align: right; font-variant-numeric: tabular-nums; }
.ca-foot, .ca-empty { color: var(--ca-quiet); font-size: .86rem; line-height: 1.5; }
.ca-foot { border-top: 1px solid var(--border-color-primary); padding-top: .6rem; overflow-wrap: anywhere; }
.ca-empty { font-size: 1rem; text-align: center; padding: 3.5rem 1rem; border-radius: 12px;
  border: 1px dashed var(--border-color-primary); }
"""


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
    if not model.bundled:
        return ""
    why = f" It serves because: {status.reason}" if status.reason else ""
    return _banner(
        "ca-warn",
        "Demonstration model.",
        f"A small model inside the package answers. It knows the kinds of thing in its own group and guesses at "
        f"every other word.{why}",
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
