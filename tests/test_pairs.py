"""Pairs out of rows: every spelling, what cannot be used and why, what counts as the same response."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import UserError
from pairs import Pair, fields_of_pairs, normalise, pair_of

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "What is the cat doing?"},
    {"role": "assistant", "content": "The cat is sleeping."},
]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Say it.", "input": "", "output": "It."},
        {"instruction": "Say it.", "output": "It."},
        {"instruction": " Say it.\n", "input": None, "output": "\tIt. "},
        {"instruction": "Say", "input": "it.", "output": "It."},
        {"prompt": "Say it.", "completion": "It."},
        {"prompt": "Say", "context": " it. ", "response": "It.", "id": 7},
        {"instruction": "Say", "context": "it.", "response": "It.", "category": "x"},
        {"messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It."}]},
        {"instruction": "Say", "input": "", "context": "it.", "output": None, "response": "It."},
        {
            "instruction": None,
            "output": None,
            "messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It."}],
        },
        {"prompt": "of the whole chat", "messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It."}]},
    ],
)
def test_every_usual_spelling_is_understood(row: dict[str, object]) -> None:
    assert set(fields_of_pairs(list(row), "the source")) == row.keys() - {"id", "category"}
    assert pair_of(row) == Pair("Say it.", "It.")


def test_of_a_chat_the_last_user_turn_with_an_answer_counts() -> None:
    expected = Pair("What is the cat doing?", "The cat is sleeping.")
    assert pair_of({"messages": TURNS}) == expected
    assert pair_of({"messages": [*TURNS, {"role": "user", "content": "And now?"}]}) == expected
    assert pair_of({"messages": TURNS[:3]}) == Pair("Hello.", "Hello!")


@pytest.mark.parametrize(
    ("row", "trouble"),
    [
        (None, "not text"),
        ({"instruction": "x", "output": 12}, "not text"),
        ({"instruction": None, "output": "x"}, "no pair in the row"),
        ({"instruction": ["x"], "output": "x"}, "not text"),
        ({"instruction": "x", "input": 3, "output": "x"}, "not text"),
        ({"instruction": " \n", "output": "x"}, "empty instruction"),
        ({"instruction": "", "input": "only a text", "output": "x"}, "empty instruction"),
        ({"instruction": "x", "output": "\u3000\t"}, "empty response"),
        ({"instruction": "x", "output": "\ud800"}, "invalid UTF-8"),
        ({"instruction": "x"}, "no pair in the row"),
        ({}, "no pair in the row"),
        ({"messages": []}, "no pair in the row"),
        ({"messages": "hello"}, "no pair in the row"),
        ({"messages": ["hello", "you"]}, "no pair in the row"),
        ({"messages": TURNS[:2]}, "no pair in the row"),
        ({"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}, "no pair in the row"),
        ({"messages": [{"role": "user", "content": ["a"]}, {"role": "assistant", "content": "b"}]}, "not text"),
    ],
)
def test_what_cannot_be_used_says_why(row: dict[str, object] | None, trouble: str) -> None:
    pair = pair_of(row)
    assert pair == Pair("", "", trouble)
    assert pair.size == 0


@pytest.mark.parametrize("fields", [["text"], ["instruction", "answer"], ["output", "input"], []])
def test_a_source_that_is_not_understood_is_refused_with_its_fields(fields: list[str]) -> None:
    with pytest.raises(UserError, match=f"the source has {'the fields ' + ', '.join(fields) if fields else 'no fields'}") as caught:
        fields_of_pairs(fields, "the source")
    assert "instruction or prompt" in str(caught.value)
    assert caught.value.exit_code == 2


def test_line_ends_are_of_one_kind() -> None:
    assert pair_of({"instruction": "a\r\nb", "output": "c\r\n\r\nd\r\n"}) == Pair("a\nb", "c\n\nd")


@given(st.text(), st.text(), st.text())
def test_nothing_but_white_space_around_a_text_is_lost(instruction: str, given_text: str, response: str) -> None:
    pair = pair_of({"instruction": instruction, "input": given_text, "output": response})
    if not pair.trouble:
        assert pair.response == response.replace("\r\n", "\n").strip()
        parts = [part.replace("\r\n", "\n").strip() for part in (instruction, given_text)]
        assert pair.instruction == " ".join(part for part in parts if part)
        assert pair.size == len((pair.instruction + pair.response).encode())


def test_the_same_response_in_other_clothes() -> None:
    assert normalise("The  CAT\nis sleeping. ") == normalise("the cat is sleeping.")
    assert normalise("Cafe\u0301") == normalise("CAFÉ")
    assert normalise("the cat is sleeping") != normalise("the cat is sleeping.")
