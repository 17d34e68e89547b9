from __future__ import annotations

import asyncio

import pytest
from asgi import Answer, answer, ask
from starlette.types import Message, Receive, Scope, Send

from clip_app.middleware.request_id import HEADER, RequestContext, RequestIds, context_of, current_request


async def names_its_call(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the id that this task, a thread of it and the scope know."""
    here, elsewhere = current_request(), await asyncio.to_thread(current_request)
    await answer(send, 200, [here.id if here else None, elsewhere.id if elsewhere else None, context_of(scope).id])


def ask_with(given: str | None) -> Answer:
    return ask(RequestIds(names_its_call), "/", headers={HEADER: given} if given is not None else {})


def sent_back(found: Answer) -> str:
    return found.headers[HEADER.lower()]


@pytest.mark.parametrize("given", ["a", "trace-7:span.3_x", "A" * 64])
def test_a_well_formed_id_is_the_requests_own(given: str) -> None:
    found = ask_with(given)
    assert sent_back(found) == given
    assert found.body == f'["{given}", "{given}", "{given}"]'.encode()


@pytest.mark.parametrize("given", [None, "", "A" * 65, "a b", 'a"b', "a\tb", "ä"])
def test_any_other_request_gets_an_id_of_its_own(given: str | None) -> None:
    first, second = sent_back(ask_with(given)), sent_back(ask_with(given))
    assert given not in (first, second)
    assert first != second
    assert sent_back(ask_with(first)) == first, "and it is one that may be sent again"


def test_outside_of_a_request_there_is_none() -> None:
    ask_with("a")
    assert current_request() is None


def test_a_scope_that_nobody_gave_an_id_is_a_call_without_analyses() -> None:
    fresh = context_of({"type": "http"})
    assert fresh.analyses == 0
    assert fresh.id != context_of({"type": "http"}).id


def test_what_is_no_request_goes_through_as_it_is() -> None:
    seen: list[tuple[Scope, RequestContext | None]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope, current_request()))

    async def nothing() -> Message:
        return {}

    async def nowhere(message: Message) -> None:
        return None

    scope: Scope = {"type": "lifespan"}
    asyncio.run(RequestIds(app)(scope, nothing, nowhere))
    assert seen == [(scope, None)]
