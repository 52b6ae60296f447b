"""How fast a model writes on this machine, beside what the machine allows: random weights, every ratio from this one run.

    python benchmark_xcoax.py
    python benchmark_xcoax.py demo

The bound is the time in which the same matrices are read by matrix-vector products alone.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import islice, pairwise
from statistics import median

import torch
import torch.nn.functional as F

from config import BenchmarkConfig
from device import choose_device, choose_dtype, device_name
from engine import Engine, Request, Sampling
from errors import run
from flags import read_flags
from lighter import Int8Matrix, Matrix, lighten
from model import GPT
from presets import BENCHMARK_PRESETS

NOTHING: frozenset[int] = frozenset()


def main() -> None:
    config = read_flags(BENCHMARK_PRESETS, __doc__)
    device = choose_device(config.device)
    dtype = choose_dtype(config.dtype, device)
    torch.manual_seed(0)
    whole = GPT(config.model).eval().requires_grad_(False).to(device)
    for parameter in whole.parameters():  # what leaves a branch starts at zero, and zeros are no fair arithmetic
        torch.nn.init.normal_(parameter, std=0.02)
    prompt = list(range(1, config.prompt_tokens + 1))
    print(f"{whole.count_parameters() / 1e6:.1f} M parameters, {device_name(device)}, {torch.get_num_threads()} threads, {dtype}")
    print(f"prompt of {len(prompt)} tokens, {config.tokens} written; the median of {config.repeats} runs")
    with torch.inference_mode():
        slow = median(seconds(lambda: whole(torch.tensor([prompt], device=device)), device) for _ in range(config.repeats))
        print(f"a full pass for every token, as without a cache, {whole.embedding.weight.dtype}: {1 / slow:.1f} tokens/s")
        single = 0.0
        for name, int8 in (("", False), ("int8, ", True)) if device.type == "cpu" else (("", False),):
            model = lighten(GPT(config.model), dtype, int8).to(device)
            engine = Engine(model, 1, graphs=True)
            # By turns, so that what slows the machine slows both.
            turns = [(1 / seconds(partial(multiply, model), device), one_stream(engine, prompt, config)) for _ in range(config.repeats)]
            bound, rate, share = (median(values) for values in zip(*((b, r, r / b) for b, r in turns), strict=True))
            single = single or rate
            print(
                f"one text, {name}{dtype}: {rate:.1f} tokens/s; bound {bound:.1f}, so {share:.0%} of it; "
                f"{rate / single:.2f} times the first, {rate * slow:.1f} times the full pass"
            )
            if engine.notice:
                print(engine.notice)
            if not int8:
                many = median(many_streams(Engine(model, config.rows, graphs=True), prompt, config) for _ in range(config.repeats))
                print(f"{config.rows} texts at once, {dtype}: {many:.1f} tokens/s, {many / rate:.1f} times one text")


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long it takes: the median of a few times, after one that does not count."""
    took = []
    for _ in range(6):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    return median(took[1:])


def multiply(model: GPT) -> None:
    """Every matrix of the model with one vector."""
    for layer in model.modules():
        if isinstance(layer, Matrix | Int8Matrix):
            vector = torch.ones(1, layer.weight.shape[1], dtype=torch.bfloat16, device=layer.weight.device)
            if isinstance(layer, Matrix):
                F.linear(vector.to(layer.weight.dtype), layer.weight)
            else:
                layer(vector)


def one_stream(engine: Engine, prompt: list[int], config: BenchmarkConfig) -> float:
    """Tokens a second of one text, by the median of its tokens but the first, which waits for the reading of the prompt."""
    events = engine.run([Request(prompt)], Sampling(config.tokens), NOTHING)
    next(events)
    times = [time.perf_counter()]
    times += [time.perf_counter() for _ in events]
    return 1 / median(after - before for before, after in pairwise(times))


def many_streams(engine: Engine, prompt: list[int], config: BenchmarkConfig) -> float:
    """Tokens a second of many texts, by the median of their common steps, once all prompts are read."""
    events = engine.run([Request(prompt)] * config.rows, Sampling(config.tokens), NOTHING)
    list(islice(events, config.rows))
    times = [time.perf_counter()]
    while list(islice(events, config.rows)):
        times.append(time.perf_counter())
    return config.rows / median(after - before for before, after in pairwise(times))


if __name__ == "__main__":
    run(main)
