"""The report card of a model: reads everything that the flags name, then measures section by section."""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from config import EvaluateConfig
from evaluation.answers import measure_answers
from evaluation.evaluated_model import EvaluatedModel, load_model
from evaluation.filtering import measure_filtering
from evaluation.gaps import summarize_gaps
from evaluation.generated_instructions import measure_generated_instructions
from evaluation.held_out import HeldOutPairs, HeldOutTexts, NotMeasured, read_held_out_documents, read_held_out_pairs, read_texts
from evaluation.hellaswag import HellaSwagTask, is_file, measure_hellaswag, read_tasks
from evaluation.language import measure_language
from evaluation.provenance import describe_model, describe_provenance
from evaluation.ranking import measure_ranking
from evaluation.recovery import Recovery, measure_instructions
from evaluation.report import Picture, Section
from evaluation.report_files import Report
from evaluation.run_names import fit_name, name_beside
from evaluation.training_overlap import warn_of_training
from evaluation.trajectory import measure_trajectory, require_checkpoints
from formats.checkpoint import numbered_checkpoints
from system.device import choose_dtype, device_name
from system.errors import BAD_FLAGS, UserError, require


class Inputs(NamedTuple):
    """Everything to measure on, and a section for each part that is left out, with the reason."""

    texts: list[HeldOutTexts]
    pairs: HeldOutPairs | None
    tasks: list[HellaSwagTask]
    left_out: list[Section]


def describe_run(config: EvaluateConfig, models: Sequence[EvaluatedModel], device: torch.device) -> dict[str, Any]:
    """The facts of the report: the models, and everything needed to repeat the measurement."""
    facts: dict[str, Any] = {}
    for model in models:
        checkpoint = model.checkpoint
        facts[model.name] = (
            f"{checkpoint.path}, step {checkpoint.step:,}, {checkpoint.tokens:,} tokens seen, {_training_of(model)}"
            f"{checkpoint.make_model(torch.device('cpu')).count_parameters() / 1e6:.1f} M parameters, "
            f"vocabulary {checkpoint.tokenizer.vocab_size:,} ({checkpoint.tokenizer.sha256[:12]})"
        )
    settings = dataclasses.asdict(config)
    facts["settings"] = {name: value for name, value in settings.items() if name not in ("model_path", "against", "out_dir")}
    facts["computed"] = f"{choose_dtype(config.dtype, device)} on {device_name(device)}, torch {torch.__version__}"
    facts["intervals"] = "95 %, by bootstrap over texts, pairs or tasks, as if they were independent"
    return facts | describe_provenance(config, models)


def _training_of(model: EvaluatedModel) -> str:
    """The seed and the learning rate, if the checkpoint says them."""
    known = {name: describe_model(model)[name] for name in ("seed", "learning rate")}
    return "".join(f"{name} {value}, " for name, value in known.items() if value is not None)


def default_folder(models: Sequence[EvaluatedModel]) -> Path:
    """The folder of the first checkpoint, or one in it that names the other models, so that each comparison has its own."""
    others = "+".join(name_beside(models[0].run, model.run) for model in models if model.is_other)
    more = "+".join(name_beside(models[0].run, model.run) for model in models[1:] if not model.is_other)
    return models[0].checkpoint.folder / fit_name("_".join(filter(None, (more and f"with_{more}", others and f"against_{others}"))))


def fill(report: Report, config: EvaluateConfig, models: Sequence[EvaluatedModel]) -> None:
    """Read all inputs first, so that errors in them come before any work; then measure."""
    inputs = _read_inputs(config, models)
    if models[0].ranks.count > 1:
        _require_same_inputs(models, inputs)
    reasons = dict.fromkeys(note for section in inputs.left_out for note in section.notes)
    require(bool(inputs.texts or inputs.pairs or inputs.tasks), f"nothing can be measured. {'; '.join(reasons)}", 1)
    _require_writable(report.folder)
    if config.over_training:
        require_checkpoints(models[0].checkpoint.folder)
    report.print_facts()
    for number, texts in enumerate(inputs.texts):
        picture = f"report_positions{number or ''}.png"
        section, curves = measure_language(models, texts.texts, texts.name, picture, config.stride, config.seed)
        section.corpus = texts.corpus
        section.notes += texts.notes
        section.warnings += texts.warnings
        report.add(section, curves)
    if summary := summarize_gaps(report.sections):
        report.add(summary)
    if inputs.pairs:
        _add_instructions(report, config, models[0], inputs.pairs)
    if inputs.tasks:
        section = measure_hellaswag(models, inputs.tasks, config.seed)
        section.corpus = config.hellaswag
        report.add(section)
    for section in inputs.left_out:
        report.add(section)
    if config.over_training:
        section, pictures = measure_trajectory(_models_of_run(config, models[0]), inputs.texts, inputs.pairs, inputs.tasks, config)
        section.model = models[0].name
        report.add(section, *pictures)


def _require_same_inputs(models: Sequence[EvaluatedModel], inputs: Inputs) -> None:
    """Refuse processes that would measure different things: one may have failed to reach the hub."""
    models[0].ranks.require_same(
        {
            "the checkpoint": [model.checkpoint.fingerprint for model in models],
            "the texts": _digest([texts.texts for texts in inputs.texts]),
            "the pairs": _digest([pair.pair for pair in inputs.pairs.pool] if inputs.pairs else []),
            "HellaSwag": _digest(inputs.tasks),
        }
    )


def _digest(values: object) -> str:
    """A short hash of what was read."""
    return hashlib.sha256(repr(values).encode("utf-8", "replace")).hexdigest()[:12]


def _models_of_run(config: EvaluateConfig, last: EvaluatedModel) -> Iterator[EvaluatedModel]:
    """The models of the numbered checkpoints, each loaded when it is needed."""
    for path in numbered_checkpoints(last.checkpoint.folder):
        model = load_model(str(path), last.checkpoint.stage, config, last.scorer.model.cos.device, last.ranks)
        kinds = {(each.checkpoint.stage, each.checkpoint.order, each.checkpoint.tokenizer.sha256) for each in (model, last)}
        if len(kinds) > 1:
            raise UserError(f"{path} is of another run than {last.checkpoint.path}. Move it away, or leave out --over-training")
        yield model


def _read_inputs(config: EvaluateConfig, models: Sequence[EvaluatedModel]) -> Inputs:
    shortest = min(model.block_size for model in models)
    if config.stride > shortest:
        raise UserError(f"--stride {config.stride}: above the context of {shortest} tokens, so some tokens would be skipped", BAD_FLAGS)
    checkpoints = [model.checkpoint for model in models]
    texts, left_out = [], []
    try:
        texts += read_held_out_documents(config, checkpoints[0])
    except NotMeasured as reason:
        left_out.append(Section("Language: held-out documents", notes=[f"Left out: {reason}"]))
    if config.text:
        texts.append(read_texts(config.text, config.encoding))
    warn_of_training(texts, checkpoints)
    pairs = None
    try:
        pairs = read_held_out_pairs(config, checkpoints[0])
    except NotMeasured as reason:
        left_out.append(Section("Instructions", notes=[f"Left out: {reason}"]))
    tasks: list[HellaSwagTask] = []
    try:
        tasks = read_tasks(config.hellaswag, config.hellaswag_tasks) if config.hellaswag else []
    except UserError as error:
        if is_file(config.hellaswag):  # the user named it; the data set on the hub is the default
            raise
        left_out.append(Section("HellaSwag, a control", notes=[f"Left out: {error}"]))
    return Inputs(texts, pairs, tasks, left_out)


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}. Give another --out-dir", BAD_FLAGS) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write {folder}: Permission denied. Give another --out-dir", BAD_FLAGS)


def _add_instructions(report: Report, config: EvaluateConfig, model: EvaluatedModel, pairs: HeldOutPairs) -> None:
    recovery = Recovery(model, pairs.evaluated, config.seed)

    def add(section: Section, picture: Picture | None = None) -> None:
        section.model, section.corpus = model.name, pairs.source
        report.add(section, picture)

    section = measure_instructions(recovery)
    section.notes += pairs.notes
    section.warnings += pairs.warnings
    add(section)
    add(*measure_ranking(recovery, pairs.pool, config.candidates, config.ranked_pairs))
    add(measure_answers(recovery, pairs.pool, config.candidates, config.ranked_pairs))
    add(measure_filtering(recovery, config.mismatched_share))
    add(measure_generated_instructions(recovery, pairs.training, config.max_new_tokens, config.batch_size))
