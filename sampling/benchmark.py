"""Measuring the speed of generation, and the bound that reading the weights sets: seconds and tokens per second, with random weights."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from statistics import median

import torch
import torch.nn.functional as F

from config import ModelConfig
from model import GPT
from sampling.engine import Engine, Request, TokenEvent
from sampling.inference_weights import CastLinear, Int8Linear
from sampling.sampler import SamplingParams

TIMED_CALLS = 5  # after a first one that is not counted


@dataclass(frozen=True)
class SingleSpeed:
    """The speed of one text, beside the bound of its weights."""

    rate: float  # tokens/s
    bound: float  # tokens/s of the matrix-vector products alone
    share: float  # of the bound that is reached
    warning: str


def random_model(config: ModelConfig, device: torch.device) -> GPT:
    """A model with random weights; those that start at zero would make the arithmetic too easy."""
    model = GPT(config).eval().requires_grad_(False).to(device)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return model


@torch.inference_mode()
def full_pass_seconds(model: GPT, prompt: list[int], repeats: int) -> float:
    """Seconds for one pass over the whole prompt, which every token would take without a KV cache; the median."""
    device = model.cos.device
    return median(_seconds(lambda: model(torch.tensor([prompt], device=device)), device) for _ in range(repeats))


@torch.inference_mode()
def single_speed(model: GPT, prompt: list[int], tokens: int, repeats: int) -> SingleSpeed:
    """The speed of one text with inference weights, and its bound; medians."""
    device = model.cos.device
    engine = Engine(model, 1, graphs=True)
    # The two are measured alternately, so that other load on the machine slows both.
    pairs = [(1 / _seconds(partial(_multiply_all, model), device), _one_text(engine, prompt, tokens)) for _ in range(repeats)]
    bound, rate, share = (median(values) for values in zip(*((bound, rate, rate / bound) for bound, rate in pairs), strict=True))
    return SingleSpeed(rate, bound, share, engine.pop_warning())


@torch.inference_mode()
def batch_rate(model: GPT, prompt: list[int], tokens: int, texts: int, repeats: int) -> float:
    """Tokens per second of several texts at once, all of them together; the median."""
    return median(_many_texts(Engine(model, texts, graphs=True), prompt, tokens, texts) for _ in range(repeats))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that the work takes, the median of a few calls."""
    times = []
    for _ in range(1 + TIMED_CALLS):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times[1:])


def _multiply_all(model: GPT) -> None:
    """Multiply every matrix of the model by one vector."""
    for layer in model.modules():
        if isinstance(layer, CastLinear | Int8Linear):
            vector = torch.ones(1, layer.weight.shape[1], dtype=torch.bfloat16, device=layer.weight.device)
            if isinstance(layer, CastLinear):
                F.linear(vector.to(layer.weight.dtype), layer.weight)
            else:
                layer(vector)


def _one_text(engine: Engine, prompt: list[int], tokens: int) -> float:
    """Tokens per second of one text, by the median time of a token; the first token, which waits for the prefill, is not counted."""
    events = _generate(engine, prompt, tokens, texts=1)
    next(events)
    times = [time.perf_counter()]
    times += [time.perf_counter() for _ in events]
    return 1 / median(after - before for before, after in pairwise(times))


def _many_texts(engine: Engine, prompt: list[int], tokens: int, texts: int) -> float:
    """Tokens per second of many texts, by the median time of a decode pass after all prefills."""
    events = _generate(engine, prompt, tokens, texts)
    list(islice(events, texts))
    times = [time.perf_counter()]
    while list(islice(events, texts)):
        times.append(time.perf_counter())
    return texts / median(after - before for before, after in pairwise(times))


def _generate(engine: Engine, prompt: list[int], tokens: int, texts: int) -> Iterator[TokenEvent]:
    return engine.run([Request(prompt)] * texts, SamplingParams(tokens), frozenset())
