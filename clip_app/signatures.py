"""Function signatures made of a model's fields, so that a face needs no list of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

__all__ = ["keyword_parameters", "with_signature"]

Function = TypeVar("Function", bound=Callable[..., Any])


def keyword_parameters(
    model: type[BaseModel], names: Iterable[str], annotate: Callable[[str, FieldInfo], Any]
) -> Iterator[inspect.Parameter]:
    """Yield a keyword for each named field, annotated as the face needs it; one without a default is required."""
    for name in names:
        field = model.model_fields[name]
        kind = inspect.Parameter.KEYWORD_ONLY
        default = inspect.Parameter.empty if field.is_required() else field.default
        yield inspect.Parameter(name, kind, default=default, annotation=annotate(name, field))


def with_signature(
    function: Function, parameters: Iterable[inspect.Parameter], returns: Any = inspect.Signature.empty
) -> Function:
    """Let a function that takes any keywords tell these parameters to whoever asks it."""
    listed = list(parameters)
    function.__signature__ = inspect.Signature(listed, return_annotation=returns)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in listed}
    if returns is not inspect.Signature.empty:
        function.__annotations__["return"] = returns
    return function
