"""What a person is told first: the best match, how sure it is, or that nothing here matches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, Field

from clip_app.labels import REQUEST_GROUP
from clip_app.results import GroupResult

__all__ = ["Verdict", "verdict"]

Level = Literal["clear", "unsure", "none"]
# More than all other labels of the group and its neutral prompts together.
CLEAR = 0.5


class Verdict(BaseModel):
    """The best label of all groups."""

    level: Level = Field(description="none: in every group the prompts that name nothing fit better.")
    group: str | None = None
    label: str | None = None
    confidence: float | None = Field(None, description="A share within its group, not a probability of being right.")


def verdict(groups: Iterable[GroupResult]) -> Verdict:
    """Choose among the groups whose best label beats their neutral prompts; a visitor's own labels go first."""
    matching = [group for group in groups if group.labels and group.labels[0].confidence >= group.no_match]
    if not matching:
        return Verdict(level="none")
    best = max(matching, key=lambda group: (group.name == REQUEST_GROUP, group.labels[0].confidence))
    first = best.labels[0]
    level: Level = "clear" if first.confidence >= CLEAR else "unsure"
    return Verdict(level=level, group=best.name, label=first.label, confidence=first.confidence)
