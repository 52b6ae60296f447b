"""Choosing ids: each as often as its probability says, and never an id that is excluded."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sampling.sampler import SamplingParams, choose_tokens


def shares(logits: torch.Tensor, params: SamplingParams, count: int = 4000) -> NDArray[np.float64]:
    """How often each id is chosen."""
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0))
    return np.bincount(choose_tokens(logits.expand(count, -1), params, uniform).numpy(), minlength=len(logits)) / count


def test_ids_are_chosen_as_often_as_their_probability() -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    assert shares(logits, SamplingParams(1)).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)
    squares = np.array([0.01, 0.04, 0.09, 0.16])
    assert shares(logits, SamplingParams(1, temperature=0.5)).tolist() == pytest.approx((squares / squares.sum()).tolist(), abs=0.03)
    assert shares(logits, SamplingParams(1, top_k=2)).tolist() == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=0.03)
    assert shares(logits, SamplingParams(1, top_k=99)).tolist() == shares(logits, SamplingParams(1, top_k=4)).tolist()
    assert shares(logits, SamplingParams(1, top_p=0.65)).tolist() == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=0.03)
    assert shares(logits, SamplingParams(1, top_p=0.75)).tolist() == pytest.approx([0, 2 / 9, 3 / 9, 4 / 9], abs=0.03)
    assert shares(logits, SamplingParams(1, min_p=0.6)).tolist() == pytest.approx([0, 0, 3 / 7, 4 / 7], abs=0.03)
    assert shares(logits, SamplingParams(1, top_p=1e-9)).tolist() == [0, 0, 0, 1]
    assert shares(logits, SamplingParams(1, temperature=0)).tolist() == [0, 0, 0, 1]
    assert shares(logits, SamplingParams(1, temperature=1e-6)).tolist() == [0, 0, 0, 1]
    assert shares(logits, SamplingParams(1, temperature=1e6)).tolist() == pytest.approx([0.25] * 4, abs=0.03)


@example([0.0, 0.0], 0, 1.0, 0.0, 1.0)  # no limit, and the largest random number
@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=20),
    st.integers(0, 25),
    st.floats(0.001, 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 1e-7, 0.999999, 1.0]),
)
def test_an_excluded_id_is_never_chosen(values: list[float], top_k: int, top_p: float, min_p: float, uniform: float) -> None:
    logits = torch.tensor([[*values, -torch.inf]])
    params = SamplingParams(1, top_k=top_k, top_p=top_p, min_p=min_p)
    assert int(choose_tokens(logits, params, torch.tensor([uniform]))) < len(values)
