"""A label and what it is told apart from, as a direction in the joint space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clip_app.labels import REQUEST_GROUP, LabelGroup, choose_groups, request_group
from clip_app.options import ExplainOptions

if TYPE_CHECKING:
    from clip_app.bank import LabelBank

__all__ = ["Contrast", "Direction"]

Direction = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Contrast:
    """A label, the group whose prompts it is put into, and the groups of its rivals."""

    label: str
    own: LabelGroup
    rivals: tuple[LabelGroup, ...]

    @classmethod
    def of(cls, options: ExplainOptions, groups: Mapping[str, LabelGroup], default_groups: tuple[str, ...]) -> Contrast:
        """Find the rivals: the labels or the group that were sent, else the first group that has the label.

        A label that no group has is told apart from all labels that are asked by default.

        Raises:
            BadOption: there is no such group, or the label or template cannot be used.
        """
        alone = request_group([options.label], options.template)
        if options.labels is not None:
            own = request_group([options.label, *options.labels], options.template)
            return cls(own.labels[0], own, (own,))
        if options.group is not None:
            (group,) = choose_groups(groups, [options.group])
            return cls._within(alone, group)
        defaults = choose_groups(groups, default_groups)
        for group in (*defaults, *groups.values()):
            if _spelled(options.label, group) is not None:
                return cls._within(alone, group)
        return cls(options.label, alone, tuple(defaults))

    @classmethod
    def _within(cls, alone: LabelGroup, group: LabelGroup) -> Contrast:
        """Tell a label apart from a group's, by the group's prompts, whether it is one of them or not."""
        (label,) = alone.labels
        if (spelled := _spelled(label, group)) is not None:
            return cls(spelled, group, (group,))
        own = replace(group, name=REQUEST_GROUP, labels=(label,))  # kept like a request's, not for good
        return cls(label, own, (group,))

    def direction(self, bank: LabelBank) -> Direction:
        """Return the label's embedding minus the mean of its rivals', shape [D]; not of unit length.

        Where it has no rivals the neutral prompts take their place.
        """
        rows, neutral = bank.group(self.own)
        index = self.own.labels.index(self.label)
        others = [
            np.delete(rows, index, axis=0) if group is self.own else bank.group(group)[0] for group in self.rivals
        ]
        against = np.concatenate(others) if others and sum(map(len, others)) else neutral
        direction: Direction = rows[index] - against.mean(axis=0)
        return direction


def _spelled(label: str, group: LabelGroup) -> str | None:
    """Return a label as a group spells it, None where it is not there."""
    return next((own for own in group.labels if own.casefold() == label.casefold()), None)
