"""Runs a sampler whose model writes the ids that it is given, over and over.

python -m tests.faults.rigged_script IDS sample_xcoax.py FLAGS
"""

import itertools
import json
import runpy
import sys
from unittest import mock

import torch
from torch import Tensor

if __name__ == "__main__":
    ids = itertools.cycle(json.loads(sys.argv[1]))

    def choose_given(logits: Tensor, *_: object) -> Tensor:
        """The next ids, or the likeliest ones where the sampler allows others only."""
        allowed = logits.isfinite().all(dim=-1)
        return torch.stack([torch.tensor(next(ids)) if free else row.argmax() for free, row in zip(allowed, logits, strict=True)])

    sys.argv = sys.argv[2:]
    with mock.patch("sampling.engine.choose_tokens", choose_given):
        runpy.run_path(sys.argv[0], run_name="__main__")
