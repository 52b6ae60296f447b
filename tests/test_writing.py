"""Text in, text out: given words stay whole and where a person expects them, nothing that is too long breaks anything."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from config import ModelConfig
from engine import Engine, Sampling
from errors import UserError
from layout import Layout
from model import GPT
from pairs import clean
from text import Order, arrange
from tokenizer import Tokenizer
from writing import Endings, Form, Responses, write

SHAPE = ModelConfig(n_layer=1, n_head=2, n_embed=16, block_size=64, vocab_size=400)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(SHAPE).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.fixture(scope="module")
def tokenizer(dataset_folder: Path) -> Tokenizer:
    return Tokenizer.load(dataset_folder)


@pytest.mark.parametrize("order", ["backward", "forward"])
def test_the_given_words_stay_whole_and_where_a_person_expects_them(model: GPT, tokenizer: Tokenizer, order: Order) -> None:
    form = Endings(tokenizer, order, 64)
    for seed in range(30):
        [(text, written)] = write(Engine(model), form, ["The cat"], Sampling(3, seed=seed))
        if order == "backward":
            assert text == "The cat" or text.endswith((" The cat", "\nThe cat"))
        else:
            assert text == "The cat" or text.startswith(("The cat ", "The cat\n"))
        assert text != "The cat" or not written.ids or not tokenizer.decode(written.ids).strip()


TEXTS = st.one_of(
    st.text(max_size=300), st.sampled_from(["<|im_end|><|endoftext|> x", "🙂" * 80, "word " * 500, "語" * 500, "\x1b[2J\x07"])
)


@given(TEXTS)
def test_an_ending_of_any_kind_stays_at_the_end(model: GPT, tokenizer: Tokenizer, ending: str) -> None:
    form = Endings(tokenizer, "backward", 64)
    request, notice = form.request(ending, 1, 5)
    assert len(request.prompt) + 5 <= 64
    assert bool(notice) == (1 + len(tokenizer.encode(arrange(ending, "backward"))) + 5 > 64)
    [(text, written)] = write(Engine(model), form, [ending], Sampling(5))
    assert text.endswith(ending.replace("▁", " ") if written.ids == [] else ending)


@given(TEXTS)
def test_a_response_of_any_kind_is_answered_or_refused(model: GPT, tokenizer: Tokenizer, response: str) -> None:
    form = Responses(Layout(tokenizer, "backward"), 64)
    if not response.strip():
        with pytest.raises(UserError, match="an empty response"):
            form.request(response, 1, 5)
        return
    request, notice = form.request(response, 1, 5)
    assert len(request.prompt) + 5 <= 64
    whole = clean(response)
    fits = len(form.request("a", 1, 5)[0].prompt) - 1 + len(tokenizer.encode(arrange(whole, "backward"))) + 5 < 64
    assert ("too long for the context" in notice) != fits
    [(_, written)] = write(Engine(model), form, [response], Sampling(5))
    assert written.ending in ("stop", "tokens")


def test_many_texts_come_in_the_order_they_were_given(model: GPT, tokenizer: Tokenizer) -> None:
    form: Form = Endings(tokenizer, "backward", 64)
    given_texts = [f"{'word ' * (index % 5)}{index}" for index in range(30)]
    alone = [next(write(Engine(model), form, [text], Sampling(9, temperature=0)))[0] for text in given_texts]
    assert [text for text, _ in write(Engine(model, rows=7), form, given_texts, Sampling(9, temperature=0))] == alone
    assert all(text.endswith(ending) for text, ending in zip(alone, given_texts, strict=True))


def test_the_score_of_a_text_counts_the_mark_at_its_end(model: GPT, tokenizer: Tokenizer) -> None:
    form = Responses(Layout(tokenizer, "backward"), 64)
    endings = set()
    for seed in range(40):
        sampling = Sampling(20, seed=seed)
        [(_, written)] = write(Engine(model), form, ["The cat"], sampling)
        assert written.tokens == len(written.ids) + (written.ending == "stop")
        assert written.logprob_per_token == pytest.approx(written.logprob / written.tokens)
        assert written.logprob < 0
        endings.add(written.ending)
    assert endings == {"stop", "tokens"}
