"""Owns one run of the benchmark: the machine, then every part that is asked for, each shown as soon as it is measured."""

import dataclasses
import gc
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarking.bench import Bench, short_name
from benchmarking.generation_speed import measure_generation
from benchmarking.machine import measure_machine
from benchmarking.measurement import Section
from benchmarking.picture import draw_picture
from benchmarking.preprocessing_speed import measure_preprocessing
from benchmarking.report import as_table, write_figures
from benchmarking.scoring_speed import measure_scoring
from benchmarking.training_speed import measure_training
from config import BenchmarkConfig, Part
from system.amounts import amount
from system.device import choose_device, choose_dtype, device_name, explain_out_of_memory
from system.escapes import tell
from system.files import lock_folder
from system.memory import keep_freed_memory
from training.run import require_memory


def _preprocessing(bench: Bench) -> Section:
    bench.show("preprocessing, making text")
    return measure_preprocessing(bench.config, bench.scratch, partial(bench.repeats, "preprocessing"))


PARTS: dict[Part, Callable[[Bench], Section]] = {
    "preprocess": _preprocessing,
    "train": measure_training,
    "generate": measure_generation,
    "score": measure_scoring,
}


def run_benchmark(config: BenchmarkConfig) -> None:
    """Measure, print a table for each part, write the JSON if asked for, draw the picture."""
    device = choose_device(config.device)
    keep_freed_memory()  # as training does
    dtype = choose_dtype(config.dtype, device)
    folder = Path(config.out_dir)
    require_memory(config.model, device)
    parameters = config.model.parameters
    shape, threads = config.model, torch.get_num_threads()
    facts = {
        "device": device_name(device),
        "threads": threads,
        "torch": torch.__version__,
        "dtype": short_name(dtype),
        "parameters": parameters,
        "settings": {name: value for name, value in dataclasses.asdict(config).items() if name != "train"},
    }
    title = (
        f"{facts['device']}, {amount(threads, 'CPU thread')}, torch {facts['torch']}, {facts['dtype']}\n"
        f"{shape.n_layer} layers, {shape.n_head} heads, width {shape.n_embed}, context {shape.block_size:,}, {shape.vocab_size:,} ids; "
        f"{parameters / 1e6:.1f} M parameters, random weights"
    )
    tell(f"{title}; medians of --repeats {config.repeats}, in brackets their range\n")
    if config.json:
        Path(config.json).parent.mkdir(parents=True, exist_ok=True)
    sections: list[Section] = []
    with (
        explain_out_of_memory("Try a smaller shape, or fewer --rows"),
        lock_folder(folder, "--out-dir"),
        tqdm(total=(1 + len(config.parts)) * config.repeats, unit=" repeats", disable=None, dynamic_ncols=True) as progress,
    ):
        scratch = folder / ".benchmark-scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
        scratch.mkdir()
        bench = Bench(config, device, dtype, scratch, progress)
        try:
            for measure in (measure_machine, *(PARTS[part] for part in dict.fromkeys(config.parts))):
                sections.append(measure(bench))
                gc.collect()  # compiled models are part of cycles and hold gigabytes
                tqdm.write(as_table(sections[-1]))
                if config.json:
                    write_figures(Path(config.json), facts, sections)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    tell(f"drew {draw_picture(folder, title, sections)}" + (f", wrote {config.json}" if config.json else ""))
