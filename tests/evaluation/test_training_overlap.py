"""Texts that a model saw in training: found in the shards of any tokenizer and word order, and said above the table."""

import dataclasses
from pathlib import Path

import pytest

from evaluation.held_out import HeldOutTexts
from evaluation.training_overlap import find_seen, warn_of_training
from formats.checkpoint import Checkpoint, load_checkpoint
from formats.document_reader import DocumentReader
from formats.shards import Split, open_dataset
from tests.conftest import call_script, make_documents, write_jsonl
from tokens.reversal import reorder
from tokens.tokenizer import Tokenizer


def texts_of(folder: Path, split: Split) -> list[str]:
    """The documents of a split, in the order of a reader."""
    dataset, tokenizer = open_dataset(folder), Tokenizer.load(folder)
    documents = DocumentReader(dataset, split, tokenizer.end_of_text)
    return [reorder(tokenizer.decode(documents.read(index)), dataset.order) for index in range(len(documents))]


@pytest.fixture(scope="module")
def forward_folder(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same documents in the other word order, by another tokenizer, in shards of another size."""
    folder = tmp_path_factory.mktemp("forward")
    source = write_jsonl(folder / "documents.jsonl", [*documents, *make_documents(50, seed=9)])
    flags = ("--order", "forward", "--vocab-size", 350, "--val-share", 0.1, "--workers", 1)
    result = call_script("preprocess_xcoax.py", "--input", source, "--data-dir", folder / "twin", *flags)
    assert result.returncode == 0, result.stderr
    return folder / "twin"


def trained_on(checkpoint: Path, folder: Path, **settings: object) -> Checkpoint:
    return dataclasses.replace(load_checkpoint(checkpoint), train_config={"data_dir": str(folder), **settings})


def test_training_documents_are_found_and_held_out_ones_are_not(dataset_folder: Path, forward_folder: Path) -> None:
    train, held_out = texts_of(dataset_folder, "train"), texts_of(dataset_folder, "val")
    for folder in (dataset_folder, forward_folder):
        assert find_seen(open_dataset(folder), {*train, *held_out, "never written"}) == set(train)


def warnings(texts: list[str], *checkpoints: Checkpoint) -> list[str]:
    group = HeldOutTexts("texts", "texts", texts, [], [])
    warn_of_training([group], checkpoints)
    return group.warnings


def test_only_models_that_saw_texts_are_named(checkpoints: dict[str, Path], dataset_folder: Path, forward_folder: Path) -> None:
    path = checkpoints["pretraining"]
    model, twin = (trained_on(path, folder) for folder in (dataset_folder, forward_folder))
    assert warnings(texts_of(dataset_folder, "val"), model, twin) == []  # though the sizes of the shards differ
    mixed = [*texts_of(dataset_folder, "train")[:3], *texts_of(dataset_folder, "val")[:4]]
    assert warnings(mixed, model) == [f"{path} was trained on 3 of these 7 texts."]
    extra = sorted(set(texts_of(forward_folder, "train")) - set(texts_of(dataset_folder, "train")))[:5]
    assert warnings(extra, model, twin) == [f"{path} was trained on 5 of these 5 texts."]  # the twin saw more


def test_what_a_model_began_with_counts_too(checkpoints: dict[str, Path], dataset_folder: Path, forward_folder: Path) -> None:
    path = checkpoints["pretraining"]
    extra = sorted(set(texts_of(forward_folder, "train")) - set(texts_of(dataset_folder, "train")))[:5]
    [warning] = warnings(extra, trained_on(path, forward_folder, init_from=str(path)))
    assert "does not say what it was trained on" in warning  # the first model of the two
    tuned = dataclasses.replace(load_checkpoint(path), stage="tuning", train_config={"model_path": str(path)})
    assert "does not say what it was trained on" in warnings(extra, tuned)[0]


def test_a_folder_that_has_changed_proves_nothing(checkpoints: dict[str, Path], dataset_folder: Path) -> None:
    checkpoint = trained_on(checkpoints["pretraining"], dataset_folder)
    texts = texts_of(dataset_folder, "val")
    same = dataclasses.replace(checkpoint, must_match={"the data": f"9 tokens ({open_dataset(dataset_folder).fingerprint})"})
    assert warnings(texts, same) == []
    changed = dataclasses.replace(checkpoint, must_match={"the data": "9 tokens (0123456789ab)"})
    [warning] = warnings(texts, changed)
    assert f"{dataset_folder} has changed since then" in warning and "may have been in its training data" in warning


def test_a_folder_that_is_gone_can_be_linked_and_nothing_is_downloaded(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    [warning] = warnings(["a text"], trained_on(checkpoints["pretraining"], tmp_path / "gone"))
    assert warning.endswith(f"{tmp_path / 'gone'} is not there. If it was moved, put a link there: ln -s NEW_PLACE {tmp_path / 'gone'}")
    assert "may have been in its training data" in warning and "preprocess" not in warning


def test_one_text_is_this_text(checkpoints: dict[str, Path], dataset_folder: Path) -> None:
    path = checkpoints["pretraining"]
    assert warnings(texts_of(dataset_folder, "train")[:1], trained_on(path, dataset_folder)) == [f"{path} was trained on this text."]
