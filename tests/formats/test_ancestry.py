"""What a model began with is found only if it is still the same."""

from pathlib import Path

import pytest

from formats.ancestry import began_with, stages_of
from formats.checkpoint import load_checkpoint
from system.errors import UserError
from tests.exporting.conftest import save_random
from tokens.tokenizer import Tokenizer


def test_the_models_before_are_found_until_one_was_replaced(dataset_folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(dataset_folder)
    first = save_random(tmp_path / "first" / "best_checkpoint.pt", tokenizer, "pretraining")
    began = {"the first weights": load_checkpoint(first).fingerprint}
    second = save_random(
        tmp_path / "second" / "best_checkpoint.pt", tokenizer, "pretraining", train_config={"init_from": str(first)}, must_match=began
    )
    began = {"the pretrained checkpoint": load_checkpoint(second).fingerprint}
    third = load_checkpoint(
        save_random(tmp_path / "third" / "best_checkpoint.pt", tokenizer, train_config={"model_path": str(second)}, must_match=began)
    )
    assert [stage.path for stage in stages_of(third)] == [third.path, second, first]
    save_random(first, tokenizer, "pretraining", scale=0.3)
    assert [stage.path for stage in stages_of(third)] == [third.path, second]
    with pytest.raises(UserError, match="there is another model now"):
        began_with(load_checkpoint(second))
    first.unlink()
    with pytest.raises(UserError, match="no checkpoint at"):
        began_with(load_checkpoint(second))


def test_models_that_name_each_other_end(dataset_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "best_checkpoint.pt"
    for _ in range(2):  # with the same weights and so the same fingerprint
        save_random(path, Tokenizer.load(dataset_folder), "pretraining", train_config={"init_from": str(path)})
    assert 1 < len(stages_of(load_checkpoint(path))) < 20
