"""The report card: how good is a model that writes backwards?

    python evaluate_xcoax.py
    python evaluate_xcoax.py --model-path out/xcoax/best_checkpoint.pt --against out/xcoax-forward/best_checkpoint.pt
    python evaluate_xcoax.py --pairs my_held_out_pairs.jsonl --candidates 10 100 --out-dir out/card

Prints each table as soon as it is measured, and writes report.json, report.md and their pictures beside the checkpoint. What
cannot be measured, such as instructions of a model that was never tuned, is left out and says why.
"""

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from checkpoint import load_checkpoint
from config import EvaluateConfig, Stage
from device import choose_device, choose_dtype, device_name
from errors import BAD_FLAGS, UserError, require, run
from flags import read_flags
from held_out import LeftOut, held_out_documents, held_out_pairs, texts_of_files
from hellaswag import Task, is_file, judge_choices, read_tasks
from language import Subject, judge_language
from lighter import lighten
from presets import EVALUATE_PRESETS
from recovery import Recovery
from report import Report, Section
from scoring import Scorer


def main() -> None:
    started = time.monotonic()
    config: EvaluateConfig = read_flags(EVALUATE_PRESETS, __doc__)
    device = choose_device(config.device)
    try:
        subjects = [load_subject(config.model_path, "tuning", config, device)]
        if config.against:
            other = load_subject(config.against, "pretraining", config, device)
            subjects.append(other._replace(name=f"against: {other.name}") if other.name == subjects[0].name else other)
        folder = Path(config.out_dir) if config.out_dir else subjects[0].checkpoint.path.parent
        report = Report("The report card of a model that writes backwards", folder, facts(config, subjects, device))
        fill(report, config, subjects)
    except torch.OutOfMemoryError as error:
        raise UserError(f"out of memory on {device}. Give a smaller --batch-size than {config.batch_size}") from error
    print(f"\nwrote {', '.join(report.finish())} to {folder}; {time.monotonic() - started:.0f} s")


def load_subject(path: str, stage: Stage, config: EvaluateConfig, device: torch.device) -> Subject:
    """A model to judge, made ready."""
    checkpoint = load_checkpoint(Path(path), stage)
    model = lighten(checkpoint.make_model(torch.device("cpu")), choose_dtype(config.dtype, device), int8=False).to(device)
    name = f"{'tuned' if checkpoint.stage == 'tuning' else 'pretrained'}, {checkpoint.order}"
    return Subject(name, checkpoint, Scorer(model, config.batch_size))


def require_writable(folder: Path) -> None:
    """Find out before the work whether its report can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}. Give another --out-dir", BAD_FLAGS) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {folder}: Permission denied. Give another --out-dir", BAD_FLAGS)


def facts(config: EvaluateConfig, subjects: Sequence[Subject], device: torch.device) -> dict[str, Any]:
    """What the figures are about, and what would give them again."""
    found: dict[str, Any] = {}
    for subject in subjects:
        checkpoint = subject.checkpoint
        found[subject.name] = (
            f"{checkpoint.path}, step {checkpoint.step:,}, {checkpoint.tokens:,} tokens seen, "
            f"{checkpoint.make_model(torch.device('cpu')).count_parameters() / 1e6:.1f} M parameters, "
            f"vocabulary {checkpoint.tokenizer.vocab_size:,} ({checkpoint.tokenizer.sha256[:12]})"
        )
    settings = dataclasses.asdict(config)
    found["settings"] = {name: value for name, value in settings.items() if name not in ("model_path", "against", "out_dir")}
    found["computed"] = f"{choose_dtype(config.dtype, device)} on {device_name(device)}, torch {torch.__version__}"
    found["intervals"] = "95 %, by bootstrap over texts, pairs or tasks, as if each were independent of the others"
    return found


def fill(report: Report, config: EvaluateConfig, subjects: Sequence[Subject]) -> None:
    """Read all that is to be measured with, so that what is wrong with it comes before the work; then measure."""
    checkpoints = [subject.checkpoint for subject in subjects]
    shortest = min(subject.block_size for subject in subjects)
    if config.stride > shortest:
        raise UserError(f"--stride {config.stride}: at most the context of {shortest} tokens, or some would not be read", BAD_FLAGS)
    sources = [texts_of_files(config.text)] if config.text else []
    left_out = []
    try:
        sources.insert(0, held_out_documents(config, checkpoints))
    except LeftOut as reason:
        left_out.append(Section("Language: held-out documents", notes=[f"Left out: {reason}"]))
    pairs = None
    try:
        pairs = held_out_pairs(config, checkpoints[0])
    except LeftOut as reason:
        left_out.append(Section("Instructions", notes=[f"Left out: {reason}"]))
    tasks: list[Task] = []
    try:
        tasks = read_tasks(config.hellaswag, config.hellaswag_tasks) if config.hellaswag else []
    except UserError as error:
        if is_file(config.hellaswag):  # what was named is not passed over
            raise
        left_out.append(Section("HellaSwag, a control", notes=[f"Left out: {error}"]))

    reasons = dict.fromkeys(note for each in left_out for note in each.notes)
    require(bool(sources or pairs or tasks), f"nothing can be measured. {'; '.join(reasons)}", 1)
    require_writable(report.folder)
    report.begin()
    for number, source in enumerate(sources):
        picture = f"report_positions{number or ''}.png"
        section, curves = judge_language(subjects, source.texts, source.what, picture, config.stride, config.seed)
        section.notes += source.notes
        report.add(section, curves)
    if pairs:
        recovery = Recovery(subjects[0], pairs.judged, config.seed)
        section = recovery.responses()
        section.notes += pairs.notes
        report.add(section)
        report.add(*recovery.ranking(pairs.pool, config.candidates, config.ranked_pairs))
        report.add(recovery.filtering(config.mismatched_share))
        report.add(recovery.generation(pairs.training, config.max_new_tokens, config.batch_size))
    if tasks:
        report.add(judge_choices(subjects, tasks, config.seed))
    for section in left_out:
        report.add(section)


if __name__ == "__main__":
    run(main)
