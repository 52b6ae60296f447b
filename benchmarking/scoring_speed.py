"""Owns the speed of scoring: many continuations of one prompt, as ranking instructions for a response needs it."""

import numpy as np
import torch
import torch.nn.functional as F

from benchmarking.bench import Bench
from benchmarking.measurement import Measurement, Section
from benchmarking.products import inference_model, inference_products
from benchmarking.timing import Repeated
from benchmarking.yardstick import ReferenceGPT
from config import EvaluateConfig
from sampling.scoring import BATCH_TOKENS, Scorer
from system.device import autocast

PLAIN_PAIRS = 8  # that the yardstick scores at once
SHORTEST = 4  # the shortest candidate has this share of the tokens of the longest: a quarter


def measure_scoring(bench: Bench) -> Section:
    """Pairs scored per second, beside the matrix products of the same tokens."""
    config, device = bench.config, bench.device
    source = np.random.default_rng(0)
    longest = config.candidate_tokens
    lengths = np.linspace(max(1, longest // SHORTEST), longest, config.candidates).round().astype(int).tolist()
    prompt = source.integers(0, config.model.vocab_size, config.prompt_tokens).tolist()
    candidates = [source.integers(0, config.model.vocab_size, length).tolist() for length in source.permutation(lengths)]
    torch.manual_seed(0)
    bench.show("scoring, warming up")
    model = inference_model(config.model, bench.dtype, False, device)
    scorer = Scorer(model, EvaluateConfig.batch_size)
    # The last token of a candidate is predicted and not read.
    rows = len(prompt) + sum(length - 1 for length in lengths)
    products = Repeated(inference_products(model, rows, sum(lengths), min(rows, BATCH_TOKENS)), device, as_graph=True)
    plain = ReferenceGPT(config.model).eval().requires_grad_(False).to(device)
    pairs = candidates[:PLAIN_PAIRS]
    scoring = Repeated(lambda: scorer.score_after(prompt, candidates), torch.device("cpu"))
    plainly = Repeated(lambda: score_plainly(plain, prompt, pairs, device, bench.dtype), torch.device("cpu"))
    figures, bounds, yardsticks = [], [], []
    for _ in bench.repeats("scoring"):
        bounds.append(len(candidates) / products.seconds())
        figures.append(len(candidates) / scoring.seconds())
        yardsticks.append(len(pairs) / plainly.seconds())
    return Section(
        "score",
        f"Scoring: {len(candidates)} candidates of {min(lengths)} to {longest} tokens after a prompt of {len(prompt)}, {bench.dtype_name}",
        [Measurement("ranking", "pairs/s", tuple(figures), tuple(bounds), tuple(yardsticks))],
        [
            "Bound: the matrix products of these tokens alone, the prompt read once. "
            f"Yardstick: full passes of a plain GPT over prompt and candidate, {len(pairs)} pairs in a batch."
        ],
    )


@torch.inference_mode()
def score_plainly(
    model: ReferenceGPT, prompt: list[int], candidates: list[list[int]], device: torch.device, dtype: torch.dtype
) -> list[float]:
    """Log P of each candidate after the prompt, with one pass over whole sequences, padded to one length."""
    width = len(prompt) + max(map(len, candidates))
    ids = torch.tensor([(prompt + candidate + [0] * width)[:width] for candidate in candidates], device=device)
    with autocast(device, dtype):
        logits = model.lm_head(model.states(ids[:, :-1]))  # (B, T, V)
    nats = F.cross_entropy(logits.float().transpose(1, 2), ids[:, 1:], reduction="none").cpu()  # (B, T)
    first = len(prompt) - 1
    return [-float(row[first : first + len(candidate)].sum()) for row, candidate in zip(nats, candidates, strict=True)]
