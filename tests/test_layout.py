"""How a pair lies in ids: the published example, the prompt as a prefix, responses cut to what fits, markers that stay text."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layout import Layout
from text import Order, arrange
from tokenizer import SPECIAL_TOKENS, Tokenizer

PARTS = st.sampled_from([*"abé語🙂 \n▁", "the ", "cat ", "<|im_end|>", "<|instruction|>"])
TEXTS = st.lists(PARTS, max_size=60).map("".join)


@pytest.fixture(scope="module")
def tokenizer(dataset_folder: Path) -> Tokenizer:
    return Tokenizer.load(dataset_folder)


@pytest.fixture(scope="module")
def layout(tokenizer: Tokenizer) -> Layout:
    return Layout(tokenizer, "backward")


def encode(layout: Layout, text: str) -> list[int]:
    return layout.tokenizer.encode(arrange(text, layout.order))


def spell(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Ids as text, the special ones spelled out."""
    special = {tokenizer.special_id(token): token for token in SPECIAL_TOKENS}
    text, plain = "", list[int]()
    for id in [*ids, None]:
        if id is not None and id not in special:
            plain.append(id)
            continue
        text += tokenizer.decode(plain) + (special[id] if id is not None else "")
        plain = []
    return text


def test_the_published_example(layout: Layout) -> None:
    response, instruction = "Telegram", "Identity the odd one out. Twitter, Instagram, Telegram"
    ids = layout.pair(*(np.array(encode(layout, text), np.uint16) for text in (response, instruction))).tolist()
    assert spell(layout.tokenizer, ids) == (
        "<|endoftext|><|im_start|><|response|>Telegram<|im_end|>"
        "<|im_start|><|instruction|>Telegram Instagram, Twitter, out. one odd the Identity<|im_end|>"
    )
    assert len(ids) == layout.frame + len(encode(layout, response)) + len(encode(layout, instruction))


@given(TEXTS, TEXTS)
def test_a_prompt_is_the_beginning_of_its_pair_and_text_forges_nothing(layout: Layout, response: str, instruction: str) -> None:
    ids = [encode(layout, text) for text in (response, instruction)]
    pair = layout.pair(*(np.array(part, np.uint16) for part in ids)).tolist()
    prompt = layout.prompt(ids[0])
    assert pair == [*prompt, *ids[1], *layout.end]
    special = {layout.tokenizer.special_id(token) for token in SPECIAL_TOKENS}
    assert sum(id in special for id in pair) == layout.frame


@given(response=TEXTS, room=st.integers(8, 60), order=st.sampled_from(["backward", "forward"]))
def test_what_fits_of_a_response_is_its_beginning_up_to_a_word(tokenizer: Tokenizer, response: str, room: int, order: Order) -> None:
    layout = Layout(tokenizer, order)
    ids, text = layout.fit(response, room)
    assert len(ids) <= room
    assert ids == encode(layout, text)
    assert response.startswith(text)
    if len(encode(layout, response)) <= room:
        assert text == response
        return
    if response[len(text)] not in " \n":  # cut inside a word, because the words before it come to little
        before = max(text.rfind(" "), text.rfind("\n"), 0)
        assert len(encode(layout, text[:before].rstrip(" \n"))) < room // 2
    assert len(ids) >= room // 2 - 4 or not text.strip()


def test_more_would_not_have_fitted(layout: Layout) -> None:
    response = " ".join(f"word{number}" for number in range(300))
    for room in (8, 30, 200):
        ids, text = layout.fit(response, room)
        following = response[: response.index(" ", len(text) + 1)]
        assert len(ids) <= room < len(encode(layout, following))


def test_a_response_of_a_million_characters_and_one_without_spaces(layout: Layout) -> None:
    for response in ("the cat sleeps. " * 70_000, "語" * 1_000_000, "1. " + "語" * 1_000_000, "x" * 1_000_000, "\n" * 1_000_000 + "x"):
        ids, text = layout.fit(response, 50)
        assert len(ids) <= 50
        assert response.startswith(text)
        assert len(ids) > 30 or not text.strip()
