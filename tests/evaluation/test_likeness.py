"""What differs beside what is compared stands above the table."""

import dataclasses
from typing import Any

import torch

from evaluation.evaluated_model import EvaluatedModel
from evaluation.likeness import unlikeness


def model(like: EvaluatedModel, name: str, weight: float, is_other: bool = False, **settings: Any) -> EvaluatedModel:
    weights = {**like.checkpoint.weights, "norm.weight": torch.full((32,), weight)}
    checkpoint = dataclasses.replace(like.checkpoint, weights=weights, train_config=settings, step=settings.get("max_steps", 9))
    return like._replace(name=name, checkpoint=checkpoint, is_other=is_other)


def test_seeds_and_word_orders_alone_are_no_news(bigram_model: EvaluatedModel) -> None:
    one = [model(bigram_model, "a", seed + 1.0, seed=seed, lr=0.1, out_dir=f"a{seed}", order=None) for seed in (0, 1)]
    other = [model(bigram_model, "b", seed + 3.0, True, seed=seed, lr=0.1, out_dir=f"b{seed}", order="forward") for seed in (0, 1)]
    assert unlikeness([*one, *other]) == []
    assert unlikeness([one[0], other[0]]) == []


def test_other_differences_are_named(bigram_model: EvaluatedModel) -> None:
    one = [model(bigram_model, "a 1", 1.0, seed=0, max_steps=90), model(bigram_model, "a 2", 2.0, seed=1, max_steps=15)]
    other = [model(bigram_model, "b 1", 3.0, True, seed=0, max_steps=90), model(bigram_model, "b 2", 4.0, True, seed=7, max_steps=15)]
    found = unlikeness([*one, *other])
    assert found[0] == "a 1, a 2 differ in more than their seed, so their spread is not that of seeds alone: step 90, 15; max_steps 90, 15."
    assert found[2:] == ["a 2, b 2 differ in more than their word order: seed 1, 7."]


def test_one_model_twice_has_no_spread(bigram_model: EvaluatedModel) -> None:
    twice = [model(bigram_model, name, 1.0, seed=0) for name in ("a 1", "a 2")]
    assert unlikeness(twice) == ["Of a 1, a 2 some are the same model: their spread says nothing of seeds."]
