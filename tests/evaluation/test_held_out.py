"""Held-out data: pairs that can be used or not, and notes on what may have been in training."""

from pathlib import Path

import pytest

from evaluation.held_out import read_texts
from system.errors import UserError
from tests.conftest import call_script, fails_with
from tests.evaluation.conftest import FEW, evaluate_pairs


def test_files_without_usable_pairs_are_refused(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    fails_with(evaluate_pairs(checkpoints["tuning"], tmp_path, []), 2, "no usable pairs (none left out or cut)")
    rows = [{"instruction": "word " * 2000, "output": "It is."}, {"instruction": "", "output": "x"}, "{ not json", {"text": "x"}]
    result = evaluate_pairs(checkpoints["tuning"], tmp_path, rows)
    fails_with(
        result,
        2,
        "1 left out: empty instruction",
        "1 left out: instruction too long",
        "1 left out: no pair in the row",
        "1 left out: not JSON",
    )
    result = call_script("evaluate_xcoax.py", "--model-path", checkpoints["tuning"], *FEW, "--pairs", tmp_path / "none.jsonl")
    fails_with(result, 2, "no such file")


def test_documents_that_may_have_been_in_training_are_noted(checkpoints: dict[str, Path], dataset_folder: Path, tmp_path: Path) -> None:
    flags = ["--model-path", checkpoints["pretraining"], "--data-dir", dataset_folder, "--documents", 3, "--hellaswag", ""]
    result = call_script("evaluate_xcoax.py", *flags, "--against", checkpoints["tuning"], "--out-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    printed = " ".join(result.stdout.split())
    for path in checkpoints.values():
        assert f"{path}: cannot read the data that it was trained on" in printed
    assert printed.count("so these texts may have been in its training data") == 2
    table = printed.index("loss, nats a token")
    assert printed.rindex("so these texts may have been in its training data") < table


def test_a_long_text_is_one_text_and_invalid_utf8_is_counted(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("the cat sleeps under a tree. " * 400, encoding="utf-8")
    (tmp_path / "invalid.txt").write_bytes(b"\xff\xfa\n<|endoftext|>\nvalid")
    texts = read_texts((str(tmp_path / "long.txt"), str(tmp_path / "invalid.txt")))
    assert texts.texts == ["the cat sleeps under a tree. " * 400, "valid"]
    assert texts.notes[0].startswith("2 texts; empty or not valid UTF-8: 1.")
    assert texts.name.endswith("long.txt and 1 more")


def test_texts_in_another_encoding_are_named_or_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\n"é,\nü"\n', encoding="cp1252")
    with pytest.raises(UserError, match=r"a.csv is not UTF-8. Name its encoding, perhaps with --encoding cp1252$"):
        read_texts((str(tmp_path / "a.csv"),))
    assert read_texts((str(tmp_path / "a.csv"),), "cp1252").texts == ["é,\nü"]


def test_errors_in_texts_name_flags_of_this_script(tmp_path: Path) -> None:
    (tmp_path / "fields.jsonl").write_text('{"body": "x"}\n', encoding="utf-8")
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    for name, part in (("fields.jsonl", "has no field 'text'"), ("empty.txt", "no text in it"), ("none.txt", "no such file")):
        with pytest.raises(UserError, match=part) as error:
            read_texts((str(tmp_path / name),))
        assert "--field" not in str(error.value) and "--input" not in str(error.value)
