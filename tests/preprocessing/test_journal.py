"""The journal: a run that ends at any step resumes to the same bytes, and only with the same settings."""

import itertools
import json
import shutil
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest

from formats.shards import open_dataset
from preprocessing.journal import Journal
from tests.conftest import fails_with, make_documents, make_pairs, write_jsonl, write_pairs
from tests.faults.in_children import refused
from tests.preprocessing.in_process import Crash, contents, run_here, run_to_the_first_record

CHUNK = 50


@pytest.fixture(scope="module")
def document_flags(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Three chunks of documents in two files."""
    folder = tmp_path_factory.mktemp("documents")
    texts = make_documents(2 * CHUNK + 30)
    sources = write_jsonl(folder / "a.jsonl", texts[:70]), write_jsonl(folder / "b.jsonl", texts[70:])
    return ["preprocess_xcoax.py", "--input", *sources, "--vocab-size", 400, "--val-share", 0.1]


@pytest.fixture(scope="module")
def pair_flags(tmp_path_factory: pytest.TempPathFactory, dataset_folder: Path) -> list[object]:
    """Three chunks of pairs, of which later ones hold copies of earlier pairs."""
    pairs = make_pairs(2 * CHUNK)
    rows = [*pairs, *pairs[::7], {"instruction": "last", "output": "last"}]
    source = write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", rows)
    return ["preprocess_instruct.py", "--input", source, "--tokenizer", dataset_folder, "--vocab-size", 400, "--val-share", 0.1]


@pytest.mark.parametrize("kind", ["document_flags", "pair_flags"])
def test_a_run_that_ends_at_any_step_resumes_to_the_same_bytes(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    flags = request.getfixturevalue(kind)
    whole = tmp_path / "whole"
    result = run_here(*flags, "--data-dir", whole, chunk_documents=CHUNK)
    assert result.returncode == 0, result.stderr
    dataset = open_dataset(whole, content=None)
    assert len(dataset.shards("train")) == 3
    assert dataset.meta["counts"] == ({"skipped: exact copy of another": 15} if kind == "pair_flags" else {})
    resumed = Counter[str]()
    for rename in itertools.count():  # tokenizer, plan, the shards and the record of each chunk, meta.json
        folder = tmp_path / str(rename)
        try:
            run_here(*flags, "--data-dir", folder, chunk_documents=CHUNK, crash_at_rename=rename)
        except Crash:
            result = run_here(*flags, "--data-dir", folder, chunk_documents=CHUNK)
        else:
            break
        assert result.returncode == 0, result.stderr
        resumed[result.stdout.partition("resuming")[2].partition(": ")[2].partition("\n")[0]] += 1
        assert contents(folder) == contents(whole)
    shards = len(dataset.shards("train")) + len(dataset.shards("val"))
    assert rename == 1 + 1 + shards + 3 + 1
    assert resumed[""] == 2  # before the plan, a run starts over
    assert resumed["3 chunks done"] == 1
    assert sum(resumed.values()) == rename


@pytest.mark.parametrize("kind", ["document_flags", "pair_flags"])
def test_a_finished_folder_is_extended_to_the_bytes_of_a_longer_run(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Killed at any step, too; until the end it stays what it was."""
    flags = request.getfixturevalue(kind)
    whole, folder = tmp_path / "whole", tmp_path / "data"
    assert run_here(*flags, "--num-chunks", 3, "--data-dir", whole, chunk_documents=CHUNK).returncode == 0
    assert run_here(*flags, "--num-chunks", 1, "--data-dir", folder, chunk_documents=CHUNK).returncode == 0
    short = (folder / "meta.json").read_bytes()
    for rename in itertools.count():
        try:
            result = run_here(*flags, "--num-chunks", 3, "--data-dir", folder, chunk_documents=CHUNK, crash_at_rename=rename)
        except Crash:
            assert (folder / "meta.json").read_bytes() == short
            assert len(open_dataset(folder, content=None, check_hashes=True).shards("train")) == 1
        else:
            break
    assert rename > 2
    assert result.returncode == 0, result.stderr
    assert contents(folder) == contents(whole)
    again = run_here(*flags, "--num-chunks", 2, "--data-dir", folder, chunk_documents=CHUNK)
    fails_with(again, 2, "was made with different settings: num_chunks was 3, now 2")


def test_a_folder_is_extended_with_the_same_other_settings_only(document_flags: list[object], tmp_path: Path) -> None:
    flags = [*document_flags, "--data-dir", tmp_path / "data"]
    assert run_here(*flags, "--num-chunks", 1, chunk_documents=CHUNK).returncode == 0
    fails_with(run_here(*flags, "--num-chunks", 2, "--seed", 4), 2, "num_chunks was 1, now 2", "seed was 0, now 4")


def test_a_started_folder_refuses_other_settings(document_flags: list[object], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with pytest.raises(Crash):
        run_here(*document_flags, "--data-dir", folder, crash_at_rename=2)
    assert (folder / "unfinished" / "plan.json").is_file()
    result = run_here(*document_flags, "--data-dir", folder, "--order", "forward")
    fails_with(result, 2, "was started with different settings: order was 'backward', now 'forward'", "another --data-dir", "delete")


def test_a_finished_folder_loses_what_a_killed_run_left(document_flags: list[object], tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert run_here(*document_flags, "--data-dir", folder).returncode == 0
    whole = contents(folder)
    (folder / "unfinished").mkdir()
    (folder / "unfinished" / "plan.json").write_text("{}")
    assert "is already finished" in run_here(*document_flags, "--data-dir", folder).stdout
    assert contents(folder) == whole


def test_a_kill_while_the_records_are_removed_leaves_none(document_flags: list[object], tmp_path: Path) -> None:
    """The plan goes last: records without one would be those of an extension, which stay."""
    whole, folder = tmp_path / "whole", tmp_path / "data"
    assert run_here(*document_flags, "--data-dir", whole, chunk_documents=CHUNK).returncode == 0
    unlink = Path.unlink
    for left in (1, 2, 3):  # records and the plan
        shutil.rmtree(folder, ignore_errors=True)

        def unlink_until(path: Path, missing_ok: bool = False, left: int = left) -> None:
            if path.parent.name == "unfinished" and not path.name.endswith(".part") and len(list(path.parent.iterdir())) == left:
                raise Crash
            unlink(path, missing_ok)

        with mock.patch.object(Path, "unlink", unlink_until), pytest.raises(Crash):
            run_here(*document_flags, "--data-dir", folder, chunk_documents=CHUNK)
        assert "is already finished" in run_here(*document_flags, "--data-dir", folder).stdout
        assert contents(folder) == contents(whole)


def test_an_extension_in_progress_is_not_disturbed(document_flags: list[object], tmp_path: Path) -> None:
    """By the command that made the folder."""
    flags = [*document_flags, "--data-dir", tmp_path / "data"]
    assert run_here(*flags, "--num-chunks", 1, chunk_documents=CHUNK).returncode == 0
    for rename in (0, 1, 3):
        with pytest.raises(Crash):
            run_here(*flags, "--num-chunks", 3, chunk_documents=CHUNK, crash_at_rename=rename)
        before = contents(tmp_path / "data" / "unfinished")
        assert "is already finished" in run_here(*flags, "--num-chunks", 1, chunk_documents=CHUNK).stdout
        assert contents(tmp_path / "data" / "unfinished") == before
    assert run_here(*flags, "--num-chunks", 3, chunk_documents=CHUNK).returncode == 0


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    return run_to_the_first_record(tmp_path / "data", tmp_path / "a.jsonl")


def test_a_record_with_impossible_numbers_is_refused(unfinished: Path) -> None:
    path = unfinished / "unfinished" / "chunk_00000.json"
    record = json.loads(path.read_text())
    for changes in ({"end": [float("inf"), 0]}, {"end": [0, -1]}, {"counts": {"x": float("inf")}}):
        path.write_text(json.dumps({**record, **changes}))
        assert refused(lambda: Journal(unfinished))


def test_a_folder_with_all_records_can_be_sealed(unfinished: Path) -> None:
    journal = Journal(unfinished)
    meta = {"content": "documents", "order": "backward", "vocab_size": 400, "tokenizer_sha256": "", "revision": ""}
    journal.seal({**meta, "held_out_below": 1, "settings": {"num_chunks": 1}}, "")
    assert open_dataset(unfinished).shards("train")
