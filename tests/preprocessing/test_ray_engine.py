"""The Ray engine: the bytes of local workers, also if a machine of the cluster is lost half-way."""

import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from formats.shards import open_dataset
from tests.conftest import ROOT, fails_with, make_documents, write_jsonl
from tests.preprocessing.in_process import contents, run_here

CHUNKS, CHUNK = 40, 50
CODE = f"""
import sys
from unittest import mock
import runpy
sys.argv = sys.argv[1:]
with mock.patch("preprocessing.chunks.CHUNK_DOCUMENTS", {CHUNK}):
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(folder: Path, *flags: object) -> tuple[list[str], subprocess.Popen[str]]:
    source = write_jsonl(folder / "documents.jsonl", make_documents(CHUNKS * CHUNK))
    common = ["--input", str(source), "--vocab-size", "400", "--val-share", "0.1"]
    command = [sys.executable, "-c", CODE, str(ROOT / "preprocess_xcoax.py"), *common, "--data-dir", str(folder / "ray"), *map(str, flags)]
    return common, subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
def test_a_lost_machine_changes_no_byte(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        machine = cluster.add_node(num_cpus=1)
        common, process = start(tmp_path, "--engine", "ray", "--ray-address", cluster.address)
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "ray" / "unfinished").glob("chunk_*"))) < 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        cluster.remove_node(machine, allow_graceful=False)
        printed, errors = process.communicate(timeout=200)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, errors
    assert "on Ray" in printed
    local = run_here("preprocess_xcoax.py", *common, "--data-dir", tmp_path / "local", chunk_documents=CHUNK)
    assert local.returncode == 0, local.stderr
    assert len(open_dataset(tmp_path / "ray").shards("train")) == CHUNKS
    ours, theirs = contents(tmp_path / "ray"), contents(tmp_path / "local")
    assert ours == theirs


@pytest.mark.long
def test_a_cluster_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    _, process = start(tmp_path, "--engine", "ray", "--ray-address", "127.0.0.1:1")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2
    assert errors.splitlines()[-1].startswith("preprocess_xcoax.py: --ray-address 127.0.0.1:1: ")
    assert "Traceback" not in errors


def test_without_ray_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "documents.jsonl", make_documents(100))
    flags = ["--input", source, "--data-dir", tmp_path / "data", "--vocab-size", 350]
    with mock.patch.dict(sys.modules, {"ray": None}):
        from preprocessing.ray_engine import RayWorkers
        from system.errors import UserError

        with pytest.raises(UserError, match="Ray is not installed. Run: pip install 'ray=="):
            RayWorkers(mock.Mock(), tmp_path, "")
    fails_with(run_here("preprocess_xcoax.py", *flags, "--ray-address", "x:1"), 2, "--ray-address: only with --engine ray")
