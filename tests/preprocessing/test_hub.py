"""From the hub to finished shards, with a stand-in hub on this machine that fails on purpose."""

import io
import json
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from config import PreprocessConfig
from formats.shards import open_dataset
from preprocessing.hub import open_hub_dataset
from preprocessing.sources import Position, open_documents
from system.errors import UserError
from tests.conftest import fails_with
from tests.preprocessing.hub_process import HubProcess, run_with_hub
from tests.preprocessing.hub_stand_in import COMMIT, HubStandIn, Request, Trouble
from tests.preprocessing.in_process import contents, run_here
from tokens.reversal import reverse_words
from tokens.tokenizer import Tokenizer

NAME = "someone/stand-in"
FILES = 5
ROWS = 2000  # in each file
CHUNK = 3400  # three chunks in all
LARGE_ROWS = 3000
FOLDER = "sample/100BT"
TAIL_BYTES = 65_536  # the end of a Parquet file, which a reader requests first because it holds the schema
README = b"""---
configs:
- config_name: odd
  data_files:
  - split: train
    path: data/*.parquet
- config_name: sample-100BT
  data_files:
  - split: train
    path: sample/100BT/*.parquet
- config_name: broken
  data_files:
  - split: train
    path: broken/*.parquet
- config_name: chats
  data_files:
  - split: train
    path: chats/*.parquet
- config_name: large
  data_files:
  - split: train
    path: large/*.parquet
---
# Stand-in
"""


def documents() -> list[str]:
    generator = random.Random(0)
    words = ["".join(generator.choices("abcdefghijklmnoprstuvw", k=generator.randint(1, 6))) for _ in range(300)]
    rows = [f"{index} {' '.join(generator.choices(words, k=4))}" for index in range(FILES * ROWS)]
    rows[7] = "Once upon a time.\r\n\r\nThe  end. <|endoftext|>"
    rows[ROWS + 4] = "日本語 naïve 🙂\n\tindented"
    return rows


def as_parquet(texts: pa.Array, **columns: list[bytes]) -> bytes:
    table = pa.table({"text": texts, "id": list(range(len(texts))), "url": ["https://example.org/" + "x" * 60] * len(texts), **columns})
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, row_group_size=1000, compression="none", use_dictionary=False)
    return file.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubStandIn]:
    texts = documents()
    files = {f"{FOLDER}/{index:03}.parquet": as_parquet(pa.array(texts[index * ROWS :][:ROWS])) for index in range(FILES)}
    odd = [None, b"", b"  \n ", b"\xff\xfe", b"\xed\xa0\x80", *(f"{index} word".encode() for index in range(200))]
    files["data/odd.parquet"] = as_parquet(pa.array(odd, pa.binary()).view(pa.string()))
    files["broken/0.parquet"] = files["data/odd.parquet"][:-20]
    # More than the 32 MiB that a reader asks for at once, so that its rows come in several requests.
    files["large/0.parquet"] = as_parquet(pa.array(texts[:LARGE_ROWS]), padding=[bytes(12_000)] * LARGE_ROWS)
    turns = [[{"role": "user", "content": f"say {index}"}, {"role": "assistant", "content": f"it is {index}"}] for index in range(300)]
    table = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({"messages": turns, "id": list(range(300))}), table)
    files["chats/0.parquet"] = table.getvalue()
    assert all(len(data) > 2 * TAIL_BYTES for name, data in files.items() if name.startswith(FOLDER))
    with HubStandIn(NAME, {"README.md": README, **files}) as stand_in:
        yield stand_in


@pytest.fixture(autouse=True)
def healed(hub: HubStandIn) -> None:
    hub.heal()


@pytest.fixture(scope="module")
def process(hub: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    with HubProcess(hub.url, tmp_path_factory.mktemp("hub_process")) as started:
        yield started


def flags_for(folder: Path, *flags: str) -> list[str]:
    common = ["--dataset", NAME, "--subset", "sample-100BT", "--data-dir", str(folder / "data"), "--vocab-size", "400"]
    return ["preprocess_xcoax.py", *common, "--sample-bytes", "200000", "--retries", "2", "--workers", "1", *flags]


def preprocess(process: HubProcess, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return process.call(run_here, *flags_for(folder, *flags), chunk_documents=CHUNK)


def pauses(result: subprocess.CompletedProcess[str]) -> list[int]:
    return [int(seconds) for seconds in re.findall(r"Trying again in (\d+) s", result.stdout)]


def is_tail(request: Request, hub: HubStandIn) -> bool:
    size = len(hub.files[request.path[request.path.index(FOLDER) :]])
    return request.first is not None and request.first >= size - TAIL_BYTES


@pytest.fixture(scope="module")
def undisturbed(hub: HubStandIn, process: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder made while the hub has no troubles."""
    hub.heal()
    folder = tmp_path_factory.mktemp("undisturbed")
    result = preprocess(process, folder)
    assert result.returncode == 0, result.stderr
    assert pauses(result) == []
    return folder


def test_every_document_arrives(undisturbed: Path) -> None:
    data = undisturbed / "data"
    tokenizer = Tokenizer.load(data)
    arrived = Counter[str]()
    for path in sorted(data.glob("*.bin")):
        ids = np.fromfile(path, "<u2")
        starts = np.flatnonzero(ids == tokenizer.end_of_text)
        assert starts[0] == 0
        arrived.update(reverse_words(tokenizer.decode(part[1:])) for part in np.split(ids, starts[1:]))
    assert arrived == Counter(text.replace("\r\n", "\n") for text in documents())
    assert {path.name for path in data.glob("train_*")} == {f"train_{chunk:05}.bin" for chunk in range(3)}


def test_temporary_troubles_change_no_byte(hub: HubStandIn, process: HubProcess, undisturbed: Path, tmp_path: Path) -> None:
    hub.troubles = [
        Trouble("README.md", status=429, headers={"RateLimit": '"api";r=0;t=1'}),  # used up for one more second
        Trouble("/sample/100BT", status=500, headers={"RateLimit": '"api";r=3;t=300'}),  # not used up
        # Each file is requested twice, its end and its rows, for the tokenizer's sample, and twice again when it is read.
        Trouble("001.parquet", after_bytes=30_000, let_through=1),
        Trouble("003.parquet", status=503, headers={"Retry-After": "2"}, let_through=2),
    ]
    result = preprocess(process, tmp_path)
    assert result.returncode == 0, result.stderr
    assert pauses(result) == [2, 2, 1, 2]
    assert "answers 429" in result.stdout
    assert re.search("lost the connection while reading the end of a file: hf://.*003.parquet: .*503", result.stdout)
    assert [trouble.times for trouble in hub.troubles] == [0, 0, 0, 0]
    assert contents(tmp_path / "data") == contents(undisturbed / "data")


def test_a_folder_like_another_is_of_the_same_commit(hub: HubStandIn, process: HubProcess, undisturbed: Path, tmp_path: Path) -> None:
    def asks_for_the_newest(*flags: str) -> bool:
        """Whether making a folder like the first one asks for the newest commit of the data set."""
        hub.heal()
        hub.log.clear()
        command = ["preprocess_xcoax.py", "--like", str(undisturbed / "data"), "--data-dir", str(tmp_path / "x"), "--num-chunks", "1"]
        result = process.call(run_here, *command, *flags, chunk_documents=CHUNK)
        assert result.returncode == 0, result.stderr
        shutil.rmtree(tmp_path / "x")
        return any("/resolve/main/" in request.path for request in hub.log)

    assert not asks_for_the_newest("--order", "forward")
    assert asks_for_the_newest("--subset", "large")  # other text


def test_a_run_resumes_when_the_hub_comes_back(hub: HubStandIn, process: HubProcess, undisturbed: Path, tmp_path: Path) -> None:
    hub.troubles = [Trouble("004.parquet", let_through=2, for_good=True)]
    result = preprocess(process, tmp_path)
    assert pauses(result) == [1, 2, 1, 2]  # planning stops, then the chunk in progress
    fails_with(result, 1, ".parquet", "Gave up after 2 retries; finished work is kept")
    assert (tmp_path / "data" / "unfinished" / "chunk_00000.json").is_file()
    assert not (tmp_path / "data" / "meta.json").exists()

    hub.heal()
    result = preprocess(process, tmp_path)
    assert result.returncode == 0, result.stderr
    chunks = re.search("resuming .*: ([12]) chunks? done", result.stdout)
    assert chunks
    assert contents(tmp_path / "data") == contents(undisturbed / "data")
    # The resumed run reads the revision that the first run started with, even if there is a newer one.
    assert json.loads((tmp_path / "data" / "meta.json").read_text(encoding="utf-8"))["revision"] == COMMIT
    assert not [request for request in hub.log if "/resolve/main/" in request.path]
    read = {request.path[-11:] for request in hub.log if request.path.endswith(".parquet") and not is_tail(request, hub)}
    assert read == {f"{file:03}.parquet" for file in range(int(chunks[1]) * CHUNK // ROWS, FILES)}


def test_an_unknown_dataset_is_refused_without_retries(hub: HubStandIn, process: HubProcess, tmp_path: Path) -> None:
    result = preprocess(process, tmp_path, "--dataset", "someone/else")
    fails_with(result, 1, "'someone/else' doesn't exist on the Hub or cannot be accessed. Check --dataset", "--input")
    assert pauses(result) == []
    assert [request.method for request in hub.log if "someone/else" in request.path] == ["HEAD"]


def test_offline_mode_is_refused_without_retries(hub: HubStandIn, tmp_path: Path) -> None:
    result = run_with_hub(flags_for(tmp_path), hub.url, tmp_path, HF_HUB_OFFLINE="1")
    fails_with(result, 1, "HF_HUB_OFFLINE is set. Check the name and unset it", "--input")
    assert pauses(result) == []
    assert hub.log == []


def test_a_name_that_no_data_set_can_have_is_refused_without_the_hub(tmp_path: Path) -> None:
    for name in ("a b", "/no/such/folder", "owner/name/more"):
        with pytest.raises(UserError, match=f"--dataset {name}: a data set on the hub is named owner/name. Read local files"):
            open_hub_dataset(PreprocessConfig(dataset=name), "")


def test_an_unreachable_hub_is_one_line(tmp_path: Path) -> None:
    with HubStandIn(NAME, {}) as closed:
        url = closed.url
    result = run_with_hub(flags_for(tmp_path, "--retries", "1"), url, tmp_path)
    fails_with(
        result,
        1,
        "cannot reach someone/stand-in (sample-100BT) on the hub",
        "Gave up after 1 retry",
        "Check its name and the connection",
        "--input",
    )
    assert "doesn't exist" not in result.stderr
    assert pauses(result) == [1]


def first_rows(cases: list[dict[str, str]]) -> list[str]:
    """The first row of the stand-in data set with each of these settings, or the error."""
    found = []
    for settings in cases:
        try:
            source = open_documents(PreprocessConfig(dataset=NAME, retries=2, **settings))  # type: ignore[arg-type]  # strings all
            found.append(str(next(source.read(Position(0, 0)))))
        except UserError as error:
            found.append(str(error))
    return found


def test_an_unknown_subset_split_or_field_is_refused(process: HubProcess) -> None:
    cases = [
        ({"subset": "sample-10BT"}, ["'sample-10BT' not found", "'odd', 'sample-100BT', 'broken', 'chats', 'large'"]),
        ({"subset": ""}, ["'odd', 'sample-100BT', 'broken', 'chats', 'large'"]),
        ({"split": "test"}, ["'test'", "'train'"]),
        ({"field": "content"}, ["'content'", "text, id, url", "--field"]),
        ({"field": "id"}, ["file 1 of 5: the field 'id' holds int64, not text"]),
        ({"subset": "broken"}, ["broken"]),
    ]
    for line, (settings, words) in zip(process.call(first_rows, [settings for settings, _ in cases]), cases, strict=True):
        assert "\n" not in line
        assert all(word in line for word in words), (settings, line)


def test_the_script_in_a_shell_counts_unusable_rows(hub: HubStandIn, tmp_path: Path) -> None:
    result = run_with_hub(flags_for(tmp_path, "--subset", "odd", "--vocab-size", "280"), hub.url, tmp_path)
    assert result.returncode == 0, result.stderr
    meta = json.loads((tmp_path / "data" / "meta.json").read_text(encoding="utf-8"))
    assert meta["counts"] == {"skipped: empty": 2, "skipped: invalid UTF-8": 2, "skipped: not text": 1}
    assert sum(shard["documents"] for shards in meta["shards"].values() for shard in shards) == 200


class Rows(NamedTuple):
    """What was read from one position on."""

    rows: int
    first: str
    last: str
    first_end: Position
    last_end: Position
    characters: int


def read_rows(subset: str, starts: list[Position]) -> tuple[int, list[Rows], list[tuple[float, int]]]:
    """The number of files; the rows from each start on; and each pause, with the number of rows read before it."""
    source = open_documents(PreprocessConfig(dataset=NAME, subset=subset, retries=1))
    found: list[Rows] = []
    pauses: list[tuple[float, int]] = []
    for start in starts:
        texts: list[str] = []
        ends: list[Position] = []
        with mock.patch("time.sleep", lambda seconds, ends=ends: pauses.append((seconds, len(ends)))):
            for documents, end in source.read(start):
                assert documents[0].text is not None
                texts.append(documents[0].text.decode())
                ends.append(end)
        found.append(Rows(len(texts), texts[0], texts[-1], ends[0], ends[-1], sum(map(len, texts))))
    return len(source.names), found, pauses


def test_the_hub_is_read_from_any_position(process: HubProcess) -> None:
    starts = [Position(*start) for start in [(0, 0), (0, 1), (1, 999), (3, 1000), (3, ROWS - 1), (3, ROWS), (4, 1501)]]
    files, rows, pauses = process.call(read_rows, "sample-100BT", starts)
    assert (files, pauses) == (FILES, [])
    texts = [text.replace("\r\n", "\n") for text in documents()]
    for (file, row), found in zip(starts, rows, strict=True):
        rest = texts[file * ROWS + row :]
        after_first = Position(file, row + 1) if row < ROWS else Position(file + 1, 1)
        assert found == Rows(len(rest), rest[0], rest[-1], after_first, Position(FILES - 1, ROWS), sum(map(len, rest)))


def test_a_file_that_breaks_off_is_resumed_in_its_middle(hub: HubStandIn, process: HubProcess) -> None:
    # The schema; then the file's end, its first 32 MiB, and the rest, in the middle of which the connection breaks.
    hub.troubles = [Trouble("large/0.parquet", after_bytes=1_000_000, let_through=3)]
    _, rows, [(seconds, rows_before)] = process.call(read_rows, "large", [Position(0, 0)])
    assert seconds == 1
    assert 0 < rows_before < LARGE_ROWS
    texts = [text.replace("\r\n", "\n") for text in documents()[:LARGE_ROWS]]
    assert rows == [Rows(LARGE_ROWS, texts[0], texts[-1], Position(0, 1), Position(0, LARGE_ROWS), sum(map(len, texts)))]


def preprocess_pairs(process: HubProcess, folder: Path, tokenizer_folder: Path, subset: str) -> subprocess.CompletedProcess[str]:
    flags = ["--dataset", NAME, "--subset", subset, "--data-dir", str(folder / "data"), "--tokenizer", str(tokenizer_folder)]
    few = ["--vocab-size", "400", "--retries", "2", "--workers", "1", "--block-size", "64"]
    return process.call(run_here, "preprocess_instruct.py", *flags, *few)


def check_pairs(process: HubProcess, subset: str, tokenizer_folder: Path, folder: Path) -> None:
    """300 pairs arrive from a hub that fails once."""
    result = preprocess_pairs(process, folder, tokenizer_folder, subset)
    assert result.returncode == 0, result.stderr
    assert pauses(result) == [1]
    dataset = open_dataset(folder / "data", "pairs")
    assert sum(shard.documents for shard in dataset.shards("train") + dataset.shards("val")) == 300
    assert dataset.meta["revision"] == COMMIT
    tokenizer = Tokenizer.load(folder / "data")
    ids = np.fromfile(folder / "data" / "train_00000.bin", "<u2")
    starts = np.flatnonzero(ids == tokenizer.end_of_text)
    for part in np.split(ids, starts[1:]):
        assert re.fullmatch(r"(\d+) is it\1 say", tokenizer.decode(part))  # both texts reversed


def test_chats_arrive_from_the_hub(hub: HubStandIn, process: HubProcess, undisturbed: Path, tmp_path: Path) -> None:
    hub.troubles = [Trouble("chats/0.parquet", status=503)]
    check_pairs(process, "chats", undisturbed / "data", tmp_path)


def test_pairs_in_json_lines_arrive_from_the_hub(
    hub: HubStandIn, process: HubProcess, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"instruction": "say", "input": str(index), "output": f"it is {index}"} for index in range(300)]
    monkeypatch.setattr(hub, "files", {"open-instruct.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()})
    hub.troubles = [Trouble(".jsonl", status=503)]
    check_pairs(process, "", undisturbed / "data", tmp_path)


def test_a_dataset_without_pairs_is_refused_with_its_fields(process: HubProcess, undisturbed: Path, tmp_path: Path) -> None:
    result = preprocess_pairs(process, tmp_path, undisturbed / "data", "sample-100BT")
    fails_with(result, 2, "has the fields text, id, url", "instruction or prompt")
