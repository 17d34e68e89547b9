"""How far the model is: what loading writes, and every face says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field

__all__ = ["LoadStatus", "Phase", "Readiness", "describe", "readiness"]

Phase = Literal["starting", "fetching", "converting", "loading", "labels", "warming up", "ready", "failed"]

SENTENCES: dict[Phase, str] = {
    "starting": "The model is about to load.",
    "fetching": "The model is being fetched from the Hub.",
    "converting": "The model is being converted for this machine, once.",
    "loading": "The model is being loaded.",
    "labels": "The labels are being embedded.",
    "warming up": "The model is warming up.",
    "ready": "The model is ready.",
    "failed": "No model could be loaded.",
}


@dataclass(frozen=True)
class LoadStatus:
    """How far loading is.

    ``done_bytes`` of ``total_bytes`` are there while the model is fetched.
    ``reason`` says why it failed, or why the bundled model serves; ``verified`` is False
    where the model came over a connection whose certificate was not verified; ``left_out``
    says which engines were tried and left, and why.
    """

    phase: Phase = "starting"
    progress: float = 0.0
    reason: str | None = None
    verified: bool = True
    left_out: tuple[str, ...] = ()
    done_bytes: int | None = None
    total_bytes: int | None = None

    @property
    def ready(self) -> bool:
        """True once a real inference was answered."""
        return self.phase == "ready"


class Readiness(BaseModel):
    """Whether the model has answered a real inference."""

    ready: bool
    phase: str
    progress: float = Field(description="Share of the phase that is done, 0 to 1.")
    done_bytes: int | None = Field(description="Of the model, while it is fetched.")
    total_bytes: int | None
    message: str
    reason: str | None = Field(description="Why loading failed, or why the bundled model serves.")
    left_out: list[str] = Field(description="Engines and precisions that were tried and left, each with the reason.")


def readiness(status: LoadStatus) -> Readiness:
    """Say how far the model is, as /readyz and /status do."""
    return Readiness(
        ready=status.ready,
        phase=status.phase,
        progress=round(status.progress, 3),
        done_bytes=status.done_bytes,
        total_bytes=status.total_bytes,
        message=describe(status),
        reason=status.reason,
        left_out=list(status.left_out),
    )


def describe(status: LoadStatus) -> str:
    """Say in a sentence how far loading is."""
    if status.phase == "failed" and status.reason:
        return f"No model could be loaded: {status.reason}"
    share = f" {status.progress:.0%} done." if status.phase in ("fetching", "labels") else ""
    return SENTENCES[status.phase] + share
