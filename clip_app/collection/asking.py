"""Words and a picture to a question that a collection can be asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clip_app.analyzer import Analyzer
from clip_app.collection.searching import Question
from clip_app.errors import BadOption
from clip_app.observation import Observation

__all__ = ["ask"]


def ask(
    analyzer: Analyzer,
    observation: Observation,
    *,
    text: str | None = None,
    picture: bytes | None = None,
    without: Sequence[str] = (),
) -> Question:
    """Embed what a collection is searched by: a text, a picture or both, less texts of what is not to be seen.

    Raises:
        BadOption: there is neither text nor picture, or one is too long.
        UndecodableImage, ImageTooLarge: the picture cannot be used.
        NotReady, Busy: not now.
    """
    if text is None and picture is None:
        raise BadOption("There is nothing to search by. Give a text, a picture, or both.")
    wanted = analyzer.query(text) if text is not None else None
    unwanted = [analyzer.query(each).embedding for each in without]
    seen = analyzer.embed(picture, observation).embedding if picture is not None else None
    return Question(text=wanted, picture=seen, without=np.stack(unwanted) if unwanted else None)
