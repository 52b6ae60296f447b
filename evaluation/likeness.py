"""What compared models differ in beside what is compared: their seed, or their word order."""

from collections.abc import Iterator, Sequence
from typing import Any

from config import PATHS
from evaluation.evaluated_model import EvaluatedModel, twins

# Settings that change no weight, or that say where and how a run was watched.
UNCHANGING = {
    *PATHS,
    *("plot", "dry_run", "verify", "new_data", "log_every", "eval_every", "keep_every", "eval_tokens", "eval_pairs", "tensorboard"),
    *("sample_tokens", "sample_prompt", "hellaswag_every", "hellaswag_tasks", "compile", "shard", "checkpoint_activations"),
}
MOST_NAMED = 4


def unlikeness(models: Sequence[EvaluatedModel]) -> list[str]:
    """A sentence for each comparison in which more differs than it is about."""
    return [*_of_seeds(models), *_of_twins(models)]


def _of_seeds(models: Sequence[EvaluatedModel]) -> Iterator[str]:
    for is_other in (False, True):
        kin = [model for model in models if model.is_other == is_other]
        if len({model.checkpoint.fingerprint for model in kin}) < len(kin):
            yield f"Of {_listed(kin)} some are the same model: their spread says nothing of seeds."
        if found := _differing(kin, {"seed"}):
            yield f"{_listed(kin)} differ in more than their seed, so their spread is not that of seeds alone: {found}."


def _of_twins(models: Sequence[EvaluatedModel]) -> Iterator[str]:
    for one, other in twins(models):
        pair = [models[one], models[other]]
        if found := _differing(pair, {"order", "the data"}):
            yield f"{_listed(pair)} differ in more than their word order: {found}."


def _differing(models: Sequence[EvaluatedModel], expected: set[str]) -> str:
    """The settings, beside the expected ones, that are not the same for all models; empty if there are none."""
    facts = [_facts(model) for model in models]
    names = [name for name in dict.fromkeys(name for each in facts for name in each) if name not in expected]
    found = [name for name in names if len({repr(each.get(name)) for each in facts}) > 1]
    shown = [f"{name} {', '.join(str(each.get(name, 'unknown')) for each in facts)}" for name in found[:MOST_NAMED]]
    return "; ".join([*shown, *(["…"] if len(found) > MOST_NAMED else [])])


def _facts(model: EvaluatedModel) -> dict[str, Any]:
    """What the weights came from, as far as it was recorded."""
    checkpoint = model.checkpoint
    settings = {name: value for name, value in checkpoint.train_config.items() if name not in UNCHANGING}
    shape = settings.pop("model", {})
    recorded = {name: checkpoint.must_match[name] for name in ("the data",) if name in checkpoint.must_match}
    return {"step": checkpoint.step, **settings, **(shape if isinstance(shape, dict) else {}), **recorded}


def _listed(models: Sequence[EvaluatedModel]) -> str:
    return ", ".join(model.name for model in models)
