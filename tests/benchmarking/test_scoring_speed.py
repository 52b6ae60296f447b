"""The plain way to score gives the log-probabilities that a model has, whatever the padding."""

import pytest
import torch

from benchmarking.scoring_speed import score_plainly
from benchmarking.yardstick import ReferenceGPT
from config import ModelConfig


def test_plain_scores_are_sums_over_the_candidate() -> None:
    torch.manual_seed(0)
    model = ReferenceGPT(ModelConfig(n_layer=2, n_head=2, n_embed=16, block_size=12, vocab_size=64))
    prompt, candidates = [1, 2, 3], [[4, 5, 6, 7], [8], [9, 10]]
    expected = []
    for candidate in candidates:
        logprobs = model.lm_head(model.states(torch.tensor([prompt + candidate])))[0].log_softmax(-1)
        expected.append(sum(float(logprobs[len(prompt) - 1 + place, id]) for place, id in enumerate(candidate)))
    assert score_plainly(model, prompt, candidates, torch.device("cpu"), torch.float32) == pytest.approx(expected, abs=1e-5)
