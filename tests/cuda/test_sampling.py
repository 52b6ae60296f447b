"""Generating on a GPU: CUDA graphs, choosing ids on the device, seeds, and memory that runs out."""

import warnings

import pytest
import torch

from model import GPT
from sampling.engine import Engine, Request
from sampling.inference_weights import prepare_for_inference
from sampling.kv_cache import KVCache
from sampling.sampler import SamplingParams, choose_tokens
from sampling.scoring import Scorer
from system.errors import UserError
from tests.cuda.conftest import DEVICE, SHAPE, random_model, relative_error

CPU = torch.device("cpu")
PROMPTS = [[5, 6], [7] * 100, [1, 2, 3], [9] * 30, [11], [3] * 200]
NO_STOP_IDS: frozenset[int] = frozenset()
# Shares by which logits may differ: of sums in another order, and of numbers with 8 or 11 bits.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}


def inference_model(dtype: torch.dtype = torch.float32, device: torch.device = DEVICE) -> GPT:
    return prepare_for_inference(random_model(CPU), dtype, int8=False).to(device)


def generate(engine: Engine, params: SamplingParams, samples: int = 2) -> dict[tuple[int, int], list[tuple[int | None, float]]]:
    """The ids of each sample of each prompt, with their log-probabilities."""
    found: dict[tuple[int, int], list[tuple[int | None, float]]] = {}
    for event in engine.run([Request(prompt, samples) for prompt in PROMPTS], params, NO_STOP_IDS):
        found.setdefault((event.request, event.sample), []).append((event.id, event.logprob))
    assert engine.pop_warning() == ""
    return found


def ids_of(found: dict[tuple[int, int], list[tuple[int | None, float]]]) -> dict[tuple[int, int], list[int | None]]:
    return {key: [id for id, _ in events] for key, events in found.items()}


@pytest.mark.parametrize("dtype", TOLERANCE)
@torch.inference_mode()
def test_a_decoding_graph_gives_the_logits_of_eager_mode_and_of_a_cpu(dtype: torch.dtype) -> None:
    """With sequences of different lengths, slots that are freed and used again, and slots that are never used."""
    model = inference_model(dtype)
    caches = [KVCache(model, 4, graphs=True), KVCache(model, 4), KVCache(inference_model(device=CPU), 4)]

    def compare(logits: list[torch.Tensor]) -> None:
        graph, eager, cpu = (each.float().cpu() for each in logits)
        assert relative_error(graph, eager) < TOLERANCE[dtype]
        assert relative_error(graph, cpu) < TOLERANCE[dtype]

    for prompt in ([5, 6], [7] * 100):
        compare([cache.prefill(prompt).clone() for cache in caches])
    for id in range(10, 15):
        compare([cache.decode([id, id + 1]).clone() for cache in caches])
    for cache in caches:
        cache.free(0)
    compare([cache.prefill([1, 2, 3], copies=2).clone() for cache in caches])
    for id in range(20, 25):
        compare([cache.decode([id, id + 1, id + 2]).clone() for cache in caches])
    assert caches[0]._graph is not None
    assert caches[0].warning == ""


def test_texts_are_those_of_a_cpu() -> None:
    """In float32, with the most likely ids: with and without graphs, one at a time and side by side."""
    params = SamplingParams(60, temperature=0)
    expected = generate(Engine(inference_model(device=CPU), 1), params, samples=1)
    for graphs in (False, True):
        for max_sequences in (1, 4):
            found = generate(Engine(inference_model(), max_sequences, graphs), params, samples=1)
            assert ids_of(found) == ids_of(expected)
            for key, events in found.items():
                assert [logprob for _, logprob in events] == pytest.approx([logprob for _, logprob in expected[key]], abs=1e-3)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "limits", [{}, {"top_k": 50}, {"top_p": 0.9}, {"top_k": 200, "top_p": 0.95, "min_p": 0.01, "temperature": 1.5}], ids=str
)
def test_a_seed_gives_the_same_text(limits: dict[str, float], dtype: torch.dtype) -> None:
    params = SamplingParams(40, seed=5, **limits)  # type: ignore[arg-type]  # by name
    first, again = (generate(Engine(inference_model(dtype), 4, graphs=True), params) for _ in range(2))
    other = generate(Engine(inference_model(dtype), 4, graphs=True), SamplingParams(40, seed=6, **limits))  # type: ignore[arg-type]
    assert first == again
    assert ids_of(first) != ids_of(other)


@pytest.mark.parametrize("batch", [1, 7])
def test_ids_are_chosen_as_on_a_cpu(batch: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for params in (
        SamplingParams(1),
        SamplingParams(1, temperature=0),
        SamplingParams(1, temperature=1e-6),
        SamplingParams(1, top_k=50),
        SamplingParams(1, top_k=1000, top_p=0.8),
        SamplingParams(1, top_p=0.5, min_p=0.02),
    ):
        for _ in range(20):
            logits, uniform = 3 * torch.randn(batch, 8888, generator=generator), torch.rand(batch, generator=generator)
            on_gpu = choose_tokens(logits.to(DEVICE), params, uniform.to(DEVICE))
            assert on_gpu.tolist() == choose_tokens(logits, params, uniform).tolist()


@pytest.mark.parametrize("graphs", [False, True])
def test_a_step_waits_for_the_gpu_only_once(graphs: bool) -> None:
    engine = Engine(inference_model(torch.bfloat16), 4, graphs)
    mask = torch.arange(SHAPE.vocab_size) > 50
    events = engine.run([Request([5, 6], 4, mask)], SamplingParams(20, top_k=50, top_p=0.9), NO_STOP_IDS)
    for _ in range(2 * 4):  # the prefill, and a decoding step that records the graph
        next(events)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(10 * 4):
            next(events)
    assert len([warning for warning in found if "synchronizing" in str(warning.message)]) == 10


def test_logits_that_are_not_finite_end_in_one_line() -> None:
    model = inference_model()
    model.norm.weight[3] = torch.nan
    for temperature in (0.0, 1.0):
        for graphs in (False, True):
            with pytest.raises(UserError, match="not finite"):
                list(Engine(model, 2, graphs).run([Request([5, 6])], SamplingParams(3, temperature, top_k=7), NO_STOP_IDS))


def test_out_of_memory_ends_in_one_line() -> None:
    model = inference_model()
    with pytest.raises(UserError, match=r"out of memory\. Tried to allocate .*10000000 texts at once may be too many"):
        Engine(model, 10_000_000)
    assert len(ids_of(generate(Engine(model, 4, graphs=True), SamplingParams(3)))) == 2 * len(PROMPTS)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_scores_are_those_of_a_cpu(dtype: torch.dtype) -> None:
    pairs = [(prompt[:-1] or [8], [4, 5, 6, 7][: 1 + len(prompt) % 4]) for prompt in PROMPTS]
    continuations = [continuation for _, continuation in pairs]
    found = []
    for model in (inference_model(dtype), inference_model(device=CPU)):
        scorer = Scorer(model, 2)
        found.append([list(scores) for scores in (*scorer.score(pairs), *scorer.score_after([1, 2, 3], continuations))])
    for ours, theirs in zip(*found, strict=True):
        assert ours == pytest.approx(theirs, rel=2 * TOLERANCE[dtype], abs=0.01 if dtype == torch.float32 else 0.5)
