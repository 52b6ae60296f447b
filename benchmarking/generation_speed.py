"""Owns the speed of generating: prefill and decode, by dtype and by the number of texts at once."""

import statistics
import time
from collections import defaultdict
from functools import partial
from itertools import islice, pairwise

import torch

from benchmarking.bench import Bench
from benchmarking.machine import inference_dtypes
from benchmarking.measurement import Measurement, Section
from benchmarking.products import inference_model, inference_products
from benchmarking.timing import Repeated
from benchmarking.yardstick import ReferenceGPT
from sampling.engine import Engine, Request
from sampling.sampler import SamplingParams
from system.amounts import amount
from system.device import autocast


def measure_generation(bench: Bench) -> Section:
    """Tokens per second, each beside the matrix products of these tokens alone and beside full passes."""
    config, device = bench.config, bench.device
    prompt = list(range(1, config.prompt_tokens + 1))
    prompt = [id % config.model.vocab_size for id in prompt]
    torch.manual_seed(0)
    reference = ReferenceGPT(config.model).eval().requires_grad_(False).to(device)
    plain = {count: Repeated(partial(_full_pass, reference, bench, [prompt] * count), device) for count in config.rows}
    engines: dict[tuple[str, int], Engine] = {}
    bounds: dict[tuple[str, int], Repeated] = {}  # 0 texts: the prefill
    for name, dtype, int8 in inference_dtypes(bench):
        bench.show(f"generating, warming up: {name}")
        model = inference_model(config.model, dtype, int8, device)
        bounds[name, 0] = Repeated(inference_products(model, len(prompt), 1), device, as_graph=True)
        for count in config.rows:
            bounds[name, count] = Repeated(inference_products(model, count, count), device, as_graph=True)
            engines[name, count] = Engine(model, count, graphs=True)
            _generate(engines[name, count], prompt, count, tokens=2)

    found: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in bench.repeats("generating"):
        passes = {count: repeated.seconds() for count, repeated in plain.items()}
        for (name, count), engine in engines.items():
            bound = bounds[name, count].seconds()
            first, decode = _generate(engine, prompt, count, config.tokens)
            _add(found[name, count], count / decode, count / bound, count / passes[count])
            found[name, count]["first token"].append(first)
            if count == config.rows[0]:
                # The prompt is read once for all texts, so this differs between numbers of texts only by the choice of their tokens.
                _add(found[name, 0], len(prompt) / first, len(prompt) / bounds[name, 0].seconds(), len(prompt) / passes[count] * count)
    names = [name for name, _, _ in inference_dtypes(bench)]
    measurements = [
        Measurement(_label(name, count), "tokens/s", *(tuple(series[which]) for which in ("figure", "bound", "yardstick")))
        for (name, count), series in sorted(found.items(), key=lambda item: (names.index(item[0][0]), item[0][1]))
    ]
    details = {
        _label(name, count): {"time to the first token, ms": 1000 * statistics.median(series["first token"])}
        for (name, count), series in found.items()
        if count
    }
    warnings = list(dict.fromkeys(filter(None, (engine.pop_warning() for engine in engines.values()))))
    return Section(
        "generate",
        f"Generating: {config.tokens} tokens after a prompt of {len(prompt)}",
        measurements,
        [
            "Bound: the matrix products of these tokens alone. "
            f"Yardstick: nanoGPT's way, a full pass over the text for every token, here of {len(prompt)} tokens in {bench.dtype_name}.",
            *warnings,
        ],
        details,
    )


def _add(series: dict[str, list[float]], figure: float, bound: float, yardstick: float) -> None:
    for name, value in (("figure", figure), ("bound", bound), ("yardstick", yardstick)):
        series[name].append(value)


def _label(dtype: str, texts: int) -> str:
    return f"{dtype}, prefill" if texts == 0 else f"{dtype}, {amount(texts, 'text')}"


@torch.inference_mode()
def _full_pass(model: ReferenceGPT, bench: Bench, prompts: list[list[int]]) -> None:
    """What every token costs without a KV cache."""
    with autocast(bench.device, bench.dtype):
        model(torch.tensor(prompts, device=bench.device))


def _generate(engine: Engine, prompt: list[int], texts: int, tokens: int) -> tuple[float, float]:
    """Seconds until all texts have their first token, and for one more token in each; the median."""
    started = time.perf_counter()
    events = engine.run([Request(prompt, texts)], SamplingParams(tokens), frozenset())
    list(islice(events, texts))
    moments = [time.perf_counter()]
    while list(islice(events, texts)):
        moments.append(time.perf_counter())
    return moments[0] - started, statistics.median(after - before for before, after in pairwise(moments))
