"""Generation: stops where it should, greedy is greedy, seeds repeat, given words stay whole."""

from pathlib import Path

import pytest
import torch

from config import ModelConfig
from engine import choose, generate, write
from model import GPT
from tokenizer import Tokenizer

SHAPE = ModelConfig(n_layer=1, n_head=2, n_embed=16, block_size=24, vocab_size=400)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(SHAPE).eval()
    for parameter in model.parameters():  # weights that are zero at the start would make every id equally likely
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def test_generation_stops_where_it_should(model: GPT) -> None:
    generator = torch.Generator().manual_seed(0)
    assert len(list(generate(model, [5, 6], 100, frozenset(), generator))) == SHAPE.block_size - 2
    assert len(list(generate(model, [5, 6], 3, frozenset(), generator))) == 3
    greedy = list(generate(model, [5, 6], 4, frozenset(), generator, temperature=0))
    assert list(generate(model, [5, 6], 4, frozenset(greedy[1:2]), generator, temperature=0)) == greedy[: greedy.index(greedy[1])]


def test_greedy_ids_are_the_likeliest_of_each_step(model: GPT) -> None:
    ids = [5, 6]
    for id in generate(model, [5, 6], 8, frozenset(), torch.Generator(), temperature=0):
        assert id == int(model(torch.tensor([ids]))[0, -1].argmax())
        ids.append(id)
    assert len(ids) == 10


def test_a_seed_repeats_and_another_does_not() -> None:
    logits = torch.zeros(50)
    draws = [[choose(logits, 1.0, 0, generator) for _ in range(20)] for generator in (torch.Generator().manual_seed(s) for s in (1, 1, 2))]
    assert draws[0] == draws[1] != draws[2]


def test_top_k_keeps_the_likeliest() -> None:
    generator = torch.Generator().manual_seed(0)
    assert {choose(torch.arange(50.0), 5.0, 3, generator) for _ in range(200)} == {47, 48, 49}


def test_the_given_words_stay_whole_and_where_a_person_expects_them(model: GPT, dataset_folder: Path) -> None:
    tokenizer = Tokenizer.load(dataset_folder)
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        ending = write(model, tokenizer, "backward", "The cat", 3, generator, temperature=1.0)
        assert ending == "The cat" or ending.endswith((" The cat", "\nThe cat"))
        beginning = write(model, tokenizer, "forward", "The cat", 3, generator, temperature=1.0)
        assert beginning == "The cat" or beginning.startswith(("The cat ", "The cat\n"))


def test_a_prompt_longer_than_the_context_leaves_room(model: GPT, dataset_folder: Path) -> None:
    tokenizer = Tokenizer.load(dataset_folder)
    text = write(model, tokenizer, "backward", "over the red house " * 50 + "cat", 5, torch.Generator().manual_seed(0), temperature=1.0)
    assert "over the red house" in text
