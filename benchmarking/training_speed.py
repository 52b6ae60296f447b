"""Owns the speed of training: steps of the real Stepper, eager and compiled, beside their matrix products and beside the yardstick."""

import contextlib
import math
import resource
import sys
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarking.bench import Bench
from benchmarking.measurement import Measurement, Section
from benchmarking.products import TrainingProducts
from benchmarking.timing import SAMPLE_SECONDS, Phases, Repeated
from benchmarking.yardstick import ReferenceGPT, ReferenceStepper
from formats.batches import Batch, Windows
from formats.token_stream import ID_DTYPE, TokenStream
from model import GPT
from system.compiler import compile_problem, is_compiler_error
from system.device import peak_flops
from system.errors import UserError, first_line
from training.device_batch import BatchCopier
from training.step import Stepper

SHARD_IDS = 1 << 22  # random ids on disk, or more if a step needs them
PHASES = ("data", "forward", "backward", "optimizer")
Variant = tuple[str, bool]  # "ours" or "yardstick", and whether it is compiled


class TimedGPT(GPT):
    """The model, which marks when its forward pass begins and ends."""

    mark: Callable[[str], None]
    compiled: Callable[..., Any] | None = None  # used instead of the eager one

    def __call__(self, *arguments: torch.Tensor) -> Any:
        self.mark("forward")
        loss = self.compiled(*arguments) if self.compiled else super().__call__(*arguments)
        self.mark("backward")
        return loss


class TimedStepper(Stepper):
    """The Stepper, which marks when its gradients are complete."""

    mark: Callable[[str], None]

    def accumulate_gradients(self, batch: Batch, targets: float) -> torch.Tensor:
        loss = super().accumulate_gradients(batch, targets)
        self.mark("optimizer")
        return loss


class Contest:
    """Our training and the yardstick's, on the same batches. Each has one set of weights, eager and compiled."""

    def __init__(self, bench: Bench, windows: Windows, reader: ThreadPoolExecutor) -> None:
        self.loop = bench.loop
        self._bench, self._windows, self._reader = bench, windows, reader
        self._copier = BatchCopier(bench.device)
        self._phases = Phases(bench.device)
        torch.manual_seed(0)
        self.model = TimedGPT(bench.config.model).to(bench.device)
        self.model.mark = self._phases.mark
        self.stepper = TimedStepper(self.loop, self.model, bench.device, bench.dtype, bench.show)
        self.stepper.mark = self._phases.mark
        self._compiled = torch.compile(self.model.forward, dynamic=False)
        self._yardstick: ReferenceStepper | None = None
        self._next = reader.submit(self.draw)

    def draw(self) -> Batch:
        """The batch of a step, read from a shard and copied to the device, as in training."""
        return self._copier.copy(self._windows.draw(self.loop.seed, 0, self.loop.sequences_per_step))

    @property
    def yardstick(self) -> ReferenceStepper:
        """Made when it is first needed: until then it takes no memory."""
        if self._yardstick is None:
            torch.manual_seed(0)
            reference = ReferenceGPT(self._bench.config.model).to(self._bench.device)
            size = self.loop.batch_size
            self._yardstick = ReferenceStepper(reference, self._bench.device, self._bench.dtype, size, self._phases.mark)
        return self._yardstick

    @property
    def micro_batches(self) -> tuple[int, int]:
        """Sequences in a micro-batch of ours and of the yardstick, which may not be made yet."""
        return self.stepper.micro_batch, self._yardstick.micro_batch if self._yardstick else self.loop.batch_size

    def run(self, variant: Variant, steps: int) -> dict[str, float]:
        """Seconds of each phase of these steps."""
        who, compiled = variant
        (self._run_ours if who == "ours" else self._run_yardstick)(steps, compiled)
        return self._phases.take()

    def _run_ours(self, steps: int, compiled: bool) -> None:
        self.model.compiled = self._compiled if compiled else None
        for _ in range(steps):
            self._phases.mark("data")
            batch, self._next = self._next.result(), self._reader.submit(self.draw)  # the next one is drawn meanwhile, as in training
            self.stepper.step(batch, self.loop.warmup_steps)
        for result in self.stepper.read():
            assert result.is_finite, f"a loss of {result.loss}"

    def _run_yardstick(self, steps: int, compiled: bool) -> None:
        batch = self._next.result()  # from here on no other thread uses the device, also while a CUDA graph is recorded later
        inputs, targets = torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)
        losses: list[torch.Tensor] = []
        for _ in range(steps):
            while True:
                try:
                    losses.append(self.yardstick.step(inputs, targets, compiled))
                    break
                except torch.OutOfMemoryError:
                    if self.yardstick.micro_batch == 1:
                        raise
                self.yardstick.halve_micro_batch()
        assert torch.stack(losses).isfinite().all(), "a loss of the yardstick is not finite"

    def held_bytes(self, who: str) -> int:
        """Bytes of weights and moments."""
        model: torch.nn.Module = self.model if who == "ours" else self.yardstick.model
        optimizers = self.stepper.optimizer.optimizers if who == "ours" else [self.yardstick.optimizer]
        states = (value for optimizer in optimizers for state in optimizer.state.values() for value in state.values())
        return sum(tensor.nbytes for tensor in (*model.parameters(), *states) if isinstance(tensor, torch.Tensor))


def measure_training(bench: Bench) -> Section:
    """Tokens per second, what bounds them, and where the time of a step goes."""
    shape = bench.config.model
    sequences = bench.loop.sequences_per_step
    shard = bench.scratch / "train.bin"
    count = max(SHARD_IDS, (sequences + 1) * shape.block_size)
    np.random.default_rng(0).integers(0, shape.vocab_size, count).astype(ID_DTYPE).tofile(shard)
    windows = Windows(TokenStream([shard], [count], shape.vocab_size), shape.block_size, filler=0)
    with ThreadPoolExecutor(1) as reader:
        try:
            return _measure(bench, Contest(bench, windows, reader))
        except RuntimeError as error:
            if not is_compiler_error(error):
                raise
            raise UserError(f"torch.compile failed: {first_line(error)}. Add --no-compile") from error


def _measure(bench: Bench, contest: Contest) -> Section:
    device, config = bench.device, bench.config
    problem = compile_problem(device) if config.compile else "--no-compile"
    modes = (False,) if problem else (False, True)
    variants: list[Variant] = [(who, compiled) for compiled in modes for who in ("ours", "yardstick")]
    before = _reset_process_bytes()
    steps = _warm_up(bench, contest, variants[:1])
    process_bytes = _process_bytes()  # of ours alone
    steps |= _warm_up(bench, contest, variants[1:])
    bench.show("training, warming up: matrix products")
    products = Repeated(TrainingProducts(contest.model, contest.stepper.micro_batch, device, bench.dtype), device, as_graph=True)
    drawing = Repeated(contest.draw, torch.device("cpu"))

    sequences = contest.loop.sequences_per_step
    tokens = sequences * config.model.block_size
    micro_batch_tokens = contest.stepper.micro_batch * config.model.block_size
    rates: dict[Variant, list[float]] = defaultdict(list)
    phases: dict[Variant, list[dict[str, float]]] = defaultdict(list)
    memory: dict[Variant, list[int]] = defaultdict(list)
    bounds, draw_seconds = [], []
    for _ in bench.repeats("training"):
        bounds.append(micro_batch_tokens / products.seconds())
        draw_seconds.append(drawing.seconds())
        for variant in variants:
            contest.run(variant, 1)  # its memory was used by the one before: page faults would be a quarter of its first step on a CPU
            seconds, peak = _with_peak(partial(contest.run, variant, steps[variant]), device)
            rates[variant].append(tokens * steps[variant] / sum(seconds.values()))
            phases[variant].append({name: lasted / steps[variant] for name, lasted in seconds.items()})
            memory[variant].append(peak and peak + contest.held_bytes(variant[0]))

    flops, peak_rate = contest.model.flops_per_token(), peak_flops(device, bench.dtype)
    unit, operations = bench.flops_unit
    details: dict[str, dict[str, float]] = {}
    for variant in variants:
        rate = median(rates[variant])
        row = {unit: rate * flops / operations} if variant[0] == "ours" else {}
        if peak_rate and row:
            row["% of the data sheet"] = 100 * rate * flops / peak_rate
        if peak := max(memory[variant]):
            row["peak memory, GB"] = peak / 1e9
        elif variant == ("ours", False) and process_bytes > before:
            row["peak memory of the process, GB"] = process_bytes / 1e9
        details[_name(variant)] = row | {f"{name}, ms": 1000 * median(each[name] for each in phases[variant]) for name in PHASES}
    return Section(
        "train",
        f"Training: a step of {sequences} × {config.model.block_size:,} tokens, {bench.dtype_name}, {config.optimizer}",
        [
            Measurement(
                "compiled" if compiled else "eager",
                "tokens/s",
                *map(tuple, (rates["ours", compiled], bounds, rates["yardstick", compiled])),
            )
            for compiled in modes
        ],
        [
            "Bound: the matrix products of the step alone. Yardstick: nanoGPT's architecture and step, same shape, batch and dtype.",
            f"Sequences in a micro-batch: {contest.stepper.micro_batch}, the yardstick's {contest.yardstick.micro_batch}. "
            f"Reading a batch and copying it to the device takes {1000 * median(draw_seconds):.3g} ms, while the step before runs; "
            "the time under data is what a step waits for it. Ours computes the gradients of the logits in the forward pass.",
            *([f"Compiled: left out ({problem})."] if problem else []),
        ],
        details,
    )


def _warm_up(bench: Bench, contest: Contest, variants: list[Variant]) -> dict[Variant, int]:
    """Run two steps of each: the first compiles, the second has the memory of the optimizer. Returns how many steps make a sample.

    Where memory runs out, all compiled code is dropped, so that all of them run again.
    """
    steps = {}
    while True:
        before = contest.micro_batches
        for variant in variants:
            bench.show(f"training, warming up: {_name(variant)}")
            contest.run(variant, 1)
            steps[variant] = max(1, math.ceil(SAMPLE_SECONDS / sum(contest.run(variant, 1).values())))
        if contest.micro_batches == before:
            return steps


def _name(variant: Variant) -> str:
    who, compiled = variant
    return f"{who}, {'compiled' if compiled else 'eager'}"


def _with_peak(run: Callable[[], dict[str, float]], device: torch.device) -> tuple[dict[str, float], int]:
    """What the run returns, and how much memory it took beside what was there before; 0 where the device does not count."""
    if device.type != "cuda":
        return run(), 0
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = run()
    return found, torch.cuda.max_memory_allocated() - before


def _reset_process_bytes() -> int:
    """Let the count of the most memory begin anew, which only Linux can; returns what it has reached."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _process_bytes()


def _process_bytes() -> int:
    """The most memory that this process had at any time since the count began."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
