"""reverse.py, which goes out with a model: it agrees with what the model was trained on."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokens.reversal
from exporting.reverse import from_output, reverse_words, to_prompt, to_prompt_ids
from formats.pairs import clean_text
from tests.conftest import ROOT
from tokens.prompt_format import PromptFormat
from tokens.tokenizer import SPECIAL_TOKENS, Tokenizer

TEXT = st.text(st.characters(codec="utf-8"))


@given(TEXT)
def test_it_reverses_as_training_did(text: str) -> None:
    assert reverse_words(text) == tokens.reversal.reverse_words(text)
    assert from_output(reverse_words(text), "") == text.partition("<|im_end|>")[0] or "<|" in text


def test_output_ends_at_a_special_token_and_joins_its_ending() -> None:
    assert from_output("cat? the is What<|im_end|>more") == "What is the cat?"
    assert from_output(" time. a upon Once", "The end.") == "Once upon a time. The end."


@pytest.fixture(scope="module")
def their_tokenizer(exported: Path):  # type: ignore[no-untyped-def]  # a class of transformers
    import transformers

    return transformers.AutoTokenizer.from_pretrained(exported)


@pytest.mark.parametrize("response", ["The cat is sleeping.", "  a\r\nb\tc  d \n", "say <|im_end|> twice <|im_end|>", *SPECIAL_TOKENS])
def test_prompts_in_transformers_are_those_of_training(their_tokenizer, tokenizer: Tokenizer, response: str) -> None:  # type: ignore[no-untyped-def]
    prompt_format = PromptFormat(tokenizer, "backward")
    ours = prompt_format.prompt(prompt_format.encode(clean_text(response)))

    def encode(text: str, special: bool) -> list[int]:
        ids: list[int] = their_tokenizer(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"]
        return ids

    assert to_prompt_ids(response, encode) == ours
    read = their_tokenizer(to_prompt(response))["input_ids"]
    assert (read == ours) == ("<|" not in response)  # by default the marker is read: what the page of special tokens says


def test_it_needs_nothing_but_python() -> None:
    code = "import sys; sys.path.insert(0, 'exporting'); import reverse; print(reverse.to_prompt('a b'))"
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == "<|im_start|><|response|>b a<|im_end|><|im_start|><|instruction|>\n"
