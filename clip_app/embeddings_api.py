"""``POST /v1/embeddings``: embeddings of texts in the shape that OpenAI's clients send and read."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING, Literal

import anyio.to_thread
import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, field_validator

from clip_app.intake import Intake
from clip_app.loading import Loader
from clip_app.results import REFUSALS

if TYPE_CHECKING:
    from clip_app.serving import Serving

__all__ = ["embedding_routes"]

MOST_TEXTS = 256
LONGEST = 2000  # characters; a text encoder reads some hundred


class EmbeddingRequest(BaseModel):
    """What to embed."""

    model_config = ConfigDict(extra="forbid")

    input: str | list[str] = Field(
        description=f"A text, or up to {MOST_TEXTS}, each of 1 to {LONGEST:,} characters.",
        examples=["a photo of a cat."],
    )
    model: str | None = Field(None, description="Ignored: one model serves.")
    user: str | None = Field(None, description="Ignored.")
    encoding_format: Literal["float", "base64"] = Field("float", description="base64 is of float32, little-endian.")

    @field_validator("input", mode="before")
    @classmethod
    def _texts(cls, given: object) -> object:
        """One sentence for whatever is wrong, instead of one for each form that it could have had."""
        texts = given if isinstance(given, list) else [given]
        fitting = all(isinstance(text, str) and 1 <= len(text) <= LONGEST for text in texts)
        if not fitting or not 1 <= len(texts) <= MOST_TEXTS:
            raise ValueError(f"give a text, or 1 to {MOST_TEXTS} in a list, each of 1 to {LONGEST} characters")
        return given


class OneEmbedding(BaseModel):
    """The unit embedding of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """How much was read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """The embeddings, in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[OneEmbedding]
    model: str
    usage: Usage


def embedding_routes(loader: Loader, intake: Intake) -> APIRouter:
    """Build the route; a request takes one of the places of the pictures in the works."""
    router = APIRouter()

    @router.post("/v1/embeddings", responses=REFUSALS, tags=["embeddings"])
    async def embeddings(asked: EmbeddingRequest) -> EmbeddingResponse:
        """Embed texts into the space of the pictures' embeddings: unit vectors, to be compared by dot products.

        A text is embedded as it stands. As a query for photographs, "a photo of a {}." around it does better.
        """
        return await anyio.to_thread.run_sync(partial(_embed, loader, intake, asked))

    return router


def _embed(loader: Loader, intake: Intake, asked: EmbeddingRequest) -> EmbeddingResponse:
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    with intake.place():
        serving: Serving = loader.serving()
        rows = serving.bank.encode_texts(texts)
    tokens = sum(len(text.ids) for text in serving.model.read_texts(texts))
    data = [OneEmbedding(index=i, embedding=_written(row, asked.encoding_format)) for i, row in enumerate(rows)]
    usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
    return EmbeddingResponse(data=data, model=serving.model.info.id, usage=usage)


def _written(row: np.ndarray[tuple[int], np.dtype[np.float32]], form: str) -> list[float] | str:
    if form == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return [float(value) for value in row]
