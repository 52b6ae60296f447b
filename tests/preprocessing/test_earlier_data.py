"""--like: a data folder like another one, of the same input, settings and tokenizer; its twin in the other word order."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from formats.shards import open_dataset
from tests.conftest import fails_with, make_documents, make_pairs, write_jsonl, write_pairs
from tests.preprocessing.in_process import contents, run_here

Originals = dict[str, tuple[Path, list[object]]]  # by content: a folder, and the flags it was made with
SCRIPTS = {"documents": "preprocess_xcoax.py", "pairs": "preprocess_instruct.py"}


def preprocess(content: str, *flags: object) -> subprocess.CompletedProcess[str]:
    return run_here(SCRIPTS[content], *flags)


@pytest.fixture(scope="module")
def originals(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Originals:
    """A folder of each kind, made with no setting at its default, and the flags it was made with."""
    folder = tmp_path_factory.mktemp("originals")
    (folder / "texts").mkdir()
    write_jsonl(folder / "texts" / "a.jsonl", make_documents(300))
    write_pairs(folder / "pairs.jsonl", make_pairs(200))
    flags: dict[str, list[object]] = {
        "documents": ["--input", folder / "texts", folder / "texts" / "a.jsonl", "--max-document-bytes", 2000, "--sample-bytes", 90_000],
        "pairs": ["--input", folder / "pairs.jsonl", "--block-size", 64, "--tokenizer", dataset_folder],
    }
    made = {}
    for content, own in flags.items():
        always = [*own, "--vocab-size", 400, "--val-share", 0.25, "--seed", 5, "--num-chunks", 7]
        result = preprocess(content, *always, "--data-dir", folder / content)
        assert result.returncode == 0, result.stderr
        made[content] = (folder / content, always)
    return made


@pytest.mark.parametrize("content", SCRIPTS)
def test_the_twin_is_the_one_that_all_flags_would_make(content: str, originals: Originals, tmp_path: Path) -> None:
    original, flags = originals[content]
    result = preprocess(content, "--like", original, "--data-dir", tmp_path / "like", "--order", "forward")
    assert result.returncode == 0, result.stderr
    assert f"  like {original}, except: order was 'backward', now 'forward'\n" in result.stdout
    assert not [line for line in result.stdout.splitlines() if "meta.json" in line]  # the record lacks nothing
    by_hand = [*flags, "--tokenizer", original, "--data-dir", tmp_path / "flags", "--order", "forward"]
    assert preprocess(content, *by_hand).returncode == 0
    assert contents(tmp_path / "like") == contents(tmp_path / "flags")
    twin, first = (open_dataset(folder, None) for folder in (tmp_path / "like", original))
    assert twin.meta["held_out_below"] == first.meta["held_out_below"]
    assert [(shard.documents, shard.bytes) for shard in twin.shards("val")] == [(s.documents, s.bytes) for s in first.shards("val")]
    again = preprocess(content, "--like", original, "--data-dir", tmp_path / "like", "--order", "forward")
    assert "is already finished" in again.stdout, again.stderr


def test_flags_change_what_is_taken(originals: Originals, tmp_path: Path) -> None:
    original, _ = originals["documents"]
    source = write_jsonl(tmp_path / "b.jsonl", make_documents(90, seed=8))
    result = preprocess("documents", f"--like={original}", "--data-dir", tmp_path / "x", "--input", source, "--seed", 6)
    assert result.returncode == 0, result.stderr
    settings = open_dataset(tmp_path / "x").meta["settings"]
    assert settings["input"][0].startswith("b.jsonl (")
    assert (settings["seed"], settings["val_share"], settings["max_document_bytes"]) == (6, 0.25, 2000)
    assert "except: input was ['a.jsonl (" in result.stdout
    assert "seed was 5, now 6" in result.stdout


def test_input_that_changed_is_told(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", make_documents(90))
    flags = ["--vocab-size", 400, "--val-share", 0.25]
    assert preprocess("documents", "--input", source, "--data-dir", tmp_path / "first", *flags).returncode == 0
    write_jsonl(source, make_documents(91))
    result = preprocess("documents", "--like", tmp_path / "first", "--data-dir", tmp_path / "second")
    assert f"  like {tmp_path / 'first'}, except: input was ['a.jsonl (" in result.stdout, result.stderr


def test_a_folder_of_an_earlier_version_needs_its_input(originals: Originals, tmp_path: Path) -> None:
    original, _ = originals["documents"]
    shutil.copytree(original, tmp_path / "old")
    meta = json.loads((original / "meta.json").read_text())
    del meta["given"], meta["settings"]["clean"]
    (tmp_path / "old" / "meta.json").write_text(json.dumps(meta))
    command = ["--like", tmp_path / "old", "--data-dir", tmp_path / "x"]
    fails_with(preprocess("documents", *command), 2, f"--like {tmp_path / 'old'}: ", "did not record its --input. Give that too")
    result = preprocess("documents", *command, "--input", original.parent / "texts", original.parent / "texts" / "a.jsonl")
    assert result.returncode == 0, result.stderr
    assert "has no clean" not in result.stdout  # what was done then is known
    assert (tmp_path / "x" / "train_00000.bin").read_bytes() == (original / "train_00000.bin").read_bytes()


def test_what_cannot_be_imitated_is_refused_in_one_line(originals: Originals, tmp_path: Path) -> None:
    documents, pairs = originals["documents"][0], originals["pairs"][0]
    to = ["--data-dir", tmp_path / "x"]
    fails_with(preprocess("documents", "--like", documents), 2, f"--like {documents}: name the new folder with --data-dir")
    fails_with(
        preprocess("documents", "--like", pairs, *to), 2, "it holds pairs, made by preprocess_instruct.py. Name a folder of documents"
    )
    fails_with(preprocess("pairs", "--like", documents, *to), 2, "it holds documents, made by preprocess_xcoax.py. Name a folder of pairs")
    fails_with(preprocess("documents", "--like", tmp_path, *to), 2, f"--like {tmp_path}: no finished dataset in")
    shutil.copytree(documents, tmp_path / "damaged")
    meta = json.loads((documents / "meta.json").read_text())
    meta["settings"]["seed"] = "five"
    (tmp_path / "damaged" / "meta.json").write_text(json.dumps(meta))
    fails_with(preprocess("documents", "--like", tmp_path / "damaged", *to), 2, "meta.json is damaged", "seed is 'five'")
    assert not (tmp_path / "x").exists()
