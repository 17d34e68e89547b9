"""The result, the same from every face."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from clip_app.errors import ClipAppError

__all__ = [
    "REFUSALS",
    "AnalysisResult",
    "Embedding",
    "ErrorBody",
    "ErrorDetail",
    "Explanation",
    "FailedImage",
    "GroupResult",
    "ImageInfo",
    "LabelScore",
    "ModelInfo",
    "Timings",
]


class ModelInfo(BaseModel):
    """Which checkpoint answered, and how it runs."""

    id: str
    revision: str
    engine: str
    precision: str
    bundled: bool = Field(description="True for the small demonstration model inside the package.")


class Warned(BaseModel):
    """Something with warnings, which are absent where there are none."""

    warnings: list[str] = Field(
        [], description="What was not as it should be and was answered all the same; or absent."
    )

    @model_serializer(mode="wrap")
    def _without_empty_warnings(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        if not self.warnings:
            del fields["warnings"]
        return fields


class ImageInfo(Warned):
    """The picture as it was understood, upright; the warnings say what was wrong with its file."""

    name: str
    width: int
    height: int


class LabelScore(BaseModel):
    """One label's scores."""

    label: str
    confidence: float = Field(description="Softmax within the group; not a probability of being right.")
    similarity: float = Field(description="Raw cosine of the image and the label embedding.")


class GroupResult(Warned):
    """The best labels of one group, best first; the warnings say which were not read as they stand."""

    name: str
    no_match: float = Field(description="Share of the prompts that name nothing.")
    labels: list[LabelScore]


class Timings(BaseModel):
    """Milliseconds spent in each stage."""

    decode: float = 0
    preprocess: float = 0
    queue: float = 0
    encode: float = 0
    score: float = 0
    total: float = 0


class Embedding(BaseModel):
    """A picture's unit embedding."""

    data: str = Field(description="float32, little-endian, in base64.")
    length: int = Field(description="How many numbers.")

    @classmethod
    def of(cls, vector: npt.NDArray[np.float32]) -> Embedding:
        """Write a vector, shape [D]."""
        return cls(data=base64.b64encode(vector.astype("<f4").tobytes()).decode(), length=len(vector))


class AnalysisResult(BaseModel):
    """What is in one picture."""

    model: ModelInfo
    image: ImageInfo
    groups: list[GroupResult]
    timings_ms: Timings
    embedding: Embedding | None = Field(None, description="Where it was asked for; or absent.")

    @model_serializer(mode="wrap")
    def _without_empty_embedding(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = serialize(self)
        if self.embedding is None:
            del fields["embedding"]
        return fields


class Explanation(BaseModel):
    """Where in a picture a label was seen."""

    model: ModelInfo
    image: ImageInfo
    label: str
    method: str = Field(description="How it was found, which depends on the model.")
    map: list[list[float]] = Field(
        description="Rows from the top, cells of one size over the whole upright picture, 0 to 1; its highest is 1."
    )
    timings_ms: Timings


class ErrorDetail(BaseModel):
    """What went wrong, and what to do."""

    code: str
    message: str
    request_id: str | None = Field(None, description="Also in the header X-Request-ID and in the server's log.")


class FailedImage(BaseModel):
    """Stands in the place of a picture that could not be analysed, among others that could."""

    image: dict[str, str]
    error: ErrorDetail

    @classmethod
    def of(cls, name: str, error: ClipAppError, request_id: str | None) -> FailedImage:
        """Say of a picture, by a name that is fit to be shown, what is wrong with it."""
        return cls(
            image={"name": name}, error=ErrorDetail(code=error.code, message=error.message, request_id=request_id)
        )


class ErrorBody(BaseModel):
    """Every error that is not about one picture among several."""

    error: ErrorDetail


# What any of the routes may answer instead, for its description.
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in (400, 401, 408, 413, 422, 429, 500, 503, 507)
}
