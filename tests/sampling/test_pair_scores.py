"""Scores of pairs: log-probabilities of the instruction, with and without its response."""

from pathlib import Path

import pytest
import torch

from formats.checkpoint import load_checkpoint
from formats.pairs import Pair
from sampling.pair_scores import score_pairs
from sampling.scoring import Scorer
from tokens.prompt_format import PromptFormat
from tokens.reversal import reorder


def test_scores_are_log_probabilities(checkpoints: dict[str, Path]) -> None:
    checkpoint = load_checkpoint(checkpoints["tuning"])
    model = checkpoint.make_model(torch.device("cpu"))
    prompt_format = PromptFormat(checkpoint.tokenizer, checkpoint.order)
    pairs = [Pair("Say it.", "It."), Pair("What now?", "word " * 900), Pair("a " * 900, "too long")]
    rows = [{"instruction": pair.instruction, "output": pair.response, "error": None} for pair in pairs]
    found = list(score_pairs(Scorer(model, 1), prompt_format, iter([*rows, "a bad row"])))
    for pair, row in zip(pairs[:2], found, strict=False):
        instruction = [*checkpoint.tokenizer.encode(reorder(pair.instruction, "backward")), *prompt_format.after_instruction]
        response, _, _ = prompt_format.fit_response(pair.response, 512 - prompt_format.overhead - len(instruction) + 1)
        given, alone = (next(Scorer(model, 1).score([(prompt_format.prompt(ids), instruction)])).sum() for ids in (response, []))
        assert row["logprob"] == pytest.approx(given, abs=1e-2)
        assert row["logprob_gain"] == pytest.approx(given - alone, abs=1e-2)
        assert row["logprob_per_token"] == pytest.approx(given / len(instruction), abs=1e-3)
    assert [row.get("cut") for row in found] == [False, True, None, None]
    assert "tokens, too many for a context of 512 with its response" in found[2]["error"]
    assert found[3] == {"row": 4, "error": "a bad row"}
    assert [row["row"] for row in found] == [1, 2, 3, 4]
