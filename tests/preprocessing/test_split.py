"""The share that a warning of too little held out names: it ends the warning, and holds out little more."""

import re
from pathlib import Path

import numpy as np
import pytest

from formats.shards import Dataset
from preprocessing.split import ENOUGH_ITEMS, ENOUGH_TOKENS, HASH_RANGE, warn_of_little_held_out


def made(hashes: np.ndarray, lengths: np.ndarray, content: str, share: float) -> Dataset:
    """The folder in which documents of these lengths are held out by these hashes, between 0 and 1."""
    shards = {}
    for split, chosen in (("train", hashes >= share), ("val", hashes < share)):
        ids = int(lengths[chosen].sum())
        shards[split] = [{"name": "x", "ids": ids, "documents": int(chosen.sum()), "bytes": ids, "sha256": ""}]
    return Dataset(Path("x"), {"content": content, "shards": shards, "held_out_below": round(share * HASH_RANGE)})


@pytest.mark.parametrize("content", ["documents", "pairs"])
@pytest.mark.parametrize("mean_length", [20, 400, 3000])
def test_the_share_that_is_named_ends_the_warning_and_holds_out_little_more(content: str, mean_length: int) -> None:
    generator = np.random.default_rng(mean_length)
    warned_again, held_out = 0, []
    for _ in range(80):
        count = int(10 ** generator.uniform(3.3, 4.5))
        hashes, lengths = generator.random(count), generator.exponential(mean_length, count).astype(int) + 1
        warning = warn_of_little_held_out(made(hashes, lengths, content, 0.0005), "give more")
        if not (named := re.search(r"--val-share (\S+),", warning)):
            assert not warning or "give more" in warning
            continue
        again = made(hashes, lengths, content, float(named[1]))
        warned_again += bool(warn_of_little_held_out(again, ""))
        [val] = again.shards("val")
        tokens = val.ids / ENOUGH_TOKENS if content == "documents" else np.inf
        held_out.append(min(val.documents / ENOUGH_ITEMS, tokens))
    assert len(held_out) > 20
    assert warned_again <= 1
    assert np.mean(held_out) < 1.6
    if content == "documents" and mean_length == 20:  # of a thousand documents the number varies little
        assert np.mean(held_out) < 1.2
