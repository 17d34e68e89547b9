"""Pictures in the background give way to others, and wait where others are refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from clip_app.errors import Busy
from clip_app.intake import Intake
from clip_app.settings import load_settings

PATIENCE = 30  # seconds, to end a hang
SHORT = 0.2  # in which nothing happens


@contextmanager
def in_background(intake: Intake) -> Iterator[threading.Event]:
    """Ask for a place in the background; the event says that it was given."""
    given, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with intake.place(background=True):
            given.set()
            leave.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield given
    finally:
        leave.set()
        thread.join(PATIENCE)


def test_the_background_waits_while_others_have_pictures_in_the_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_app.intake.GIVE_WAY_SECONDS", PATIENCE)
    intake = Intake(load_settings(queue_size=4), decoders=2)
    with intake.place():
        waiting = in_background(intake)
        given = waiting.__enter__()
        assert not given.wait(SHORT)
    assert given.wait(PATIENCE)
    waiting.__exit__(None, None, None)


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_app.intake.GIVE_WAY_SECONDS", 0.01)
    intake = Intake(load_settings(queue_size=4), decoders=2)
    with intake.place(), in_background(intake) as given:
        assert given.wait(PATIENCE)


def test_where_there_is_no_place_the_background_waits_and_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_app.intake.GIVE_WAY_SECONDS", 0.01)
    intake = Intake(load_settings(queue_size=1), decoders=2)
    with in_background(intake) as first:
        assert first.wait(PATIENCE)
        with pytest.raises(Busy), intake.place():
            pass
        second = in_background(intake)
        given = second.__enter__()
        assert not given.wait(SHORT)
    assert given.wait(PATIENCE)
    second.__exit__(None, None, None)
