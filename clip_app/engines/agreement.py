"""How far an int8 conversion agrees with the model that it was made of, and whether that is enough to serve it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LEAST_MEAN_COSINE", "LEAST_SAME_LABEL", "Agreement"]

LEAST_MEAN_COSINE = 0.995
LEAST_SAME_LABEL = 0.98


@dataclass(frozen=True)
class Agreement:
    """Image embeddings of int8 beside float32's, of photographs that it was not calibrated on and of crops of them.

    ``same_label`` is the share of pictures whose best label, of the objects, is the same.
    """

    photographs: int
    pictures: int
    mean_cosine: float
    least_cosine: float
    same_label: float

    @property
    def enough(self) -> bool:
        """Whether it may serve."""
        return self.mean_cosine >= LEAST_MEAN_COSINE and self.same_label >= LEAST_SAME_LABEL

    def told(self) -> str:
        """Say the figures, with what is wanted of them."""
        return (
            f"same best label {self.same_label:.1%} ({LEAST_SAME_LABEL:.0%} wanted), "
            f"cosine to float32 {self.mean_cosine:.4f} on average ({LEAST_MEAN_COSINE} wanted) and "
            f"{self.least_cosine:.4f} at least, over {self.pictures} pictures from {self.photographs} photographs that "
            "it was not calibrated on"
        )
