"""Owns what the machine itself can do: matrix products, reads of matrices, copies, its disk."""

import os
import time
from functools import partial
from pathlib import Path

import torch

from benchmarking.bench import Bench, short_name
from benchmarking.measurement import Measurement, Section
from benchmarking.products import inference_bytes, inference_model, inference_products, matrices_to_train
from benchmarking.timing import Repeated
from model import GPT
from training.step import first_micro_batch

COPY_BYTES = 1 << 28  # more than any cache holds
DISK_BYTES = 1 << 27
DISK_BLOCK = 1 << 22


def inference_dtypes(bench: Bench) -> list[tuple[str, torch.dtype, bool]]:
    """The number types to generate in, with their names and whether they are int8, which is for CPUs only; first the one of the run."""
    dtypes = dict.fromkeys((bench.dtype, torch.float32, *((torch.bfloat16,) if bench.device.type == "cpu" else ())))
    found = [(short_name(dtype), dtype, False) for dtype in dtypes]
    return [*found, ("int8", torch.bfloat16, True)] if bench.device.type == "cpu" else found


def measure_machine(bench: Bench) -> Section:
    """The limits that the other parts are compared with, each measured on its own."""
    device, shape = bench.device, bench.config.model
    bench.show("the machine")
    with torch.device("meta"):
        model = GPT(shape)
    rows = first_micro_batch(bench.loop, model, device) * shape.block_size
    unit, operations = bench.flops_unit
    work: dict[str, tuple[str, float, Repeated]] = {}  # by name: unit, amount of it in a call, the call
    for outputs, inputs in sorted({tuple(matrix.shape) for matrix in (*matrices_to_train(model), model.output_matrix)}):
        x, matrix = (torch.randn(size, inputs, device=device).to(bench.dtype) for size in (rows, outputs))
        result = torch.empty(rows, outputs, device=device, dtype=bench.dtype)
        name = f"product of {rows:,} × {inputs:,} and {inputs:,} × {outputs:,}, {bench.dtype_name}"
        multiply = partial(torch.mm, x, matrix.t(), out=result)
        work[name] = unit, 2 * rows * inputs * outputs / operations, Repeated(multiply, device, as_graph=True)
    for name, dtype, int8 in inference_dtypes(bench):
        prepared = inference_model(shape, dtype, int8, device)
        size = inference_bytes(prepared) / 1e9
        work[f"matrices of the model times one vector, {name}, {size:.2g} GB"] = (
            "GB/s",
            size,
            Repeated(inference_products(prepared, 1, 1), device, as_graph=True),
        )
    source = torch.ones(COPY_BYTES // 4, device=device)
    work["copy of memory, bytes read and written"] = (
        "GB/s",
        2 * COPY_BYTES / 1e9,
        Repeated(partial(torch.empty_like(source).copy_, source), device),
    )

    rates: dict[str, list[float]] = {name: [] for name in work}
    written, read = [], []
    for _ in bench.repeats("the machine"):
        for name, (_, amount, repeated) in work.items():
            rates[name].append(amount / repeated.seconds())
        seconds = _disk_seconds(bench.scratch / "disk")
        written.append(DISK_BYTES / 1e6 / seconds[0])
        read.append(DISK_BYTES / 1e6 / seconds[1])
    return Section(
        "machine",
        "The machine alone",
        [
            *(Measurement(name, unit, tuple(rates[name])) for name, (unit, _, _) in work.items()),
            Measurement("disk, written and synced", "MB/s", tuple(written)),
            Measurement("disk, read" + ("" if hasattr(os, "posix_fadvise") else " (perhaps from memory)"), "MB/s", tuple(read)),
        ],
    )


def _disk_seconds(path: Path) -> tuple[float, float]:
    """Seconds to write a file to the disk, and to read it from there."""
    block = os.urandom(DISK_BLOCK)
    started = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(DISK_BYTES // DISK_BLOCK):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):  # or it would be read from memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    wrote = time.perf_counter()
    with path.open("rb") as file:
        while file.read(DISK_BLOCK):
            pass
    done = time.perf_counter()
    path.unlink()
    return wrote - started, done - wrote
