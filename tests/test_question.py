from __future__ import annotations

import base64
from typing import Any

import pytest

from clip_app.errors import BadOption, ImageTooLarge
from clip_app.question import Question, is_fresh, number_of


def asked(data: bytes = b"picture", **options: Any) -> dict[str, Any]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return {"picture": {"url": url, "name": "cat.png"}, "options": options, "number": 3}


def test_the_picture_is_in_the_question_with_what_to_look_for() -> None:
    question = Question.of(asked(groups=["objects"], labels="a cat, a dog", top_k=3), 100)
    assert (question.data, question.name) == (b"picture", "cat.png")
    assert question.options.groups == ("objects",)
    assert question.options.labels == ("a cat", "a dog")
    assert question.options.top_k == 3


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        [],
        {},
        {"picture": None},
        {"picture": {"url": None}},
        {"picture": {"url": "/etc/passwd"}},
        {"picture": {"url": "file:///etc/passwd,"}},
        {"picture": {"url": "http://example.com/cat.jpg,x"}},
        {"picture": {"url": "data:image/png,plain"}},
        {"picture": {"path": "/etc/passwd"}},
    ],
)
def test_nothing_but_a_data_address_is_a_picture(value: Any) -> None:
    with pytest.raises(BadOption, match="no picture"):
        Question.of(value, 100)


@pytest.mark.parametrize("body", ["?", "AAA", "é", "AAAA AAAA"])
def test_what_is_no_base64_is_said_to_be_none(body: str) -> None:
    with pytest.raises(BadOption, match="not base64"):
        Question.of({"picture": {"url": f"data:image/png;base64,{body}"}}, 100)


def test_a_picture_of_the_limit_is_taken_and_a_larger_one_named_too_large() -> None:
    limit = 3_000_000
    assert len(Question.of(asked(bytes(limit)), limit).data) == limit
    with pytest.raises(ImageTooLarge, match="more than 3 MB"):
        Question.of(asked(bytes(limit + 4)), limit)


def test_an_option_that_is_not_known_is_named() -> None:
    with pytest.raises(BadOption, match="colour"):
        Question.of(asked(colour="red"), 100)


def test_a_name_that_is_no_text_is_none() -> None:
    value = asked()
    value["picture"]["name"] = {"a": 1}
    assert Question.of(value, 100).name == ""


def test_a_picture_is_fresh_until_the_page_says_that_it_was_counted() -> None:
    assert is_fresh(asked())
    assert is_fresh(None)
    assert not is_fresh({"picture": {"fresh": False}})


def test_an_answer_goes_to_the_question_of_its_number() -> None:
    assert number_of(asked()) == 3
    assert number_of({"number": "3"}) == number_of(None) == 0
