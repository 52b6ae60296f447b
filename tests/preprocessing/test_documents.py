"""Documents to shards: they come back whole, in one split each, and every skipped or cut document is counted."""

import json
import random
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from formats.shards import Dataset, Split, open_dataset
from system.files import lock_folder
from tests.conftest import fails_with, make_documents, make_pairs, run_script, write_jsonl, write_pairs
from tests.preprocessing.in_process import contents, run_here
from tokens.reversal import reorder
from tokens.tokenizer import Tokenizer


def read_back(dataset: Dataset, split: Split) -> list[str]:
    """The documents of a split, decoded and reversed back."""
    tokenizer = Tokenizer.load(dataset.folder)
    documents = []
    for shard in dataset.shards(split):
        ids = np.fromfile(dataset.folder / shard.name, dtype="<u2")
        starts = np.flatnonzero(ids == tokenizer.end_of_text)
        assert len(starts) == shard.documents
        assert starts[0] == 0
        parts = [reorder(tokenizer.decode(part[1:].tolist()), dataset.order) for part in np.split(ids, starts[1:])]
        assert sum(len(part.encode()) for part in parts) == shard.bytes
        documents += parts
    return documents


def preprocess(source: Path, folder: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return run_here("preprocess_xcoax.py", "--input", source, "--data-dir", folder, "--vocab-size", 400, "--val-share", 0.1, *flags)


def test_documents_come_back_whole(dataset_folder: Path, documents: list[str]) -> None:
    dataset = open_dataset(dataset_folder, check_hashes=True)
    train, val = read_back(dataset, "train"), read_back(dataset, "val")
    assert Counter(train + val) == Counter(documents)
    assert not set(train) & set(val)
    assert 0.05 < len(val) / len(documents) < 0.2
    assert train != [text for text in documents if text in set(train)]  # shuffled


def test_the_script_in_a_shell_writes_the_same_bytes_as_in_process(dataset_folder: Path, tmp_path: Path) -> None:
    result = preprocess(dataset_folder.parent / "documents.jsonl", tmp_path / "data")
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "data") == contents(dataset_folder)


def test_forward_shards_hold_the_text_as_it_is(documents: list[str], tmp_path: Path, dataset_folder: Path) -> None:
    source = write_jsonl(tmp_path / "documents.jsonl", documents)
    result = preprocess(source, tmp_path / "forward", "--order", "forward", "--tokenizer", dataset_folder)
    assert result.returncode == 0, result.stderr
    forward, backward = open_dataset(tmp_path / "forward"), open_dataset(dataset_folder)
    assert forward.order == "forward"
    assert forward.meta["tokenizer_sha256"] == backward.meta["tokenizer_sha256"]
    assert read_back(forward, "train") == read_back(backward, "train")  # the same documents in the same places, for a twin model


def test_copies_are_in_the_same_split(tmp_path: Path) -> None:
    result = preprocess(write_jsonl(tmp_path / "documents.jsonl", make_documents(150) * 4), tmp_path / "data")
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(tmp_path / "data")
    train, val = Counter(read_back(dataset, "train")), Counter(read_back(dataset, "val"))
    assert not train.keys() & val.keys()
    assert set((train + val).values()) == {4}


def test_unusable_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    good = make_documents(50)
    unusable = [{"text": ""}, {"text": " \n\t"}, {"text": None}, {"text": 7}, {"other": "x"}, {"text": "\ud800"}]
    rows = [*({"text": text} for text in good), *unusable]
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + b'{"text": "\xff\xfe"}\n')
    result = preprocess(source, tmp_path / "data")
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(tmp_path / "data")
    assert dataset.meta["counts"] == {"skipped: empty": 2, "skipped: invalid UTF-8": 2, "skipped: not text": 3}
    assert "3 skipped: not text" in result.stdout
    assert Counter(read_back(dataset, "train") + read_back(dataset, "val")) == Counter(good)


def test_a_long_document_is_cut_and_counted(tmp_path: Path) -> None:
    text = "\n".join(make_documents(120))
    source, folder = tmp_path / "novel.txt", tmp_path / "data"
    source.write_text(text, encoding="utf-8")
    fails_with(preprocess(source, folder), 1, "usable documents: 1", "--max-document-bytes")
    shutil.rmtree(folder)
    result = preprocess(source, folder, "--max-document-bytes", 1024)
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(folder)
    parts = read_back(dataset, "train") + read_back(dataset, "val")
    assert sum(map(len, parts)) == len(text)
    assert all(part in text and len(part.encode()) <= 1024 for part in parts)
    assert dataset.meta["counts"] == {"parts of cut documents": len(parts) - 1}
    assert "few long documents: parts of them are held out for validation, so a document can be on both sides" in result.stdout
    assert dataset.meta["split_parts"] is True


@pytest.mark.parametrize("ending", [".txt", ".jsonl"])
def test_all_parts_of_a_document_are_in_the_same_split(tmp_path: Path, ending: str) -> None:
    books = ["\n".join(f"book {book}, {line}" for line in make_documents(40, seed=book)) for book in range(12)]
    source = tmp_path / f"books{ending}"
    if ending == ".txt":
        source.write_text("\n<|endoftext|>\n".join(books) + "\n", encoding="utf-8")
    else:
        write_jsonl(source, books)
    result = preprocess(source, tmp_path / "data", "--max-document-bytes", 1024, "--val-share", 0.3)
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(tmp_path / "data")
    assert "split_parts" not in dataset.meta
    assert dataset.meta["counts"]["parts of cut documents"] > 12
    train, val = (read_back(dataset, split) for split in ("train", "val"))
    for book in books:
        sides = {side for side, parts in (("train", train), ("val", val)) for part in parts if part.strip() and part in book}
        assert len(sides) == 1
    assert train and val


def test_files_become_chunks_and_num_chunks_limits_them(tmp_path: Path) -> None:
    texts = make_documents(350)
    sources = write_jsonl(tmp_path / "a.jsonl", texts[:150]), write_jsonl(tmp_path / "b.jsonl", texts[150:])
    for folder, flags in (("whole", ()), ("two", ("--num-chunks", 2))):
        script = ("preprocess_xcoax.py", "--input", *sources, "--data-dir", tmp_path / folder, "--vocab-size", 400)
        result = run_here(*script, *flags, chunk_documents=100)
        assert result.returncode == 0, result.stderr
    whole, two = open_dataset(tmp_path / "whole", check_hashes=True), open_dataset(tmp_path / "two")
    assert len(whole.shards("train")) == 4
    assert Counter(read_back(whole, "train") + read_back(whole, "val")) == Counter(texts)
    assert Counter(read_back(two, "train") + read_back(two, "val")) == Counter(texts[:200])
    assert (two.folder / "train_00001.bin").read_bytes() == (whole.folder / "train_00001.bin").read_bytes()


def test_a_finished_folder_is_not_changed(dataset_folder: Path) -> None:
    source = dataset_folder.parent / "documents.jsonl"
    before = contents(dataset_folder)
    result = preprocess(source, dataset_folder)
    assert result.returncode == 0
    assert "is already finished" in result.stdout
    fails_with(preprocess(source, dataset_folder, "--seed", 3), 2, "with different settings: seed was 0, now 3", "another --data-dir")
    assert contents(dataset_folder) == before


def test_a_tokenizer_brings_its_size_and_another_size_is_refused(dataset_folder: Path, tmp_path: Path) -> None:
    command = ["preprocess_xcoax.py", "--input", dataset_folder.parent / "documents.jsonl", "--tokenizer", dataset_folder]
    fails_with(run_here(*command, "--data-dir", tmp_path / "x", "--vocab-size", 8888), 2, "--vocab-size 8888", "has 400 ids")
    assert not (tmp_path / "x").exists()
    for name, flags in (("without", []), ("with", ["--vocab-size=400"])):
        assert run_here(*command, "--data-dir", tmp_path / name, *flags).returncode == 0
    assert contents(tmp_path / "without") == contents(tmp_path / "with")
    assert open_dataset(tmp_path / "without").meta["settings"]["vocab_size"] == 400


@pytest.mark.parametrize(
    ("texts", "words", "share", "advised"),
    [
        (300, 400, 0.05, True),  # too few documents
        (3000, 8, 0.05, True),  # enough documents, too few tokens
        (30, 4000, 0.3, False),  # more than half would have to be held out
    ],
)
def test_too_little_held_out_is_a_warning_that_its_own_advice_ends(
    texts: int, words: int, share: float, advised: bool, dataset_folder: Path, tmp_path: Path
) -> None:
    chooser = random.Random(0)
    lines = [" ".join(chooser.choices(("fox", "cat", "runs", "far"), k=words)) for _ in range(texts)]
    source = write_jsonl(tmp_path / "a.jsonl", lines)
    result = preprocess(source, tmp_path / "data", "--tokenizer", dataset_folder, "--val-share", share)
    [warning] = [line for line in result.stdout.splitlines() if line.startswith("warning: only ")]
    held_out = open_dataset(tmp_path / "data").shards("val")
    count, tokens = sum(shard.documents for shard in held_out), sum(shard.ids for shard in held_out)
    verb = "is" if count == 1 else "are"
    assert f"only {count} of {texts:,} documents {verb} held out ({tokens:,} tokens); a loss on fewer than 50 documents" in warning
    assert "50 documents or 20,000 tokens is uncertain" in warning
    found = re.search(r"--val-share ([\d.]+), in another --data-dir$", warning)
    assert bool(found) == advised, warning
    assert found or "Give more text" in warning
    if found:
        result = preprocess(source, tmp_path / "more", "--tokenizer", dataset_folder, "--val-share", found[1])
        assert (result.returncode, "warning" in result.stdout) == (0, False)


def test_of_pairs_only_the_number_is_warned_of(tmp_path: Path, dataset_folder: Path) -> None:
    source = write_pairs(tmp_path / "pairs.jsonl", make_pairs(400))
    for share, warns in ((0.05, True), (0.3, False)):
        flags = ["--data-dir", tmp_path / str(share), "--tokenizer", dataset_folder, "--val-share", share]
        result = run_here("preprocess_instruct.py", "--input", source, *flags)
        assert result.returncode == 0, result.stderr
        assert (
            "a loss on fewer than 50 pairs is uncertain. Make it again with --val-share 0.17, in another --data-dir" in result.stdout
        ) == warns
        assert sum(shard.ids for shard in open_dataset(tmp_path / str(share), "pairs").shards("val")) < 20_000


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "documents.jsonl", make_documents(60))
    with lock_folder(tmp_path / "data", "--data-dir"):
        result = preprocess(source, tmp_path / "data")
    fails_with(result, 1, "another process is writing", "--data-dir")


def test_too_little_text_for_the_vocabulary_is_one_line(tmp_path: Path) -> None:
    """In a process, because SentencePiece could print to its stderr."""
    source = write_jsonl(tmp_path / "documents.jsonl", ["few words here"] * 20)
    fails_with(run_script("preprocess_xcoax.py", "--input", source, "--data-dir", tmp_path / "x"), 2, "--vocab-size 8888", "at most")


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": ""}\n{"text": "  "}\n'])
def test_no_usable_text_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "empty.jsonl").write_text(content)
    fails_with(preprocess(tmp_path / "empty.jsonl", tmp_path / "data"), 1, "no usable text")


def test_few_long_documents_do_not_all_go_to_validation(tmp_path: Path) -> None:
    """One of two documents must be held out, and it may be nearly all of the text."""
    for seed in range(6):  # whichever has the smaller hash
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / "book.txt").write_text("\n".join(make_documents(200, seed)), encoding="utf-8")
        (folder / "notes.txt").write_text("\n".join(make_documents(3, seed + 100)), encoding="utf-8")
        result = preprocess(folder, folder / "data", "--max-document-bytes", 1024)
        assert result.returncode == 0, result.stderr
        dataset = open_dataset(folder / "data")
        train, val = (sum(shard.bytes for shard in dataset.shards(split)) for split in ("train", "val"))
        assert val < 0.4 * (train + val)


def test_copies_of_one_short_document_are_no_long_document(tmp_path: Path) -> None:
    result = preprocess(write_jsonl(tmp_path / "a.jsonl", [make_documents(1)[0] * 9] * 30 + make_documents(60)), tmp_path / "data")
    assert "few long documents" not in result.stdout
