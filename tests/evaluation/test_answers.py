"""The answers section: the same figures as pair by pair, and no answer of the same instruction among the false ones."""

from pathlib import Path

import pytest
import torch

from evaluation.answers import LENGTH, REVERSE, measure_answers
from evaluation.bootstrap import Estimate
from evaluation.evaluated_model import EvaluatedModel
from evaluation.recovery import WORDS, Recovery
from formats.checkpoint import load_checkpoint
from formats.pairs import Pair
from sampling.scoring import Scorer
from tests.conftest import make_pairs
from tests.evaluation.conftest import make_recovery


def test_the_rows_are_those_of_scoring_pair_by_pair(checkpoints: dict[str, Path]) -> None:
    checkpoint = load_checkpoint(checkpoints["tuning"])
    model = EvaluatedModel("random model", checkpoint, Scorer(checkpoint.make_model(torch.device("cpu")), 2))
    made = [(f"{pair['instruction']} {pair['input']}", pair["output"].ljust(60 + index, ".")) for index, pair in enumerate(make_pairs(40))]
    pool = make_recovery(model, [Pair(*texts) for texts in made]).pairs
    recovery = Recovery(model, pool[:15], seed=0)  # those with the shortest answers
    section = measure_answers(recovery, pool, [39], 60)  # a quarter: all of them, each among all others
    prompt_format = recovery.prompt_format
    ranks: dict[str, list[int]] = {REVERSE: [], LENGTH: []}
    for index, pair in enumerate(recovery.pairs):
        prompts = [prompt_format.prompt(prompt_format.encode(other.response)) for other in pool]
        given = [float(next(model.scorer.score([(prompt, list(pair.instruction_ids))])).sum()) for prompt in prompts]
        for name, scores in ((REVERSE, given), (LENGTH, [float(len(other.response)) for other in pool])):
            ranks[name].append(sorted(scores, reverse=True).index(scores[index]) + 1)
            assert len(set(scores)) == len(pool)  # no ties
    for name, found in ranks.items():
        row = [cell.value for cell in section.rows[f"39 others: {name}"] if isinstance(cell, Estimate)]
        expected = [sum(rank <= places for rank in found) / 15 for places in (1, 5)] + [sum(1 / rank for rank in found) / 15]
        assert row == pytest.approx(expected)


def test_bm25_finds_an_answer_that_repeats_the_instruction(bigram_model: EvaluatedModel) -> None:
    words = ["red", "blue", "green", "house", "tree", "river", "cloud", "stone"]
    recovery = make_recovery(bigram_model, [Pair(f"Say {word}.", f"I say it: {word}!") for word in words])
    section = measure_answers(recovery, recovery.pairs, [7], 32)
    [first, *_] = section.rows[f"7 others: {WORDS}"]
    assert isinstance(first, Estimate) and (first.value, first.examples) == (1, 8)


def test_answers_to_the_same_instruction_are_not_false_candidates(bigram_model: EvaluatedModel) -> None:
    recovery = make_recovery(
        bigram_model, [Pair("Say yes." if number < 5 else f"Say {number}.", f"It is {number}.") for number in range(12)]
    )
    section = measure_answers(recovery, recovery.pairs, [7, 8], 12)
    assert "7 others: chance" in section.rows
    assert section.notes[0] == "8 others: left out. An instruction has only 7 other answers."


def test_there_are_at_most_a_hundred_others_and_long_answers_are_cut(bigram_model: EvaluatedModel) -> None:
    pairs = [Pair(f"Say {number}.", f"It is {number}. " + "It is long. " * (number % 3 * 40)) for number in range(110)]
    recovery = make_recovery(bigram_model, pairs)
    section = measure_answers(recovery, recovery.pairs, [10, 1000], 5)
    assert [name for name in section.rows if name.endswith("chance")] == ["10 others: chance", "100 others: chance"]
    assert section.notes[0].startswith("2 instructions. ")
