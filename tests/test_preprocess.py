"""From text to shards: documents come back whole, and a run that is killed comes to the same bytes."""

import contextlib
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from disk import claim
from shards import Dataset, Split, open_dataset
from tests.conftest import ROOT, fails_with, make_documents, run_script, write_jsonl
from text import arrange
from tokenizer import Tokenizer

CHUNK = 10_000


def read_back(dataset: Dataset, split: Split) -> list[str]:
    """The documents of a split, decoded and turned round."""
    tokenizer = Tokenizer.load(dataset.folder)
    documents = []
    for shard in dataset.shards(split):
        ids = np.fromfile(dataset.folder / shard.name, dtype="<u2")
        starts = np.flatnonzero(ids == tokenizer.end_of_text)
        assert len(starts) == shard.documents
        assert starts[0] == 0
        parts = [arrange(tokenizer.decode(part[1:].tolist()), dataset.order) for part in np.split(ids, starts[1:])]
        assert sum(len(part.encode()) for part in parts) == shard.bytes
        documents += parts
    return documents


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_documents_come_back_whole(dataset_folder: Path, documents: list[str]) -> None:
    dataset = open_dataset(dataset_folder, check_hashes=True)
    train, val = read_back(dataset, "train"), read_back(dataset, "val")
    assert Counter(train + val) == Counter(documents)
    assert not set(train) & set(val)
    assert 0.05 < len(val) / len(documents) < 0.2
    assert train != [text for text in documents if text in set(train)]  # the order of the source does not survive


def test_forward_shards_hold_the_text_as_it_is(documents: list[str], tmp_path: Path, dataset_folder: Path) -> None:
    source = write_jsonl(tmp_path / "documents.jsonl", documents)
    folder = tmp_path / "forward"
    result = run_script(
        *("preprocess_xcoax.py", "--input", source, "--data-dir", folder, "--order", "forward", "--val-share", 0.1, "--vocab-size", 400),
        *("--tokenizer", dataset_folder, "--workers", 1),
    )
    assert result.returncode == 0, result.stderr
    forward, backward = open_dataset(folder), open_dataset(dataset_folder)
    assert forward.order == "forward"
    assert forward.meta["tokenizer_sha256"] == backward.meta["tokenizer_sha256"]
    assert read_back(forward, "train") == read_back(backward, "train")  # the same documents in the same places: a twin


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    documents = make_documents(150) * 4
    folder = tmp_path / "data"
    source = write_jsonl(tmp_path / "documents.jsonl", documents)
    result = run_script("preprocess_xcoax.py", "--input", source, "--data-dir", folder, "--vocab-size", 400, "--val-share", 0.1)
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(folder)
    train, val = Counter(read_back(dataset, "train")), Counter(read_back(dataset, "val"))
    assert not train.keys() & val.keys()
    assert set((train + val).values()) == {4}


def test_dirt_is_skipped_and_counted(tmp_path: Path) -> None:
    good = make_documents(50)
    dirt = [{"text": ""}, {"text": " \n\t"}, {"text": None}, {"text": 7}, {"other": "x"}, {"text": "\ud800"}]
    rows = [*({"text": text} for text in good), *dirt]
    source = tmp_path / "dirt.jsonl"
    source.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + b'{"text": "\xff\xfe"}\n')
    folder = tmp_path / "data"
    result = run_script("preprocess_xcoax.py", "--input", source, "--data-dir", folder, "--vocab-size", 400, "--val-share", 0.1)
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(folder)
    assert dataset.meta["counts"] == {"skipped: empty": 2, "skipped: invalid UTF-8": 2, "skipped: not text": 3}
    assert "3 skipped: not text" in result.stdout
    assert Counter(read_back(dataset, "train") + read_back(dataset, "val")) == Counter(good)


def test_a_long_document_is_cut_and_counted(tmp_path: Path) -> None:
    text = "\n".join(make_documents(120))
    (tmp_path / "novel.txt").write_text(text, encoding="utf-8")
    folder = tmp_path / "data"
    flags = ["--input", tmp_path / "novel.txt", "--data-dir", folder, "--vocab-size", 400]
    fails_with(run_script("preprocess_xcoax.py", *flags), 1, "usable documents: 1", "--max-document-bytes")
    shutil.rmtree(folder)
    result = run_script("preprocess_xcoax.py", *flags, "--max-document-bytes", 1024)
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(folder)
    parts = read_back(dataset, "train") + read_back(dataset, "val")
    assert sum(map(len, parts)) == len(text)
    assert all(part in text and len(part.encode()) <= 1024 for part in parts)
    assert dataset.meta["counts"] == {"parts of cut documents": len(parts) - 1}


def test_a_finished_folder_is_left_alone(dataset_folder: Path) -> None:
    source = dataset_folder.parent / "documents.jsonl"
    flags = ["--input", source, "--data-dir", dataset_folder, "--vocab-size", 400, "--val-share", 0.1]
    before = contents(dataset_folder)
    result = run_script("preprocess_xcoax.py", *flags)
    assert result.returncode == 0
    assert "is finished already" in result.stdout
    fails_with(run_script("preprocess_xcoax.py", *flags, "--seed", 3), 2, "seed was 0, now 3", "another --data-dir")
    assert contents(dataset_folder) == before


def test_a_tokenizer_of_another_size_is_refused(dataset_folder: Path, tmp_path: Path) -> None:
    source = dataset_folder.parent / "documents.jsonl"
    result = run_script("preprocess_xcoax.py", "--input", source, "--data-dir", tmp_path / "x", "--tokenizer", dataset_folder)
    fails_with(result, 2, "--vocab-size 8888", "has 400 ids")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[object], Path]:
    """Flags for four chunks of documents in two files, and the folder that one undisturbed run makes of them."""
    folder = tmp_path_factory.mktemp("many")
    documents = make_documents(3 * CHUNK + 2000)
    write_jsonl(folder / "a.jsonl", documents[:15_000])
    write_jsonl(folder / "b.jsonl", documents[15_000:])
    flags: list[object] = ["preprocess_xcoax.py", "--input", folder / "a.jsonl", folder / "b.jsonl", "--vocab-size", 400]
    result = run_script(*flags, "--data-dir", folder / "whole", "--workers", 2)
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(folder / "whole", check_hashes=True)
    assert [shard.documents for shard in dataset.shards("train")] != []
    assert len(dataset.shards("train")) == 4
    assert Counter(read_back(dataset, "train") + read_back(dataset, "val")) == Counter(documents)
    return flags, folder / "whole"


def test_the_number_of_workers_does_not_show(many: tuple[list[object], Path], tmp_path: Path) -> None:
    flags, whole = many
    result = run_script(*flags, "--data-dir", tmp_path / "data", "--workers", 3)
    assert result.returncode == 0, result.stderr
    assert contents(tmp_path / "data") == contents(whole)


def test_num_chunks_bounds_the_documents(many: tuple[list[object], Path], tmp_path: Path) -> None:
    flags, whole = many
    result = run_script(*flags, "--data-dir", tmp_path / "data", "--num-chunks", 2)
    assert result.returncode == 0, result.stderr
    shards = open_dataset(tmp_path / "data").shards
    assert sum(shard.documents for shard in shards("train") + shards("val")) == 2 * CHUNK
    assert (tmp_path / "data" / "train_00001.bin").read_bytes() == (whole / "train_00001.bin").read_bytes()


def test_killed_at_any_moment_it_comes_to_the_same_bytes(many: tuple[list[object], Path], tmp_path: Path) -> None:
    flags, whole = many
    folder = tmp_path / "data"
    command = [sys.executable, *map(str, flags), "--data-dir", str(folder), "--workers", "2"]
    kills = 0
    for chunks in (0, 0, 1, 1, 2, 3):  # kill when so many chunks are journalled and a little more was done
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and len(list(folder.glob("unfinished/chunk_*.json"))) < chunks:
            time.sleep(0.005)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(kills * 0.3)
        if process.poll() is None:
            process.kill()
            kills += 1
        assert process.stderr is not None
        process.stderr.read()  # returns only when no worker is left that holds the pipe: none outlives its parent
        process.stderr.close()
        process.wait()
    assert kills >= 2
    result = run_script(*flags, "--data-dir", folder, "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert contents(folder) == contents(whole)


def start_and_wait_for(flags: list[object], folder: Path, name: str) -> subprocess.Popen[str]:
    """Start a run in a process group of its own and come back when the journal holds a file."""
    command = [sys.executable, *map(str, flags), "--data-dir", str(folder), "--workers", "1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (folder / "unfinished" / name).is_file():
        assert process.poll() is None
        time.sleep(0.01)
    return process


@pytest.mark.parametrize(("signal_number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_a_folder_that_resumes(
    many: tuple[list[object], Path], tmp_path: Path, signal_number: signal.Signals, exit_code: int
) -> None:
    flags, whole = many
    folder = tmp_path / "data"
    process = start_and_wait_for(flags, folder, "chunk_00000.json")
    os.killpg(process.pid, signal_number)  # as a terminal does: workers get it too
    _, errors = process.communicate(timeout=120)
    assert process.returncode == exit_code, errors
    assert "Traceback" not in errors
    assert "The same command goes on" in errors
    result = run_script(*flags, "--data-dir", folder)
    assert result.returncode == 0, result.stderr
    assert "going on with" in result.stdout
    assert contents(folder) == contents(whole)


def test_a_begun_folder_refuses_other_flags(many: tuple[list[object], Path], tmp_path: Path) -> None:
    flags, _ = many
    folder = tmp_path / "data"
    process = start_and_wait_for(flags, folder, "plan.json")
    process.kill()
    process.communicate()
    fails_with(run_script(*flags, "--data-dir", folder, "--order", "forward"), 2, "order was 'backward', now 'forward'")


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "documents.jsonl", make_documents(60))
    with claim(tmp_path / "data", "--data-dir"):
        result = run_script("preprocess_xcoax.py", "--input", source, "--data-dir", tmp_path / "data", "--vocab-size", 400)
    fails_with(result, 1, "another process is writing", "--data-dir")


def test_a_full_disk_keeps_what_is_done(many: tuple[list[object], Path], tmp_path: Path) -> None:
    """A limit on the size of a file stands in for the full disk: the write fails in the same place with an OSError."""
    flags, whole = many
    folder = tmp_path / "data"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    command = [sys.executable, *map(str, flags), "--data-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit, check=False)
    fails_with(result, 1, "chunk", os.strerror(errno.EFBIG), "run the same command again")
    assert not list(folder.glob("train_*.bin"))
    result = run_script(*flags, "--data-dir", folder)
    assert result.returncode == 0, result.stderr
    assert contents(folder) == contents(whole)


def test_the_vocabulary_that_the_text_cannot_fill(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "documents.jsonl", ["few words here"] * 20)
    fails_with(run_script("preprocess_xcoax.py", "--input", source, "--data-dir", tmp_path / "x"), 2, "--vocab-size 8888", "at most")


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": ""}\n{"text": "  "}\n'])
def test_no_usable_text_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "empty.jsonl").write_text(content)
    result = run_script("preprocess_xcoax.py", "--input", tmp_path / "empty.jsonl", "--data-dir", tmp_path / "data", "--workers", 1)
    fails_with(result, 1, "no usable text")


def test_a_killed_worker_ends_the_run_and_keeps_what_is_done(many: tuple[list[object], Path], tmp_path: Path) -> None:
    flags, whole = many
    folder = tmp_path / "data"
    process = start_and_wait_for(flags, folder, "chunk_00000.json")
    for child in psutil.Process(process.pid).children():
        if "spawn_main" in " ".join(child.cmdline()):
            child.kill()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert errors.count("\n") == 1
    assert "a worker process was killed" in errors
    assert run_script(*flags, "--data-dir", folder).returncode == 0
    assert contents(folder) == contents(whole)
