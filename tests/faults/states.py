"""When two files are the same but for how long their runs took."""

import io
import itertools
import json
from typing import Any

import torch

from formats.checkpoint import SECONDS
from system.provenance import describe_program
from training.metrics import METRICS
from training.run_record import RECORD, SITTINGS

SPEED = ("seconds", "tokens_per_second", "tflops")


def same_state(name: str, ours: bytes, theirs: bytes | None) -> bool:
    """Whether two files of this name hold the same: weights, optimizer and random state of a checkpoint bit for bit."""
    if ours == theirs or theirs is None:
        return theirs is not None
    if name.endswith(".pt"):
        first, second = (torch.load(io.BytesIO(content), weights_only=True) for content in (ours, theirs))
        return _equal({**first, SECONDS: 0}, {**second, SECONDS: 0})
    if name.endswith(RECORD):  # of a project that may change meanwhile, and of a run with any number of sittings
        first, second = (json.loads(content) for content in (ours, theirs))
        same = {**describe_program(), SITTINGS: []}
        return {**first, **same} == {**second, **same} and _follow_each_other(first[SITTINGS])
    return name.endswith(METRICS) and _without_speed(ours) == _without_speed(theirs)


def _follow_each_other(sittings: list[dict[str, Any]]) -> bool:
    """Whether each sitting begins where the one before ended, the first one at the start."""
    steps = [(sitting["from_step"], sitting["to_step"]) for sitting in sittings]
    return steps[0][0] == 0 and all(before[1] == after[0] for before, after in itertools.pairwise(steps))


def _without_speed(content: bytes) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in content.decode().splitlines()]
    return [{key: row[key] for key in row if key not in SPEED} for row in rows]


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return isinstance(second, dict) and first.keys() == second.keys() and all(_equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(_equal(*pair) for pair in zip(first, second, strict=True))
    return bool(first == second)
