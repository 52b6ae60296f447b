"""A damaged journal of an unfinished folder: it can be resumed and sealed, or is refused in one line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from formats.shards import SPLITS, open_dataset
from preprocessing.journal import Journal
from tests.conftest import make_documents, write_jsonl
from tests.formats.test_damage import LONG, mutants, refused
from tests.preprocessing.in_process import Crash, run_here

QUICK = 100
COUNTS = pytest.mark.parametrize("count", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])


@pytest.fixture
def unfinished(tmp_path: Path) -> Path:
    """A folder with a plan and the record of one chunk, whose run ended before meta.json."""
    source = write_jsonl(tmp_path / "a.jsonl", [*make_documents(80), " "])
    folder = tmp_path / "data"
    with pytest.raises(Crash):  # after the renames of the tokenizer, the plan, two shards and the record
        run_here("preprocess_xcoax.py", "--input", source, "--vocab-size", 400, "--val-share", 0.1, "--data-dir", folder, crash_at_rename=5)
    assert (folder / "unfinished" / "chunk_00000.json").is_file()
    return folder


def damaged(path: Path, count: int) -> Iterator[None]:
    """Mutate the file, again and again."""
    for content in mutants(path.read_bytes(), count):
        path.write_bytes(content)
        yield


@COUNTS
def test_a_damaged_plan_is_refused_or_usable(unfinished: Path, count: int) -> None:
    for _ in damaged(unfinished / "unfinished" / "plan.json", count):
        if not refused(lambda: Journal(unfinished).plan()):
            plan = Journal(unfinished).plan()
            assert plan
            assert isinstance(plan["settings"], dict)
            assert isinstance(plan["held_out_below"], int)
            assert isinstance(plan["revision"], str)


@COUNTS
def test_a_damaged_record_is_refused_or_can_be_sealed(unfinished: Path, count: int) -> None:
    for _ in damaged(unfinished / "unfinished" / "chunk_00000.json", count):
        if refused(lambda: Journal(unfinished)):
            continue
        journal = Journal(unfinished)
        number, (file, row) = journal.resume_point()
        assert number == 1
        assert file >= 0
        assert row >= 0
        record = journal.records[0]
        shards = [shard for split in SPLITS for shard in record.shards[split]]
        assert all(shard.documents > 0 and shard.name.startswith(("train_", "val_")) for shard in shards)
        assert all(count >= 0 for count in record.counts.values())


def test_infinity_in_a_record_is_refused(unfinished: Path) -> None:
    path = unfinished / "unfinished" / "chunk_00000.json"
    record = json.loads(path.read_text())
    for changes in ({"end": [float("inf"), 0]}, {"end": [0, -1]}, {"counts": {"x": float("inf")}}):
        path.write_text(json.dumps({**record, **changes}))
        assert refused(lambda: Journal(unfinished))


def test_the_folder_of_these_tests_can_be_sealed(unfinished: Path) -> None:
    journal = Journal(unfinished)
    meta = {"content": "documents", "order": "backward", "vocab_size": 400, "tokenizer_sha256": "", "revision": "", "settings": {}}
    journal.seal(meta, "")
    assert open_dataset(unfinished).shards("train")
