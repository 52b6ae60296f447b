"""The surprise of words: that of their tokens, in the order of a reader."""

import math

from hypothesis import given
from hypothesis import strategies as st

from sampling.surprise import surprising_words
from tokens.reversal import reverse_words

PIECES = st.lists(st.tuples(st.sampled_from(["cat", " the", " sle", "eps", "\n", " ", ".", " a"]), st.floats(-9, -0.1)), max_size=20)


@given(st.sampled_from(["", "end.", "the end.", " x", "a\nb"]), PIECES, st.booleans())
def test_every_word_is_there_and_no_surprise_is_lost(given_text: str, pieces: list[tuple[str, float]], is_backward: bool) -> None:
    def decode(ids: list[int]) -> str:
        return given_text + "".join(pieces[id][0] for id in ids)

    words = surprising_words(decode, range(len(pieces)), [logprob for _, logprob in pieces], is_backward)
    text = decode(list(range(len(pieces))))
    assert "".join(word.text for word in words) == (reverse_words(text) if is_backward else text)
    ours = [logprob for piece, logprob in pieces if piece.strip()]
    assert math.isclose(sum(word.bits or 0 for word in words), -sum(ours) / math.log(2), abs_tol=1e-9)


def test_a_word_is_as_surprising_as_its_tokens() -> None:
    texts = ["end.", "end. sle", "end. sleeps", "end. sleeps cat"]
    words = surprising_words(lambda ids: texts[len(ids)], [0, 1, 2], [-math.log(2), -math.log(4), -math.log(8)], True)
    assert [(word.text, word.bits and round(word.bits, 6)) for word in words if word.text != " "] == [
        ("cat", 3.0),
        ("sleeps", 3.0),
        ("end.", None),
    ]


def test_a_character_of_several_tokens_has_the_surprise_of_all() -> None:
    texts = [bytes("end. ", "utf-8"), *(bytes("end. ", "utf-8") + "😀".encode()[:count] for count in range(1, 5)), "end. 😀 you".encode()]
    words = surprising_words(lambda ids: texts[len(ids)].decode(errors="replace"), range(5), [-math.log(2)] * 5, True)
    assert [(word.text, word.bits and round(word.bits, 6)) for word in words if word.text != " "] == [
        ("you", 1.0),
        ("😀", 4.0),
        ("end.", None),
    ]
