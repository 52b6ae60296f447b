"""Owns the split into training and validation: by a hash of the text, so that copies of a text are on the same side."""

import hashlib
import math

from formats.shards import Dataset

HASH_RANGE = 1 << 64
ENOUGH_ITEMS, ENOUGH_TOKENS = 50, 20_000  # held out: fewer say little; the tokens of documents only, since a pair is short
DEVIATIONS = 2.5  # the hash may hold out less than the share; in 0.2 % of simulated folders this was too few
SPREAD = 2.0  # of the lengths of documents: their mean square by the square of their mean, as of waiting times
LARGEST_ADVISED_SHARE = 0.5


def text_hash(text: bytes) -> int:
    """A number below HASH_RANGE that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def held_out_bound(share: float, hashes: list[int]) -> int:
    """The bound below which a hash means validation: the share, raised if needed so that one of these is held out."""
    return max(round(share * HASH_RANGE), min(hashes, default=0) + 1)


def warn_of_little_held_out(dataset: Dataset, advice: str) -> str:
    """A line, if too little of a finished folder is held out to measure a loss on; `advice` is for a folder that is itself too small."""
    held_out, items, tokens = dataset.shards("val"), 0, 0
    for shard in (*dataset.shards("train"), *held_out):
        items, tokens = items + shard.documents, tokens + shard.ids
    held_out_items, held_out_tokens = sum(shard.documents for shard in held_out), sum(shard.ids for shard in held_out)
    enough_tokens = ENOUGH_TOKENS if dataset.content == "documents" else 0
    if held_out_items >= ENOUGH_ITEMS and held_out_tokens >= enough_tokens:
        return ""
    more = max(
        _expected_for(ENOUGH_ITEMS - held_out_items, 1.0),
        _expected_for((enough_tokens - held_out_tokens) / (tokens / items), SPREAD),
    )
    bound = dataset.meta["held_out_below"] / HASH_RANGE
    share = _two_digits_up(bound + (1 - bound) * more / max(1, items - held_out_items))
    limit = f"{ENOUGH_ITEMS} {dataset.content}" + (f" or {enough_tokens:,} tokens" if enough_tokens else "")
    verb = "is" if held_out_items == 1 else "are"
    way_out = f"Make it again with --val-share {share:g}, in another --data-dir" if share <= LARGEST_ADVISED_SHARE else advice
    return (
        f"warning: only {held_out_items:,} of {items:,} {dataset.content} {verb} held out ({held_out_tokens:,} tokens); "
        f"a loss on fewer than {limit} is uncertain. {way_out}"
    )


def _expected_for(wanted: float, spread: float) -> float:
    """How many to expect, for at least as many as wanted although their number varies: n - DEVIATIONS √(spread n) = wanted."""
    half = DEVIATIONS * math.sqrt(spread) / 2
    return (half + math.sqrt(half * half + wanted)) ** 2 if wanted > 0 else 0.0


def _two_digits_up(share: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(share)) - 1)
    return math.ceil(share / unit) * unit
