"""Whose turn it is: whoever had least, few before many, and nobody waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from typing import TypeVar

import pytest

from clip_app.errors import Busy
from clip_app.middleware.request_id import RequestContext, enter
from clip_app.turns import HALF_LIFE, HOUSE, Ledger, Turns, asking, due_within, seconds_left

PATIENCE = 30
Answer = TypeVar("Answer")


def as_client(pool: ThreadPoolExecutor, client: str, work: Callable[[], Answer]) -> Future[Answer]:
    """Do the work in a thread, for a client."""

    def run() -> Answer:
        enter(RequestContext(client=client))
        return work()

    return pool.submit(copy_context().run, run)


@contextmanager
def held(turns: Turns) -> Iterator[None]:
    """Hold the only turn, until whoever is to wait does."""
    with turns.turn():
        yield


def until_waiting(turns: Turns, count: int) -> None:
    waited = threading.Event()
    for _ in range(PATIENCE * 100):
        if len(turns._waiting) == count:
            return
        waited.wait(0.01)
    raise AssertionError(f"{len(turns._waiting)} wait instead of {count}")


def in_turn(turns: Turns, *tickets: tuple[str, float]) -> list[str]:
    """Let clients with costs ask in this order while the turn is held; the order in which they got it."""
    order: list[str] = []
    with ThreadPoolExecutor(len(tickets)) as pool:

        def take(name: str, cost: float) -> None:
            with turns.turn(cost):
                order.append(name)

        with held(turns):
            for count, (client, cost) in enumerate(tickets, 1):
                as_client(pool, client, lambda client=client, cost=cost: take(client, cost))  # type: ignore[misc]
                until_waiting(turns, count)
    return order


def test_among_equals_whoever_came_first_is_first() -> None:
    assert in_turn(Turns(Ledger()), ("a", 0), ("b", 0), ("c", 0)) == ["a", "b", "c"]


def test_whoever_had_much_comes_after_whoever_had_little() -> None:
    ledger = Ledger()
    ledger.add("greedy", 5.0)
    assert in_turn(Turns(ledger), ("greedy", 0), ("greedy", 0), ("polite", 0)) == ["polite", "greedy", "greedy"]


def test_a_small_request_comes_before_a_large_one_of_somebody_else() -> None:
    assert in_turn(Turns(Ledger()), ("one", 9.0), ("other", 0.02)) == ["other", "one"]


def test_what_the_house_does_by_itself_comes_last() -> None:
    assert in_turn(Turns(Ledger()), (HOUSE, 0), ("visitor", 9.0)) == ["visitor", HOUSE]


def test_what_was_taken_is_counted_and_forgotten_by_halves() -> None:
    now = [100.0]
    ledger = Ledger(clock=lambda: now[0])
    ledger.add("a", 8.0)
    now[0] += HALF_LIFE
    assert ledger.used("a") == pytest.approx(4.0)
    ledger.add("a", 1.0)
    assert ledger.used("a") == pytest.approx(5.0)
    assert ledger.used("b") == 0.0
    now[0] -= 1000  # a clock that is set back makes nobody richer
    assert ledger.used("a") == pytest.approx(5.0)


def test_a_turn_that_ends_in_an_error_is_handed_on() -> None:
    turns = Turns(Ledger())
    with pytest.raises(KeyError), turns.turn():
        raise KeyError
    with due_within(PATIENCE), turns.turn():
        pass


def test_whoever_waits_until_it_is_due_is_told_and_takes_nobody_s_place() -> None:
    turns = Turns(Ledger())
    with ThreadPoolExecutor(1) as pool, held(turns):

        def ask() -> None:
            with due_within(0.05), turns.turn():
                raise AssertionError("it was held")

        with pytest.raises(Busy, match="did not get its turn in time"):
            as_client(pool, "late", ask).result(PATIENCE)
        assert turns._waiting == []
    assert in_turn(turns, ("a", 0)) == ["a"]


def test_outside_of_a_request_the_house_asks_and_nothing_is_due() -> None:
    assert copy_context().run(asking) == HOUSE
    assert seconds_left() is None
    with due_within(5):
        left = seconds_left()
    assert left is not None
    assert 0 < left <= 5


def test_several_places_are_lent_at_once() -> None:
    turns, inside = Turns(Ledger(), places=2), threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:

        def meet() -> int:
            with turns.turn():
                return inside.wait(PATIENCE)

        both = [pool.submit(meet), pool.submit(meet)]
        assert sorted(future.result(PATIENCE) for future in both) == [0, 1]


def test_the_time_of_a_turn_is_held_against_whoever_had_it() -> None:
    ledger = Ledger()
    with ThreadPoolExecutor(1) as pool:

        def take() -> None:
            with Turns(ledger).turn():
                threading.Event().wait(0.01)

        as_client(pool, "a", take).result(PATIENCE)
    assert ledger.used("a") > 0
    assert ledger.used("b") == 0
