from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextvars import copy_context
from typing import TypeVar

import pytest

from clip_app.log import JsonFormatter, TextFormatter, configure_logging
from clip_app.middleware.request_id import RequestContext, enter
from clip_app.settings import load_settings

T = TypeVar("T")


def during(request_id: str, action: Callable[[], T]) -> T:
    """Do something while a request is answered."""

    def run() -> T:
        enter(RequestContext(request_id))
        return action()

    return copy_context().run(run)


def record(message: str, *args: object, error: BaseException | None = None, **fields: object) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    made = logging.getLogger("clip_app").makeRecord("clip_app", logging.INFO, "x.py", 1, message, args, exc_info)
    if fields:
        made.fields = fields
    return made


def broken(*, cause: bool = False, hidden: bool = False) -> Exception:
    """An error with a secret in it, raised for real, on top of another one where asked for."""
    try:
        if not cause and not hidden:
            raise ValueError("secret")
        try:
            raise KeyError("first secret")
        except KeyError as first:
            if hidden:
                raise ValueError("secret") from None
            raise ValueError("secret") from first
    except ValueError as error:
        return error


def test_a_json_line_says_when_who_what_and_its_fields() -> None:
    made = record("%d pictures", 3, endpoint="rest")
    made.created = 1_700_000_000.25
    assert json.loads(JsonFormatter().format(made)) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "info",
        "logger": "clip_app",
        "message": "3 pictures",
        "endpoint": "rest",
    }


def test_a_json_line_is_one_line_even_with_an_error_and_keeps_every_script() -> None:
    line = JsonFormatter().format(record("größer\n猫", error=broken()))
    assert "\n" not in line
    assert "größer\\n猫" in line
    assert "ValueError: secret" in json.loads(line)["exception"]
    assert "exception" not in json.loads(JsonFormatter().format(record("fine")))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(7, "7"), ("a/b:c@1.0+x-y", "a/b:c@1.0+x-y"), ("two words", '"two words"'), ('"', '"\\""'), ("", '""')],
)
def test_a_line_for_people_ends_with_its_fields_quoted_where_they_must_be(value: object, shown: str) -> None:
    line = TextFormatter().format(record("done", first=1, second=value))
    assert line.endswith(f" INFO clip_app: done first=1 second={shown}")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_every_line_names_the_request_that_is_being_answered(formatter: logging.Formatter) -> None:
    assert "request_id" not in formatter.format(record("idle"))
    line = during("seven", lambda: formatter.format(record("busy", endpoint="rest")))
    assert "request_id" in line
    assert "seven" in line
    assert "other" in during("seven", lambda: formatter.format(record("busy", request_id="other"))), "its own wins"


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_what_an_error_quotes_is_kept_back_while_a_request_is_answered(formatter: logging.Formatter) -> None:
    line = during("seven", lambda: formatter.format(record("failed", error=broken())))
    assert "secret" not in line.replace('raise ValueError("secret")', "").replace('raise ValueError(\\"secret\\")', "")
    assert "ValueError" in line
    assert "in broken" in line, "where it happened is told"


def test_the_errors_behind_an_error_are_told_first_but_not_those_it_hides() -> None:
    text = during("seven", lambda: TextFormatter().format(record("failed", error=broken(cause=True))))
    assert text.index("KeyError\n") < text.index("and then:") < text.rindex("ValueError")
    hidden = during("seven", lambda: TextFormatter().format(record("failed", error=broken(hidden=True))))
    assert "and then:" not in hidden
    assert hidden.endswith("ValueError")


def test_an_error_that_is_its_own_cause_is_told_once() -> None:
    error = broken()
    error.__cause__ = error
    text = during("seven", lambda: TextFormatter().format(record("failed", error=error)))
    assert text.endswith("ValueError")
    assert "and then:" not in text


def test_the_error_that_was_being_handled_is_told_as_well() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second")  # noqa: B904
    except ValueError as error:
        made = record("failed", error=error)
    assert "KeyError\n\nand then:" in during("seven", lambda: TextFormatter().format(made))


@pytest.fixture
def _own_logging() -> Iterator[None]:
    """Leave the logging of the test run as it was."""
    root, ours = logging.getLogger(), logging.getLogger("clip_app")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    root.handlers[:] = []
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.mark.usefixtures("_own_logging")
@pytest.mark.parametrize("kind", ["text", "json"])
def test_of_this_app_as_much_is_logged_as_asked_for_and_of_libraries_what_went_wrong(
    capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    configure_logging(load_settings(log_format=kind), "info")
    for name in ("clip_app", "some.library"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "%s said by %s", logging.getLevelName(level), name)
    out, err = capsys.readouterr()
    assert out == ""
    lines = [json.loads(line)["message"] if kind == "json" else line.split(": ")[1] for line in err.splitlines()]
    assert lines == ["INFO said by clip_app", "WARNING said by clip_app", "WARNING said by some.library"]


@pytest.mark.usefixtures("_own_logging")
def test_the_hub_clients_warnings_are_kept_quiet_and_nobody_elses() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        configure_logging(load_settings(), "info")
        for module in ("huggingface_hub.file_download", "other"):
            warnings.warn_explicit(f"from {module}", UserWarning, "x.py", 1, module=module)
    assert [str(warning.message) for warning in caught] == ["from other"]
    assert logging.getLogger().handlers[0].stream is sys.stderr  # type: ignore[attr-defined]
