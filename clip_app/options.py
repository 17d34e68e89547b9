"""What to look for in a picture: one model, from which every face takes its parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from clip_app.errors import BadOption
from clip_app.labels import (
    DEFAULT_TEMPLATE,
    REQUEST_GROUP,
    LabelGroup,
    choose_groups,
    request_group,
    split_labels,
)

__all__ = ["MAX_TOP_K", "Asked", "CollectionOptions", "ExplainOptions", "Options", "SearchOptions"]

Question = TypeVar("Question", bound="Asked")

DEFAULT_TOP_K = 5
MAX_TOP_K = 1000


def _number(value: Any, least: float, most: float, advice: str) -> float | None:
    """Read a number of a form or of JSON; nothing is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number <= most:
        raise ValueError(advice)
    return number


class Asked(BaseModel):
    """What every question has in common: unknown fields are refused, names come as texts or lists, numbers as texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("groups", "labels", mode="before", check_fields=False)
    @classmethod
    def _names(cls, value: Any) -> tuple[str, ...] | None:
        """Take one text that names several, or a list of texts that name one each."""
        if value is None:
            return None
        if isinstance(value, str):
            return split_labels(value)
        if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
            raise ValueError("names are a list of texts, or one text with commas")
        return tuple(value)

    @field_validator("top_k", mode="before", check_fields=False)
    @classmethod
    def _whole_number(cls, value: Any) -> int | None:
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        try:
            if isinstance(value, bool) or float(value) != int(float(value)):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise ValueError("it must be a whole number") from None
        if not 1 <= int(float(value)) <= MAX_TOP_K:
            raise ValueError(f"it must be from 1 to {MAX_TOP_K}")
        return int(float(value))

    @classmethod
    def of(cls: type[Question], **given: Any) -> Question:
        """Make options of what a client sent.

        Raises:
            BadOption: naming the option and what it takes.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            problem = error.errors()[0]
            named = "".join(f"{part}: " for part in problem["loc"])
            raise BadOption(f"{named}{problem['msg'].removeprefix('Value error, ')}.") from None


class Options(Asked):
    """What to look for. With neither groups nor labels, the model's default groups."""

    groups: tuple[str, ...] | None = Field(
        None,
        title="Label groups",
        description="Names of label groups, such as objects, scenes, content; by default the model's own choice.",
        examples=[["objects"]],
    )
    labels: tuple[str, ...] | None = Field(
        None,
        title="Your own labels",
        description="Your own labels, as a list or separated by commas.",
        examples=[["cup of coffee", "teapot"]],
    )
    template: str | None = Field(
        None,
        title="Prompt",
        description=f"The prompt of your own labels, with {{}} where the label goes, such as: {DEFAULT_TEMPLATE}",
        examples=[DEFAULT_TEMPLATE],
    )
    independent: bool = Field(
        False,
        title="Score alone",
        description="Score each label alone instead of against the others.",
        examples=[False],
    )
    top_k: int | None = Field(
        None, title="Labels per group", description="Labels per group, best first; 5, or all of your own.", examples=[3]
    )
    threshold: float | None = Field(
        None,
        title="Least confidence",
        description="The least confidence, from 0 to 1, of the labels that are returned; without it, all are.",
        examples=[0.2],
    )

    embedding: bool = Field(
        False,
        title="Embedding",
        description="Send the picture's unit embedding, too: float32, little-endian, in base64.",
        examples=[False],
    )

    @field_validator("threshold", mode="before")
    @classmethod
    def _share(cls, value: Any) -> float | None:
        return _number(value, 0, 1, "it must be a number from 0 to 1, such as 0.2")

    def resolve(self, groups: Mapping[str, LabelGroup], default_groups: tuple[str, ...]) -> list[LabelGroup]:
        """Return the groups to score.

        Raises:
            BadOption: a group, a label or the template cannot be used.
        """
        brought = [request_group(self.labels, self.template)] if self.labels is not None else []
        if self.groups is not None:
            return choose_groups(groups, self.groups) + brought
        return brought or choose_groups(groups, default_groups)

    def limit(self, group: LabelGroup) -> int:
        """How many labels to return: all that came with the request, else the best five."""
        if self.top_k is not None:
            return self.top_k
        return len(group.labels) if group.name == REQUEST_GROUP else DEFAULT_TOP_K


class ExplainOptions(Asked):
    """Which label to look for in a picture, and what to tell it apart from."""

    label: str = Field(
        title="Label",
        description="What to look for, in a few words: the one label that the map is about.",
        examples=["cup of coffee"],
    )
    labels: tuple[str, ...] | None = Field(
        None,
        title="Other labels",
        description="Labels to tell it apart from, as a list or separated by commas; the label itself may be there.",
        examples=[["teapot", "plate"]],
    )
    group: str | None = Field(
        None,
        title="Label group",
        description="A label group to tell it apart from; by default the one that has the label, else the model's own.",
        examples=["objects"],
    )
    template: str | None = Field(
        None,
        title="Prompt",
        description=f"The prompt of labels that are in no group, with {{}} where the label goes: {DEFAULT_TEMPLATE}",
        examples=[DEFAULT_TEMPLATE],
    )
    format: Literal["png", "json"] = Field(
        "png",
        title="Form of the answer",
        description="png lays the map over the picture; json gives it as rows of numbers from 0 to 1.",
        examples=["json"],
    )

    @field_validator("label")
    @classmethod
    def _tidy_label(cls, value: str) -> str:
        if not (label := " ".join(value.split())):
            raise ValueError("it is empty; name what to look for")
        return label

    @model_validator(mode="after")
    def _one_of_two(self) -> ExplainOptions:
        if self.labels is not None and self.group is not None:
            raise ValueError("labels and group: one of the two, or neither")
        return self


class SearchOptions(Asked):
    """What to look for in many pictures."""

    query: str = Field(
        title="Query",
        description="What the pictures should show, in a few words.",
        examples=["a cup of coffee"],
    )
    top_k: int | None = Field(
        None,
        title="Pictures",
        description="How many pictures to return, the best first; by default all.",
        examples=[10],
    )


class CollectionOptions(Asked):
    """What to look for in a collection; a picture may come beside it."""

    collection: str = Field(
        title="Collection",
        description="The collection to search: one of those that the operator offers.",
        examples=["home"],
    )
    text: str | None = Field(
        None,
        title="Text",
        description="What the pictures should show, in a few words.",
        examples=["a dog on a beach"],
    )
    top_k: int | None = Field(
        None,
        title="Pictures",
        description="How many pictures to return at most, the best first; 20.",
        examples=[10],
    )
    above: float | None = Field(
        None,
        title="Least score",
        description="Return all of at least this score, from -1 to 1, relevant or not; by default those that fit.",
        examples=[0.2],
    )

    @field_validator("text", mode="before")
    @classmethod
    def _nothing(cls, value: Any) -> Any:
        """A field that a form sends empty is none."""
        return None if isinstance(value, str) and not value.strip() else value

    @field_validator("above", mode="before")
    @classmethod
    def _cosine(cls, value: Any) -> float | None:
        return _number(value, -1, 1, "it must be a number from -1 to 1, such as 0.2")
