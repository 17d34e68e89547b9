from __future__ import annotations

import pytest

from clip_app import errors
from clip_app.errors import AppError


def kinds() -> list[type[AppError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AppError)]


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_the_status_and_the_outcome_say_whose_turn_it_is(kind: type[AppError]) -> None:
    """The client's below 500, the server's at 500, and at 503 whoever waits."""
    expected = {503: "rejected", 500: "error"}.get(kind.status, "invalid")
    assert kind.outcome == expected
    assert 400 <= kind.status < 600
    assert (getattr(kind, "retry_after", 0) > 0) is (kind.outcome == "rejected")
    assert kind("Do this.").message == "Do this."


def test_every_kind_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in kinds()]
    assert len(set(codes)) == len(codes)
