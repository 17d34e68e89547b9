"""Form fields to options: those of a row and no others, several fields of a name as one list."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

from fastapi import Form, Request
from pydantic.fields import FieldInfo

from clip_app.endpoints import Endpoint
from clip_app.errors import BadOption
from clip_app.labels import split_labels
from clip_app.options import Asked
from clip_app.signatures import keyword_parameters, with_signature

__all__ = ["form_options", "known_fields"]

NAME_LISTS = ("groups", "labels")

Question = TypeVar("Question", bound=Asked)


def form_options(endpoint: Endpoint, model: type[Question]) -> Callable[..., Awaitable[Question]]:
    """Make the dependency that reads an endpoint's options, fields of ``model``, from a form."""

    async def read(request: Request, **fields: Any) -> Question:
        form = await request.form()  # read already
        for name in NAME_LISTS:
            if name in form:
                fields[name] = [part for text in form.getlist(name) for part in split_labels(str(text))]
        return model.of(**fields)

    def annotate(name: str, field: FieldInfo) -> Any:
        kind = (list[str] | None) if name in NAME_LISTS else field.annotation
        return Annotated[kind, Form(description=field.description)]

    request = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)
    return with_signature(read, [request, *keyword_parameters(model, endpoint.options, annotate)])


def known_fields(endpoint: Endpoint) -> Callable[..., Awaitable[None]]:
    """Make the dependency that refuses a field that is none, before any is found to be missing.

    Whoever misspells one would get an answer to another question. It raises BadOption, naming
    the field and the nearest that there is.
    """
    known = ("image", *endpoint.options)

    async def check(request: Request) -> None:
        for name in await request.form():  # those that are empty, too
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise BadOption(f"There is no field {name[:40]!r}.{hint} There are: {', '.join(known)}.")

    return check
