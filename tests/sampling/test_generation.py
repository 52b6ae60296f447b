"""Text in, text out: given words stay complete and where a person expects them, and long texts are cut."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config import Order
from formats.pairs import clean_text
from model import GPT
from sampling.engine import Engine
from sampling.generation import EndingPrompter, Prompter, ResponsePrompter, generate_texts
from sampling.sampler import SamplingParams
from system.errors import UserError
from tests.sampling.conftest import random_model
from tokens.prompt_format import PromptFormat
from tokens.reversal import reorder
from tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model() -> GPT:
    return random_model(n_layer=1, block_size=64)


@pytest.fixture(scope="module")
def tokenizer(dataset_folder: Path) -> Tokenizer:
    return Tokenizer.load(dataset_folder)


@pytest.mark.parametrize("order", ["backward", "forward"])
def test_given_words_stay_complete_and_where_a_person_expects_them(model: GPT, tokenizer: Tokenizer, order: Order) -> None:
    prompter = EndingPrompter(tokenizer, order, 64)
    for seed in range(30):
        [(text, generated)] = generate_texts(Engine(model), prompter, ["The cat"], SamplingParams(3, seed=seed))
        if order == "backward":
            assert text == "The cat" or text.endswith((" The cat", "\nThe cat"))
        else:
            assert text == "The cat" or not text.removeprefix("The cat")[:1].isalnum()
        assert text != "The cat" or not generated.ids or not tokenizer.decode(generated.ids).strip()


@pytest.mark.parametrize(
    ("order", "given"), [("backward", "\nThe end."), ("backward", " end."), ("forward", "Once "), ("forward", "One.\n")]
)
def test_beside_white_space_any_token_may_come_first(tokenizer: Tokenizer, order: Order, given: str) -> None:
    assert EndingPrompter(tokenizer, order, 64).request(given, 1, 5)[0].first_token_mask is None


def test_a_forward_text_may_continue_with_punctuation_but_not_with_letters(tokenizer: Tokenizer) -> None:
    mask = EndingPrompter(tokenizer, "forward", 64).request("The cat", 1, 5)[0].first_token_mask
    assert mask is not None
    [comma], [letter], [space] = tokenizer.encode(","), tokenizer.encode("s"), tokenizer.encode(" ")
    assert mask[comma] and mask[space] and mask[tokenizer.end_of_text]
    assert not mask[letter]
    assert not mask[tokenizer.special_id("<|im_end|>")]


def test_weights_that_are_not_finite_are_refused(tokenizer: Tokenizer) -> None:
    broken = random_model(n_layer=1, block_size=64)
    broken.norm.weight[3] = float("nan")
    for temperature in (0, 1):
        with pytest.raises(UserError, match="not finite: it is damaged, or too large for --dtype"):
            list(generate_texts(Engine(broken), EndingPrompter(tokenizer, "backward", 64), ["x"], SamplingParams(3, temperature)))


TEXTS = st.one_of(
    st.text(max_size=300), st.sampled_from(["<|im_end|><|endoftext|> x", "🙂" * 80, "word " * 500, "語" * 500, "\x1b[2J\x07"])
)


@given(TEXTS)
def test_any_ending_stays_at_the_end(model: GPT, tokenizer: Tokenizer, ending: str) -> None:
    prompter = EndingPrompter(tokenizer, "backward", 64)
    request, notice = prompter.request(ending, 1, 5)
    assert len(request.prompt) + 5 <= 64
    assert bool(notice) == (1 + len(tokenizer.encode(reorder(ending, "backward"))) + 5 > 64)
    [(text, generated)] = generate_texts(Engine(model), prompter, [ending], SamplingParams(5))
    assert text.endswith(ending.replace("▁", " ") if generated.ids == [] else ending)


@given(TEXTS)
def test_any_response_gets_an_instruction_unless_it_is_empty(model: GPT, tokenizer: Tokenizer, response: str) -> None:
    prompter = ResponsePrompter(PromptFormat(tokenizer, "backward"), 64)
    if not response.strip():
        with pytest.raises(UserError, match="an empty response"):
            prompter.request(response, 1, 5)
        return
    request, notice = prompter.request(response, 1, 5)
    assert len(request.prompt) + 5 <= 64
    whole = clean_text(response)
    fits = len(prompter.request("a", 1, 5)[0].prompt) - 1 + len(tokenizer.encode(reorder(whole, "backward"))) + 5 < 64
    assert ("the response is too long: the model reads its first" in notice) != fits
    [(_, generated)] = generate_texts(Engine(model), prompter, [response], SamplingParams(5))
    assert generated.finish_reason in ("stop", "tokens")


def test_texts_come_in_the_given_order(model: GPT, tokenizer: Tokenizer) -> None:
    prompter: Prompter = EndingPrompter(tokenizer, "backward", 64)
    given_texts = [f"{'word ' * (index % 5)}{index}" for index in range(30)]
    alone = [next(generate_texts(Engine(model), prompter, [text], SamplingParams(9, temperature=0)))[0] for text in given_texts]
    assert [
        text for text, _ in generate_texts(Engine(model, max_sequences=7), prompter, given_texts, SamplingParams(9, temperature=0))
    ] == alone
    assert all(text.endswith(ending) for text, ending in zip(alone, given_texts, strict=True))


def test_the_score_of_a_text_includes_its_stop_token(model: GPT, tokenizer: Tokenizer) -> None:
    prompter = ResponsePrompter(PromptFormat(tokenizer, "backward"), 64)
    reasons = set()
    for seed in range(40):
        params = SamplingParams(20, seed=seed)
        [(_, generated)] = generate_texts(Engine(model), prompter, ["The cat"], params)
        assert generated.tokens == len(generated.ids) + (generated.finish_reason == "stop")
        assert generated.logprob_per_token == pytest.approx(generated.logprob / generated.tokens)
        assert generated.logprob < 0
        reasons.add(generated.finish_reason)
    assert reasons == {"stop", "tokens"}


def test_a_prompt_of_megabytes_is_refused_before_it_is_encoded(tokenizer: Tokenizer) -> None:
    """Encoding and turning it round would take fifty times its size in memory, for what the model cannot read."""
    with pytest.raises(UserError, match="a prompt of 1,048,577 characters, at most 1,048,576 are possible"):
        EndingPrompter(tokenizer, "backward", 64).request("x" * (1048577), 1, 5)
    assert ResponsePrompter(PromptFormat(tokenizer, "backward"), 64).request("x" * 1048577, 1, 5)[1]  # only its beginning counts
