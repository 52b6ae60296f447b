"""Pairs from rows: every usual field name, unusable rows and the reason, and which responses count as the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats.pairs import Pair, PairFields, normalize_response, pair_fields, pair_from_row, response_fields, response_from_row
from system.errors import UserError

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "What is the cat doing?"},
    {"role": "assistant", "content": "The cat is sleeping."},
]

PARTS = [{"type": "text", "text": "Say "}, {"type": "text", "text": "it.", "image_url": None}]


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
        {"question": "Say it.", "answer": "It."},
        {"conversations": [{"from": "human", "value": "Say it."}, {"from": "gpt", "value": "It."}]},
        {"conversations": [{"from": "system", "value": "x"}, {"from": "user", "value": "Say it."}, {"from": "assistant", "value": "It."}]},
        {"prompt": "Say it.", "chosen": "It."},
        {"prompt": "Say it.", "chosen": [{"role": "assistant", "content": "It."}]},
        {"prompt": "Say it.", "chosen": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It."}]},
        {"chosen": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It."}]},
        {"prompt": [{"role": "user", "content": "Say it."}], "chosen": [{"role": "assistant", "content": "It."}]},
        {"messages": [{"role": "user", "content": PARTS}, {"role": "assistant", "content": [{"type": "text", "text": "It."}]}]},
        {
            "prompt": "a field without a response",
            "messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "It."}],
        },
    ],
)
def test_every_usual_field_name_is_understood(row: dict[str, object]) -> None:
    assert set(pair_fields(list(row), "the source")) == row.keys() - {"id", "category"}
    assert pair_from_row(row) == Pair("Say it.", "It.")


def test_the_last_answered_message_of_a_chat_is_the_pair() -> None:
    expected = Pair("What is the cat doing?", "The cat is sleeping.")
    assert pair_from_row({"messages": TURNS}) == expected
    assert pair_from_row({"messages": [*TURNS, {"role": "user", "content": "And now?"}]}) == expected
    assert pair_from_row({"messages": TURNS[:3]}) == Pair("Hello.", "Hello!")


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
        (
            {"messages": [{"role": "user", "content": [*PARTS, {"type": "image_url"}]}, {"role": "assistant", "content": "b"}]},
            "not text",
        ),
        ({"conversations": [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}]}, "no pair in the row"),
        ({"chosen": "without a prompt"}, "no pair in the row"),
        ({"prompt": "x", "chosen": [{"role": "user", "content": "y"}]}, "no pair in the row"),
    ],
)
def test_an_unusable_row_says_why(row: dict[str, object] | None, trouble: str) -> None:
    pair = pair_from_row(row)
    assert pair == Pair("", "", trouble)
    assert pair.size == 0


@pytest.mark.parametrize("fields", [["text"], ["instruction", "answers"], ["output", "input"], []])
def test_a_source_without_pairs_is_refused_and_its_fields_are_named(fields: list[str]) -> None:
    with pytest.raises(UserError, match=f"the source has {'the fields ' + ', '.join(fields) if fields else 'no fields'}") as caught:
        pair_fields(fields, "the source")
    assert "instruction or prompt" in str(caught.value)
    assert "--instruction-field" in str(caught.value)
    assert caught.value.exit_code == 2


FIELDS = ("instruction", "prompt", "question", "output", "answer", "input", "generated_instruction", "messages", "a", "b", "c")


@given(st.dictionaries(st.sampled_from(FIELDS), st.text("xyz", min_size=1), min_size=1), st.data())
def test_a_field_that_a_flag_names_wins(row: dict[str, object], data: st.DataObject) -> None:
    instruction, given_text, response = (data.draw(st.sampled_from(sorted(row))) for _ in range(3))
    named = PairFields(instruction, given_text, response)
    assert {instruction, given_text, response} <= set(pair_fields(list(row), "the source", named))
    assert pair_from_row(row, named=named) == Pair(f"{row[instruction]} {row[given_text]}", str(row[response]))


def test_the_usual_fields_count_beside_one_that_a_flag_names() -> None:
    row = {"instruction": "old", "task": "Say", "input": "it.", "output": "It.", "generated_instruction": "new"}
    named = PairFields(instruction="task")
    assert pair_fields(list(row), "the source", named) == list(row)
    assert pair_from_row(row, named=named) == Pair("Say it.", "It.")
    assert pair_from_row({**row, "task": None}, named=named) == Pair("", "", "no pair in the row")


@pytest.mark.parametrize("flag", ["instruction", "input", "response"])
def test_a_named_field_that_does_not_exist_is_refused(flag: str) -> None:
    with pytest.raises(UserError, match=f"--{flag}-field none: the source has the fields instruction, output") as caught:
        pair_fields(["instruction", "output"], "the source", PairFields(**{flag: "none"}))
    assert caught.value.exit_code == 2
    with pytest.raises(UserError, match="A pair needs task, output or response"):
        pair_fields(["task", "messages"], "the source", PairFields(instruction="task"))


def test_crlf_becomes_lf() -> None:
    assert pair_from_row({"instruction": "a\r\nb", "output": "c\r\n\r\nd\r\n"}) == Pair("a\nb", "c\n\nd")


@given(st.text(), st.text(), st.text())
def test_only_surrounding_white_space_is_removed(instruction: str, given_text: str, response: str) -> None:
    pair = pair_from_row({"instruction": instruction, "input": given_text, "output": response})
    if not pair.trouble:
        assert pair.response == response.replace("\r\n", "\n").strip()
        parts = [part.replace("\r\n", "\n").strip() for part in (instruction, given_text)]
        assert pair.instruction == " ".join(part for part in parts if part)
        assert pair.size == len((pair.instruction + pair.response).encode())


def test_spacing_case_and_composition_do_not_make_a_different_response() -> None:
    assert normalize_response("The  CAT\nis sleeping. ") == normalize_response("the cat is sleeping.")
    assert normalize_response("Cafe\u0301") == normalize_response("CAFÉ")
    assert normalize_response("the cat is sleeping") != normalize_response("the cat is sleeping.")


@pytest.mark.parametrize("name", ["output", "response", "completion", "answer", "chosen", "text"])
def test_a_response_is_found_under_every_usual_field_name(name: str) -> None:
    assert response_from_row({"instruction": "Say it.", name: "It."}) == "It."


def test_a_response_is_the_last_answer_of_a_chat_and_an_empty_field_gives_way() -> None:
    assert response_from_row({"messages": TURNS}) == "The cat is sleeping."
    assert response_from_row({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}) == "b"
    assert response_from_row({"prompt": "a", "chosen": [{"role": "assistant", "content": "b"}]}) == "b"
    assert response_from_row({"output": "", "response": "It."}) == "It."
    assert response_from_row({"output": ""}) == ""
    assert response_from_row({"instruction": "x", "messages": []}) is None


def test_a_table_without_responses_is_refused_and_its_fields_are_named() -> None:
    assert response_fields(["id", "text"]) == ["id", "text"]
    assert response_fields(["messages"]) == ["messages"]
    with pytest.raises(UserError, match="--input has the fields id, story; a response is expected in output or response"):
        response_fields(["id", "story"])
