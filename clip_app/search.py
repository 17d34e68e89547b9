"""Search among pictures that came with the question: ranked by a text, with the pairs that are nearly the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, Field

from clip_app.analyzer import Embedded, TextQuery
from clip_app.batch import Pace
from clip_app.options import SearchOptions
from clip_app.ranking import near_duplicates
from clip_app.results import FailedImage, ImageInfo

__all__ = ["Match", "Pair", "Search", "SearchAnswer", "Unusable"]


class Match(BaseModel):
    """A picture by the query."""

    index: int = Field(description="Its place among the pictures as they were sent, from 0; those in archives count.")
    image: ImageInfo
    score: float = Field(description="Cosine of the picture's and the query's embedding.")
    relevant: bool = Field(description="Whether the query fits it better than prompts that name nothing.")


class Unusable(FailedImage):
    """A picture that could not be searched."""

    index: int = Field(description="Its place among the pictures as they were sent, from 0.")


class Pair(BaseModel):
    """Two pictures that are nearly the same."""

    indices: tuple[int, int] = Field(description="Their places among the pictures as they were sent, from 0.")
    cosine: float = Field(description="Cosine of their embeddings.")


class SearchAnswer(BaseModel):
    """Pictures by a query, best first. Until ``done`` is ``total`` it says how far it is, and the lists are empty."""

    query: str
    done: int = Field(description="Pictures that were looked at.")
    total: int = Field(description="Pictures in the files that were sent, those in archives too.")
    results: list[Match] = Field([], description="The best first, as many as were asked for.")
    errors: list[Unusable] = Field([], description="Pictures that could not be used.")
    duplicates: list[Pair] = Field([], description="Pairs that are nearly the same, the nearest first.")


@dataclass(frozen=True)
class Search:
    """A question, its text as the model understands it, and how many pictures it is about."""

    asked: SearchOptions
    query: TextQuery
    total: int

    def updates(self, rows: Iterable[Embedded | FailedImage | None]) -> Iterator[SearchAnswer]:
        """Say how far it is as embeddings come, and at last what was found; None says that nothing came."""
        seen: dict[int, Embedded] = {}
        errors: list[Unusable] = []
        pace, done = Pace(), 0
        for row in rows:
            if isinstance(row, Embedded):
                seen[done] = row
            elif row is not None:
                errors.append(Unusable(index=done, **row.model_dump()))
            done += row is not None
            if done < self.total and pace.due(silent=row is None):
                yield SearchAnswer(query=self.asked.query, done=done, total=self.total)
        yield self._answer(seen, errors)

    def answer(self, rows: Iterable[Embedded | FailedImage]) -> SearchAnswer:
        """Say what was found among pictures that are all embedded."""
        *_, last = self.updates(rows)
        return last

    def _answer(self, seen: dict[int, Embedded], errors: list[Unusable]) -> SearchAnswer:
        answer = SearchAnswer(query=self.asked.query, done=self.total, total=self.total, errors=errors)
        if not seen:
            return answer
        indices = list(seen)
        rows = np.stack([embedded.embedding for embedded in seen.values()])
        ranking = self.query.rank(rows)
        for i in ranking.order[: self.asked.top_k]:
            found = seen[indices[i]]
            relevant = bool(ranking.relevant[i]) and not found.flat
            score = round(float(ranking.scores[i]), 6)
            answer.results.append(Match(index=indices[i], image=found.image, score=score, relevant=relevant))
        pairs = near_duplicates(rows)
        for (one, other), cosine in zip(pairs.indices, pairs.cosines, strict=True):
            answer.duplicates.append(Pair(indices=(indices[one], indices[other]), cosine=round(float(cosine), 6)))
        return answer
