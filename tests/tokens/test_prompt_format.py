"""The prompt format: the published example, prompts as prefixes of examples, and responses cut to what fits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import Order
from tokens.prompt_format import MIN_RESPONSE_TOKENS, PromptFormat
from tokens.reversal import reorder
from tokens.tokenizer import SPECIAL_TOKENS, Tokenizer

PARTS = st.sampled_from([*"abé語🙂 \n▁", "the ", "cat ", "<|im_end|>", "<|instruction|>"])
TEXTS = st.lists(PARTS, max_size=60).map("".join)
ORDERS = st.sampled_from(["backward", "forward"])


@pytest.fixture(scope="module")
def prompt_format(tokenizer: Tokenizer) -> PromptFormat:
    return PromptFormat(tokenizer, "backward")


def spell(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Ids as text, with special tokens spelled out."""
    special = {tokenizer.special_id(token): token for token in SPECIAL_TOKENS}
    text, ordinary = "", list[int]()
    for id in ids:
        if id in special:
            text += tokenizer.decode(ordinary) + special[id]
            ordinary = []
        else:
            ordinary.append(id)
    return text + tokenizer.decode(ordinary)


def test_the_published_example(prompt_format: PromptFormat) -> None:
    response, instruction = map(prompt_format.encode, ("Telegram", "Identity the odd one out. Twitter, Instagram, Telegram"))
    ids = prompt_format.example(response, instruction).tolist()
    assert spell(prompt_format.tokenizer, ids) == (
        "<|endoftext|><|im_start|><|response|>Telegram<|im_end|>"
        "<|im_start|><|instruction|>Telegram Instagram, Twitter, out. one odd the Identity<|im_end|>"
    )
    assert len(ids) == prompt_format.overhead + len(response) + len(instruction)


@given(text=TEXTS, order=ORDERS)
def test_texts_are_encoded_in_the_order_of_the_model_and_decoded_in_that_of_a_reader(tokenizer: Tokenizer, text: str, order: Order) -> None:
    prompt_format = PromptFormat(tokenizer, order)
    assert prompt_format.encode(text) == tokenizer.encode(reorder(text, order))
    if "▁" not in text:  # it is read as a space
        assert prompt_format.decode(prompt_format.encode(text)) == text


@given(TEXTS, TEXTS)
def test_a_prompt_is_the_prefix_of_its_example_and_no_text_forges_a_special_token(
    prompt_format: PromptFormat, response: str, instruction: str
) -> None:
    response_ids, instruction_ids = prompt_format.encode(response), prompt_format.encode(instruction)
    example = prompt_format.example(response_ids, instruction_ids).tolist()
    assert example == [*prompt_format.prompt(response_ids), *instruction_ids, *prompt_format.after_instruction]
    special = {prompt_format.tokenizer.special_id(token) for token in SPECIAL_TOKENS}
    assert sum(id in special for id in example) == prompt_format.overhead
    assert special & prompt_format.stop_ids == prompt_format.stop_ids


@given(response=TEXTS, room=st.integers(8, 60), order=ORDERS)
def test_a_cut_response_is_its_beginning_up_to_a_word(tokenizer: Tokenizer, response: str, room: int, order: Order) -> None:
    prompt_format = PromptFormat(tokenizer, order)
    ids, text, is_cut = prompt_format.fit_response(response, room)
    assert len(ids) <= room
    assert ids == prompt_format.encode(text)
    assert response.startswith(text)
    assert is_cut == (len(prompt_format.encode(response)) > room)
    if not is_cut:
        assert text == response
        return
    if response[len(text)] not in " \n":  # cut inside a word, since the words before it leave half of the room empty
        last_word = max(text.rfind(" "), text.rfind("\n"), 0)
        assert len(prompt_format.encode(text[:last_word].rstrip(" \n"))) < room // 2
    assert len(ids) >= room // 2 - 4 or not text.strip()


def test_one_more_word_does_not_fit(prompt_format: PromptFormat) -> None:
    response = " ".join(f"word{number}" for number in range(300))
    for room in (8, 30, 200):
        ids, text, _ = prompt_format.fit_response(response, room)
        one_word_more = response[: response.index(" ", len(text) + 1)]
        assert len(ids) <= room < len(prompt_format.encode(one_word_more))


def test_a_response_of_a_million_characters_is_cut_quickly(prompt_format: PromptFormat) -> None:
    for response in ("the cat sleeps. " * 70_000, "語" * 1_000_000, "1. " + "語" * 1_000_000, "x" * 1_000_000, "\n" * 1_000_000 + "x"):
        ids, text, _ = prompt_format.fit_response(response, 50)
        assert len(ids) <= 50
        assert response.startswith(text)
        assert len(ids) > 30 or not text.strip()


@given(response=TEXTS.filter(bool), instruction=TEXTS, block_size=st.integers(1, 100), order=ORDERS)
def test_a_response_fits_beside_its_instruction_or_there_is_too_little_room(
    tokenizer: Tokenizer, response: str, instruction: str, block_size: int, order: Order
) -> None:
    prompt_format = PromptFormat(tokenizer, order)
    ids, complete = prompt_format.encode(instruction), prompt_format.encode(response)
    room = block_size - prompt_format.overhead - len(ids)
    fitted = prompt_format.fit_beside(ids, response, block_size)
    assert prompt_format.fit_beside(ids, response, block_size, encoded=complete) == fitted
    assert (fitted is None) == (len(complete) > room and room < MIN_RESPONSE_TOKENS)
    if fitted:
        assert len(prompt_format.example(fitted.ids, ids)) <= block_size
        assert fitted.is_cut == (len(complete) > room)
        expected = prompt_format.fit_response(response, room)
        assert np.array_equal(fitted.ids, expected.ids) and fitted[1:] == expected[1:]


@given(text=TEXTS, size=st.integers(1, 8))
def test_what_has_too_many_characters_has_too_many_tokens(prompt_format: PromptFormat, text: str, size: int) -> None:
    if prompt_format.is_too_long(text, size):
        assert len(prompt_format.encode(text)) > size
    assert prompt_format.is_too_long("the cat " * 1000, size)
