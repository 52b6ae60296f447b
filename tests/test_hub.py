"""The road from the hub to finished shards, with a hub on this machine that fails on purpose."""

import io
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from config import CHUNK_DOCUMENTS
from shards import open_dataset
from tests.conftest import ROOT, fails_with
from tests.hub_stand_in import COMMIT, HubStandIn, Request, Trouble
from text import reverse_words
from tokenizer import Tokenizer

NAME = "someone/stand-in"
FILES = 5
ROWS = 6000  # of each file: three chunks of 10,000 in all
LARGE_ROWS = 3000
FOLDER = "sample/100BT"
TAIL_BYTES = 65_536  # the end of a Parquet file that a reader asks for first, to know what is in it
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
    table = pa.table({"text": texts, "id": list(range(len(texts))), "url": ["https://example.org"] * len(texts), **columns})
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
def _healed(hub: HubStandIn) -> None:
    hub.heal()


def run(arguments: list[str], url: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python command as a person would run it, with the hub at this address and no other cache than the folder's."""
    own = {"HF_ENDPOINT": url, "HF_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    # What is meant for another host comes here too: no test looks beyond this machine.
    proxies = {"HTTP_PROXY": url, "HTTPS_PROXY": url, "ALL_PROXY": url, "NO_PROXY": "127.0.0.1"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_") and not name.lower().endswith("_proxy")}
    environment = {**inherited, **own, **proxies, **environment}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def preprocess(url: str, folder: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    common = ["--dataset", NAME, "--subset", "sample-100BT", "--data-dir", str(folder / "data"), "--vocab-size", "400"]
    few = ["--sample-bytes", "200000", "--retries", "2", "--workers", "1"]
    return run(["preprocess_xcoax.py", *common, *few, *flags], url, folder, **environment)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "data").iterdir()}


def pauses(result: subprocess.CompletedProcess[str]) -> list[int]:
    return [int(seconds) for seconds in re.findall(r"Trying again in (\d+) s", result.stdout)]


def is_tail(request: Request, hub: HubStandIn) -> bool:
    size = len(hub.files[request.path[request.path.index(FOLDER) :]])
    return request.first is not None and request.first >= size - TAIL_BYTES


@pytest.fixture(scope="module")
def undisturbed(hub: HubStandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    hub.heal()
    folder = tmp_path_factory.mktemp("undisturbed")
    result = preprocess(hub.url, folder)
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


def test_troubles_that_pass_change_no_byte(hub: HubStandIn, undisturbed: Path, tmp_path: Path) -> None:
    hub.troubles = [
        Trouble("README.md", status=429, headers={"RateLimit": '"api";r=0;t=1'}),  # used up for one more second
        Trouble("/sample/100BT", status=500, headers={"RateLimit": '"api";r=3;t=300'}),  # not used up
        # Each file is asked for twice, its end and its rows, in the sample for the tokenizer, and twice again in the reading.
        Trouble("001.parquet", after_bytes=30_000, let_through=1),
        Trouble("003.parquet", status=503, headers={"Retry-After": "2"}, let_through=2),
    ]
    result = preprocess(hub.url, tmp_path)
    assert result.returncode == 0, result.stderr
    assert pauses(result) == [2, 2, 1, 2]
    assert "answers 429" in result.stdout
    assert re.search(r"lost the connection while reading someone/stand-in \(sample-100BT\), file 4 of 5: .*503", result.stdout)
    assert [trouble.times for trouble in hub.troubles] == [0, 0, 0, 0]
    assert contents(tmp_path) == contents(undisturbed)


def test_a_hub_that_goes_away_and_comes_back(hub: HubStandIn, undisturbed: Path, tmp_path: Path) -> None:
    hub.troubles = [Trouble("004.parquet", let_through=2, for_good=True)]
    result = preprocess(hub.url, tmp_path)
    assert pauses(result) == [1, 2]
    fails_with(result, 1, "file 5 of 5", "Gave up after 2 new attempts; what is done is kept")
    assert (tmp_path / "data" / "unfinished" / "chunk_00000.json").is_file()
    assert not (tmp_path / "data" / "meta.json").exists()

    hub.heal()
    result = preprocess(hub.url, tmp_path)
    assert result.returncode == 0, result.stderr
    chunks = re.search("going on with .*: ([12]) chunks are done", result.stdout)
    assert chunks
    assert contents(tmp_path) == contents(undisturbed)
    # The run goes on with the data set as it was when it began, whatever has become of it since.
    assert json.loads((tmp_path / "data" / "meta.json").read_text(encoding="utf-8"))["revision"] == COMMIT
    assert not [request for request in hub.log if "/resolve/main/" in request.path]
    read = {request.path[-11:] for request in hub.log if request.path.endswith(".parquet") and not is_tail(request, hub)}
    assert read == {f"{file:03}.parquet" for file in range(int(chunks[1]) * CHUNK_DOCUMENTS // ROWS, FILES)}


def test_an_unknown_dataset_is_named_at_once(hub: HubStandIn, tmp_path: Path) -> None:
    result = preprocess(hub.url, tmp_path, "--dataset", "someone/else")
    fails_with(result, 1, "'someone/else' doesn't exist on the Hub or cannot be accessed. Check --dataset", "--input")
    assert pauses(result) == []
    assert [request.method for request in hub.log if "someone/else" in request.path] == ["HEAD"]


def test_offline_mode_is_named_at_once(hub: HubStandIn, tmp_path: Path) -> None:
    result = preprocess(hub.url, tmp_path, HF_HUB_OFFLINE="1")
    fails_with(result, 1, "HF_HUB_OFFLINE is set", "--input")
    assert pauses(result) == []
    assert hub.log == []


FIRST_ROWS = """
import json, sys
from config import PreprocessConfig
from corpus import Position, open_documents
from errors import UserError
for flags in json.loads(sys.argv[1]):
    try:
        print(next(open_documents(PreprocessConfig(dataset="someone/stand-in", retries=2, **flags)).read(Position(0, 0))))
    except UserError as error:
        print(error)
"""


def test_what_a_dataset_lacks_is_named_at_once(hub: HubStandIn, tmp_path: Path) -> None:
    cases = [
        ({"subset": "sample-10BT"}, ["'sample-10BT' not found", "'odd', 'sample-100BT', 'broken', 'chats', 'large'"]),
        ({"subset": ""}, ["'odd', 'sample-100BT', 'broken', 'chats', 'large'"]),
        ({"split": "test"}, ["'test'", "'train'"]),
        ({"field": "content"}, ["'content'", "text, id, url", "--field"]),
        ({"field": "id"}, ["file 1 of 5: the field 'id' holds int64, not text"]),
        ({"subset": "broken"}, ["broken"]),
    ]
    result = run(["-c", FIRST_ROWS, json.dumps([flags for flags, _ in cases])], hub.url, tmp_path)
    assert result.returncode == 0, result.stderr
    for line, (flags, words) in zip(result.stdout.splitlines(), cases, strict=True):
        assert all(word in line for word in words), (flags, line)


def test_a_hub_that_is_not_there(tmp_path: Path) -> None:
    with HubStandIn(NAME, {}) as closed:
        url = closed.url
    result = preprocess(url, tmp_path)
    fails_with(result, 1, "cannot reach someone/stand-in (sample-100BT) on the hub", "Gave up after 2 new attempts", "--input")
    assert "doesn't exist" not in result.stderr
    assert pauses(result) == [1, 2]


def test_odd_rows_are_counted_not_fatal(hub: HubStandIn, tmp_path: Path) -> None:
    result = preprocess(hub.url, tmp_path, "--subset", "odd", "--vocab-size", "280")
    assert result.returncode == 0, result.stderr
    meta = json.loads((tmp_path / "data" / "meta.json").read_text(encoding="utf-8"))
    assert meta["counts"] == {"skipped: empty": 2, "skipped: invalid UTF-8": 2, "skipped: not text": 1}
    assert sum(shard["documents"] for shards in meta["shards"].values() for shard in shards) == 200


READ_ROWS = """
import json, sys, time
from config import PreprocessConfig
from corpus import Position, open_documents
subset, starts = json.loads(sys.argv[1])
corpus = open_documents(PreprocessConfig(dataset="someone/stand-in", subset=subset, retries=1))
found, pauses = [], []
time.sleep = lambda seconds: pauses.append((seconds, len(rows)))
for start in starts:
    rows = []
    for documents, end in corpus.read(Position(*start)):
        rows.append((documents[0].text.decode(), list(end)))
    texts, ends = zip(*rows)
    found.append((len(texts), texts[0], texts[-1], ends[0], ends[-1], sum(map(len, texts))))
print(json.dumps([len(corpus.names), found, pauses]))
"""


def read_rows(hub: HubStandIn, folder: Path, subset: str, starts: list[tuple[int, int]]) -> tuple[int, list[list[object]], list[list[int]]]:
    """The number of files; from each start on, what was read; and the pauses, each with the number of rows read before."""
    result = run(["-c", READ_ROWS, json.dumps([subset, starts])], hub.url, folder)
    assert result.returncode == 0, result.stderr
    count, found, pauses = json.loads(result.stdout.splitlines()[-1])
    return count, found, pauses


def test_reading_begins_anywhere(hub: HubStandIn, tmp_path: Path) -> None:
    starts = [(0, 0), (0, 1), (1, 999), (3, 1000), (3, ROWS - 1), (3, ROWS), (4, 2501)]
    files, rows, pauses = read_rows(hub, tmp_path, "sample-100BT", starts)
    assert (files, pauses) == (FILES, [])
    texts = [text.replace("\r\n", "\n") for text in documents()]
    for (file, row), found in zip(starts, rows, strict=True):
        rest = texts[file * ROWS + row :]
        after_first = [file, row + 1] if row < ROWS else [file + 1, 1]
        assert found == [len(rest), rest[0], rest[-1], after_first, [FILES - 1, ROWS], sum(map(len, rest))]


def test_a_file_that_breaks_off_is_taken_up_in_its_middle(hub: HubStandIn, tmp_path: Path) -> None:
    # The schema; then the file's end, its first 32 MiB, and the rest, in the middle of which the connection breaks.
    hub.troubles = [Trouble("large/0.parquet", after_bytes=1_000_000, let_through=3)]
    _, rows, [[seconds, rows_before]] = read_rows(hub, tmp_path, "large", [(0, 0)])
    assert seconds == 1
    assert 0 < rows_before < LARGE_ROWS
    texts = [text.replace("\r\n", "\n") for text in documents()[:LARGE_ROWS]]
    assert rows == [[LARGE_ROWS, texts[0], texts[-1], [0, 1], [0, LARGE_ROWS], sum(map(len, texts))]]


def check_pairs(hub: HubStandIn, subset: str, tokenizer_folder: Path, folder: Path) -> None:
    """300 pairs come through a hub that fails once."""
    flags = ["--dataset", NAME, "--subset", subset, "--data-dir", str(folder / "data"), "--tokenizer", str(tokenizer_folder)]
    few = ["--vocab-size", "400", "--retries", "2", "--workers", "1", "--block-size", "64"]
    result = run(["preprocess_instruct.py", *flags, *few], hub.url, folder)
    assert result.returncode == 0, result.stderr
    assert pauses(result) == [1]
    dataset = open_dataset(folder / "data", "pairs")
    assert sum(shard.documents for shard in dataset.shards("train") + dataset.shards("val")) == 300
    assert dataset.meta["revision"] == COMMIT
    tokenizer = Tokenizer.load(folder / "data")
    ids = np.fromfile(folder / "data" / "train_00000.bin", "<u2")
    starts = np.flatnonzero(ids == tokenizer.end_of_text)
    for part in np.split(ids, starts[1:]):
        assert re.fullmatch(r"(\d+) is it\1 say", tokenizer.decode(part))  # both texts turned round


def test_chats_arrive_from_the_hub(hub: HubStandIn, undisturbed: Path, tmp_path: Path) -> None:
    hub.troubles = [Trouble("chats/0.parquet", status=503)]
    check_pairs(hub, "chats", undisturbed / "data", tmp_path)


def test_pairs_in_json_lines_arrive_from_the_hub(undisturbed: Path, tmp_path: Path) -> None:
    rows = [{"instruction": "say", "input": str(index), "output": f"it is {index}"} for index in range(300)]
    with HubStandIn(NAME, {"open-instruct.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()}) as hub:
        hub.troubles = [Trouble(".jsonl", status=503)]
        check_pairs(hub, "", undisturbed / "data", tmp_path)


def test_a_dataset_without_pairs_is_refused_with_its_fields(hub: HubStandIn, undisturbed: Path, tmp_path: Path) -> None:
    flags = ["--dataset", NAME, "--subset", "sample-100BT", "--tokenizer", str(undisturbed / "data"), "--vocab-size", "400"]
    result = run(["preprocess_instruct.py", *flags, "--data-dir", str(tmp_path / "data")], hub.url, tmp_path)
    fails_with(result, 2, "has the fields text, id, url", "instruction or prompt")
