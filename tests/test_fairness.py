"""Beside whoever never has enough, everybody else is answered: places, pictures and new labels."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from asgi import answer, ask
from starlette.types import Receive, Scope, Send
from test_batching import Encoder, picture
from test_batching import until_waiting as until_pictures_wait
from test_turns import PATIENCE, as_client

from clip_app.bank import MOST_WAITING, PIECE, LabelBank
from clip_app.batching import MicroBatcher
from clip_app.engines import Embeddings
from clip_app.errors import Busy
from clip_app.intake import Intake
from clip_app.labels import request_group
from clip_app.middleware.admission import Admission
from clip_app.middleware.request_id import RequestIds, client_of
from clip_app.model import Model
from clip_app.settings import load_settings
from clip_app.turns import Ledger

SIZE = 8


def test_whoever_has_less_than_a_share_finds_a_place_in_a_full_house() -> None:
    intake = Intake(load_settings(queue_size=SIZE), decoders=1)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(SIZE):
            as_client(pool, "greedy", intake.promise).result(PATIENCE)
        with pytest.raises(Busy):
            as_client(pool, "greedy", intake.promise).result(PATIENCE)
        for _ in range(SIZE // 4):
            as_client(pool, "polite", intake.promise).result(PATIENCE)
        with pytest.raises(Busy, match=f"{SIZE} pictures are already in the works"):
            as_client(pool, "polite", intake.promise).result(PATIENCE)


def test_a_promised_place_is_nobody_else_s_until_it_is_given_back() -> None:
    intake = Intake(load_settings(queue_size=1), decoders=1)
    promised = intake.promise()
    with pytest.raises(Busy), intake.place():
        pass
    promised.give_back()
    promised.give_back()
    with intake.place(), pytest.raises(Busy):
        intake.promise()


@pytest.mark.parametrize(("path", "size"), [("/api/analyze", 10), ("/gradio_api/run/predict", 20_000)])
def test_where_there_is_no_place_a_picture_is_refused_before_it_is_read(path: str, size: int) -> None:
    intake = Intake(load_settings(queue_size=1), decoders=1)

    async def never(*arguments: object) -> None:
        raise AssertionError("it was let in")

    app = RequestIds(Admission(never, promise=intake.promise))
    with ThreadPoolExecutor(1) as pool:
        as_client(pool, client_of({"client": ("127.0.0.1", 1)}), intake.promise).result(PATIENCE)  # the tests' own
    found = ask(app, path, bytes(size), headers={"Content-Length": str(size)})
    assert found.status == 503
    assert found.headers["retry-after"] == "1"
    assert found.unread == 1


def test_what_is_small_or_no_picture_is_let_through() -> None:
    reached: list[str] = []

    async def reach(scope: dict[str, object], receive: object, send: object) -> None:
        reached.append(str(scope["path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body"})  # type: ignore[operator]

    def full() -> object:
        raise Busy("full")

    app = Admission(reach, promise=full)  # type: ignore[arg-type]
    for path, headers in (
        ("/mcp", {"Content-Length": "20000"}),
        ("/gradio_api/run/predict", {"Content-Length": "9"}),
        ("/gradio_api/upload", {}),
        ("/api/docs", {}),
    ):
        assert ask(app, path, headers=headers).status == 200
    assert len(reached) == 4


def test_the_pictures_of_whoever_had_less_are_in_the_next_batch() -> None:
    encoder, ledger = Encoder(), Ledger()
    batches: list[list[float]] = []

    def encode(pixels: np.ndarray) -> np.ndarray:
        batches.append(pixels[:, 0, 0, 0].tolist())
        return encoder(pixels)

    batcher = MicroBatcher(encode, max_batch_size=2, ledger=ledger)
    with ThreadPoolExecutor(8) as pool:
        futures = [as_client(pool, "greedy", lambda: batcher.encode(picture(0)))]
        assert encoder.entered.wait(PATIENCE)
        futures += [as_client(pool, "greedy", lambda: batcher.encode(picture(1))) for _ in range(5)]
        until_pictures_wait(batcher, 5)
        ledger.add("greedy", 1.0)
        futures.append(as_client(pool, "polite", lambda: batcher.encode(picture(2))))
        until_pictures_wait(batcher, 6)
        encoder.open.set()
        for future in futures:
            future.result(PATIENCE)
    batcher.close()
    assert batches == [[0], [2, 1], [1, 1], [1, 1]]


def test_a_batch_is_shared_by_whoever_waits_and_what_it_took_is_counted() -> None:
    encoder, ledger = Encoder(), Ledger()
    batches: list[list[float]] = []

    def encode(pixels: np.ndarray) -> np.ndarray:
        batches.append(pixels[:, 0, 0, 0].tolist())
        return encoder(pixels)

    batcher = MicroBatcher(encode, max_batch_size=4, ledger=ledger)
    with ThreadPoolExecutor(8) as pool:
        futures = [as_client(pool, "a", lambda: batcher.encode(picture(0)))]
        assert encoder.entered.wait(PATIENCE)
        for waiting, client in enumerate(["b"] * 4 + ["c"] * 2, 1):
            value = 1.0 if client == "b" else 2.0
            futures.append(as_client(pool, client, lambda value=value: batcher.encode(picture(value))))  # type: ignore[misc]
            until_pictures_wait(batcher, waiting)
        encoder.open.set()
        for future in futures:
            future.result(PATIENCE)
    batcher.close()
    assert sorted(batches[1]) == [1, 1, 2, 2], "not four of whoever came first"
    assert all(ledger.used(client) > 0 for client in "abc")


def test_a_place_that_was_promised_and_not_taken_is_free_after_the_request() -> None:
    intake = Intake(load_settings(queue_size=1), decoders=1)

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, 422)

    app = RequestIds(Admission(refuse, promise=intake.promise))
    assert [ask(app, "/api/analyze", b"x").status for _ in range(3)] == [422] * 3


def test_a_few_labels_do_not_wait_for_the_many_of_somebody_else(
    bundled: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The many are embedded piece by piece, and the few come between two of them."""
    bank, encode = LabelBank(bundled), bundled.encode_texts
    pieces: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def count(texts: Sequence[str]) -> Embeddings:
        pieces.append(len(texts))
        if len(pieces) == 1:
            begun.set()
            assert go_on.wait(PATIENCE)
        return encode(texts)

    bank.group(request_group(["warm"]))  # the neutral prompts are there
    monkeypatch.setattr(bundled, "encode_texts", count)
    many = request_group([f"thing {i}" for i in range(20 * PIECE)])
    with ThreadPoolExecutor(2) as pool:
        greedy = as_client(pool, "greedy", lambda: bank.group(many))
        assert begun.wait(PATIENCE)
        polite = as_client(pool, "polite", lambda: (bank.group(request_group(["red", "blue"])), len(pieces))[1])
        while not bank._turns._waiting:
            threading.Event().wait(0.005)
        go_on.set()
        assert polite.result(PATIENCE) <= 3, "one piece that was in the works, its own, and at most the next"
        greedy.result(PATIENCE)
    assert max(pieces) == PIECE
    assert sum(pieces) == 20 * PIECE + 2


def test_one_client_may_have_so_many_new_labels_waiting_and_the_same_ones_count_once(
    bundled: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, encode = LabelBank(bundled), bundled.encode_texts
    bank.group(request_group(["warm"]))
    begun, go_on = threading.Event(), threading.Event()

    def wait(texts: Sequence[str]) -> Embeddings:
        begun.set()
        assert go_on.wait(PATIENCE)
        return encode(texts)

    monkeypatch.setattr(bundled, "encode_texts", wait)
    half = request_group([f"a {i}" for i in range(MOST_WAITING // 2)])
    others = [request_group([f"{name} {i}" for i in range(MOST_WAITING // 2)]) for name in "bc"]
    with ThreadPoolExecutor(4) as pool:
        first = as_client(pool, "greedy", lambda: bank.group(half))
        assert begun.wait(PATIENCE)
        again = as_client(pool, "greedy", lambda: bank.group(half))
        second = as_client(pool, "greedy", lambda: bank.group(others[0]))
        while len(bank._texts_waiting["greedy"]) < MOST_WAITING:
            threading.Event().wait(0.005)
        with pytest.raises(Busy, match="2,000 new labels of yours are being read already"):
            as_client(pool, "greedy", lambda: bank.group(others[1])).result(PATIENCE)
        polite = as_client(pool, "polite", lambda: bank.group(request_group(["red"])))
        go_on.set()
        for future in (first, again, second, polite):
            future.result(PATIENCE)
    assert bank._texts_waiting == {}
    np.testing.assert_array_equal(bank.group(half)[0], first.result()[0])
