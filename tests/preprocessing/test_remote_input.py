"""Parquet files on the hub as --input: each worker reads its own rows, and a lost connection costs one chunk's reading."""

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from tests.conftest import ROOT, make_documents
from tests.preprocessing.hub_process import run_with_hub
from tests.preprocessing.hub_stand_in import HubStandIn, Trouble
from tests.preprocessing.in_process import contents, run_here

NAME = "someone/stand-in"
FILES, ROWS = 3, 250
CODE = """
import sys
from unittest import mock
import runpy
sys.argv = sys.argv[1:]
with mock.patch("preprocessing.parquet_chunks.CHUNK_DOCUMENTS", 100), mock.patch("time.sleep"):
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    documents = make_documents(FILES * ROWS)
    made = {}
    for number in range(FILES):
        file = io.BytesIO()
        table = pa.table({"text": documents[number * ROWS :][:ROWS], "id": list(range(ROWS))})
        pyarrow.parquet.write_table(table, file, row_group_size=50, compression="none", use_dictionary=False)
        made[f"sample/{number}.parquet"] = file.getvalue()
    return made


@pytest.fixture
def hub(files: dict[str, bytes]) -> Iterator[HubStandIn]:
    with HubStandIn(NAME, files) as stand_in:
        yield stand_in


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(None, marks=pytest.mark.long),
        Trouble("1.parquet", times=3, status=403, let_through=4),
        pytest.param(Trouble("2.parquet", times=2, status=503, let_through=4), marks=pytest.mark.long),
    ],
    ids=["undisturbed", "refuses for a while", "is busy"],
)
def test_workers_read_from_the_hub(trouble: Trouble | None, hub: HubStandIn, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.troubles = [trouble] if trouble else []
    common = ["--vocab-size", "400", "--val-share", "0.1", "--workers", "2"]
    flags = ["--input", f"hf://datasets/{NAME}/sample", "--data-dir", str(tmp_path / "remote"), *common, "--retries", "9"]
    result = run_with_hub(["-c", CODE, str(ROOT / "preprocess_xcoax.py"), *flags], hub.url, tmp_path)
    assert result.returncode == 0, result.stderr + result.stdout
    assert ("lost the connection while reading chunk" in result.stdout) == bool(trouble)
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    local = run_here("preprocess_xcoax.py", "--input", tmp_path / "sample", "--data-dir", tmp_path / "local", *common, chunk_documents=100)
    assert local.returncode == 0, local.stderr
    ours, theirs = (shards(tmp_path / folder) for folder in ("remote", "local"))
    assert len(ours) > 8
    assert ours == theirs


def shards(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if name != "meta.json"}
