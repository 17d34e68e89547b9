"""Gradio, imported without what it does besides: reports, tables of events, and files of type stubs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["gradio"]

# Read when Gradio is imported: nothing is reported outside, no table is built after each event.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")


@contextmanager
def _no_stub_files() -> Iterator[None]:
    """Keep Gradio from writing a type stub beside each of its components: a third of its import.

    It asks where a component's source is, and goes on without a stub where there is none.
    """
    getfile = inspect.getfile

    def hide_components(thing: Any) -> str:
        if isinstance(thing, type) and thing.__module__.startswith("gradio."):
            raise OSError("no stubs are written")
        return getfile(thing)

    inspect.getfile = hide_components  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = getfile


with _no_stub_files():
    import gradio
