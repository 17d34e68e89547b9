from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prometheus_client import REGISTRY

from clip_app.batching import MicroBatcher
from clip_app.errors import Busy, EncodingFailed
from clip_app.turns import due_within


class Encoder:
    """Stands for an encoder whose batches can be seen and held."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self.sizes.append(len(pixels))
        self.entered.set()
        assert self.open.wait(10)
        values = pixels[:, 0, 0, 0]
        if (values < 0).any():
            raise ValueError("bad picture")
        return values[:, None]


def picture(value: float) -> np.ndarray:
    return np.full((3, 2, 2), value, np.float32)


def until_waiting(batcher: MicroBatcher, count: int) -> None:
    deadline = time.monotonic() + 10
    while len(batcher._waiting) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_waits_together_is_encoded_together_and_answered_in_its_own_place() -> None:
    encoder = Encoder()
    batcher = MicroBatcher(encoder, max_batch_size=4)
    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(batcher.encode, picture(0))
        assert encoder.entered.wait(10)
        others = [pool.submit(batcher.encode, picture(i)) for i in range(1, 10)]
        until_waiting(batcher, 9)
        encoder.open.set()
        answers = [future.result(10).embedding[0] for future in (first, *others)]
    assert answers == list(range(10))
    assert encoder.sizes == [1, 4, 4, 1]
    batcher.close()


def test_a_lone_picture_does_not_wait_for_others() -> None:
    encoder = Encoder()
    encoder.open.set()
    batcher = MicroBatcher(encoder, max_batch_size=8)
    assert batcher.encode(picture(5)).embedding[0] == 5
    assert encoder.sizes == [1]
    batcher.close()


def test_an_error_hits_only_its_own_picture_and_the_next_one_works() -> None:
    encoder = Encoder()
    batcher = MicroBatcher(encoder, max_batch_size=8)
    with ThreadPoolExecutor(8) as pool:
        blocker = pool.submit(batcher.encode, picture(0))
        assert encoder.entered.wait(10)
        mixed = [pool.submit(batcher.encode, picture(value)) for value in (1, -1, 2)]
        until_waiting(batcher, 3)
        encoder.open.set()
        blocker.result(10)
        outcomes = sorted(type(f.exception(10)).__name__ for f in mixed)
    assert outcomes == ["EncodingFailed", "NoneType", "NoneType"]
    assert batcher.encode(picture(7)).embedding[0] == 7
    batcher.close()


def test_closing_answers_what_waits_and_refuses_what_comes_after() -> None:
    encoder = Encoder()
    batcher = MicroBatcher(encoder, max_batch_size=1)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(batcher.encode, picture(i)) for i in range(3)]
        until_waiting(batcher, 2)
        closing = pool.submit(batcher.close)
        encoder.open.set()
        closing.result(10)
        assert sorted(f.result(10).embedding[0] for f in waiting) == [0, 1, 2]
    with pytest.raises(EncodingFailed):
        batcher.encode(picture(0))


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(f"clip_app_{name}") or 0.0


def test_waiting_and_encoding_are_parts_of_the_time_it_took() -> None:
    encoder = Encoder()
    encoder.open.set()
    batcher = MicroBatcher(encoder, max_batch_size=8)
    started = time.perf_counter()
    encoded = batcher.encode(picture(1))
    assert encoded.queue_seconds >= 0
    assert encoded.encode_seconds >= 0
    assert encoded.queue_seconds + encoded.encode_seconds <= time.perf_counter() - started
    batcher.close()


def test_who_waits_and_how_many_were_encoded_together_is_counted() -> None:
    waiting, batches, pictures = (sample(name) for name in ("queue_depth", "batch_size_count", "batch_size_sum"))
    encoder = Encoder()
    batcher = MicroBatcher(encoder, max_batch_size=2)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batcher.encode, picture(0))
        assert encoder.entered.wait(10)
        others = [pool.submit(batcher.encode, picture(i)) for i in range(1, 4)]
        until_waiting(batcher, 3)
        assert sample("queue_depth") - waiting == 3, "the first does not wait any more"
        encoder.open.set()
        for future in (first, *others):
            future.result(10)
    batcher.close()
    assert sample("queue_depth") == waiting
    assert (sample("batch_size_count") - batches, sample("batch_size_sum") - pictures) == (3, 4)


def test_a_picture_that_fails_alone_is_not_tried_again_and_its_reason_stays_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = Encoder()
    encoder.open.set()
    batcher = MicroBatcher(encoder, max_batch_size=8)
    with pytest.raises(EncodingFailed) as caught:
        batcher.encode(picture(-1))
    assert encoder.sizes == [1]
    assert "bad picture" not in str(caught.value)
    assert "bad picture" in caplog.text
    batcher.close()


def test_whoever_waits_until_it_is_due_is_told_why() -> None:
    encoder = Encoder()
    batcher = MicroBatcher(encoder, max_batch_size=1)
    waiting = sample("queue_depth")
    with ThreadPoolExecutor(2) as pool:

        def encode() -> None:
            with due_within(0.1):
                batcher.encode(picture(1))

        hanging = pool.submit(encode)
        assert encoder.entered.wait(10)
        assert batcher.busy_for > 0
        behind = pool.submit(encode)
        with pytest.raises(EncodingFailed, match="does not come back from this picture"):
            hanging.result(10)
        with pytest.raises(Busy, match="did not get its turn in time"):
            behind.result(10)
    assert sample("queue_depth") == waiting
    encoder.open.set()
    assert batcher.encode(picture(7)).embedding[0] == 7
    assert batcher.busy_for == 0
    batcher.close()


def test_a_batch_that_does_not_fit_into_memory_is_encoded_one_by_one() -> None:
    sizes: list[int] = []
    go_on = threading.Event()

    def encode(pixels: np.ndarray) -> np.ndarray:
        sizes.append(len(pixels))
        assert go_on.wait(10)
        if len(pixels) > 1:
            raise MemoryError
        return pixels[:, 0, 0, :1]

    batcher = MicroBatcher(encode, max_batch_size=4)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(batcher.encode, picture(i)) for i in range(4)]
        while not sizes:
            time.sleep(0.001)
        until_waiting(batcher, 4 - sizes[0])
        go_on.set()
        assert [future.result(10).embedding[0] for future in futures] == [0, 1, 2, 3]
    batcher.close()
