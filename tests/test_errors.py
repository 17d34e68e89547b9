from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from clip_app.errors import EXIT_CODES, ClipAppError, HubError, error_classes

DOCS = Path(__file__).parent.parent / "docs" / "errors.md"
KINDS = list(error_classes())
TABLE = re.compile(r"<!-- table -->\n(.*)<!-- end -->", re.S)


def row(kind: type[ClipAppError]) -> str:
    codes = ", ".join(str(code) for code in EXIT_CODES.values()) if kind is HubError else str(made(kind).exit_code)
    what = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return f"| `{kind.code}` | {kind.status} | {codes} | {what} | {kind.advice} |\n"


def made(kind: type[ClipAppError]) -> ClipAppError:
    return HubError("tls", "Do this.") if issubclass(kind, HubError) else kind("Do this.")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_status_and_the_outcome_say_whose_turn_it_is(kind: type[ClipAppError]) -> None:
    """The client's below 500, the server's at 500, and at 503 whoever waits."""
    expected = {503: "rejected", 500: "error"}.get(kind.status, "invalid")
    assert kind.outcome == expected
    assert 400 <= kind.status < 600
    assert (kind.retry_after is not None) is (kind.outcome == "rejected")
    assert made(kind).message == "Do this."
    assert made(kind).exit_code > 0


def test_every_kind_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_says_what_to_change(kind: type[ClipAppError]) -> None:
    assert kind.advice.endswith(".")
    assert kind.__doc__
    assert "/" not in kind.advice.replace("/readyz", ""), "no path of a server"


def test_the_documentation_has_a_row_for_every_kind() -> None:
    """make docs writes it."""
    head = "| code | HTTP status | exit code | what it is | what to change |\n|---|---|---|---|---|\n"
    table = head + "".join(map(row, KINDS))
    if os.environ.get("CLIP_TESTS_WRITE_DOCS"):
        DOCS.write_text(TABLE.sub(lambda _: f"<!-- table -->\n{table}<!-- end -->", DOCS.read_text()))
    assert f"<!-- table -->\n{table}<!-- end -->" in DOCS.read_text()


@pytest.mark.parametrize(("reason", "code"), EXIT_CODES.items())
def test_the_hubs_error_exits_by_its_reason(reason: str, code: int) -> None:
    assert HubError(reason, "Do this.").exit_code == code  # type: ignore[arg-type]
