"""The kit for a GPU, as far as a machine without one can show it: the report from given results, and the order of the stages."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarking.gpu import describe_gpu, file_stem
from benchmarking.gpu_report import as_page, problems_of, read_benchmark, read_tests, read_training, write_report
from benchmarking.stages import GRACE_SECONDS, Stage, run_stage
from tests.conftest import call_script, fails_with, write_jsonl

MACHINE = {"gpu": "NVIDIA Test 80GB", "gpu_memory_gib": 79.1, "driver": "", "torch": "2.13.0"}
DONE = Stage("python script.py", "| a | b |\n", 0, 12.3)
XML = """<testsuites><testsuite>
<testcase classname="tests.cuda.test_a" name="test_one" time="1"/>
<testcase classname="tests.cuda.test_a" name="test_two[x]" time="1"><failure message="assert 1 == 2&#10; +  where">long</failure></testcase>
<testcase classname="tests.cuda.test_b" name="test_three" time="1"><skipped message="needs two GPUs"/></testcase>
</testsuite></testsuites>"""


def write_metrics(folder: Path, steps: int) -> None:
    folder.mkdir()
    rows: list[dict[str, Any]] = [{"step": 0, "tokens": 0, "seconds": 0.0, "val_loss": 9.0, "bits_per_byte": 3.0, "sample": "text"}]
    for step in range(1, steps + 1):
        speed = {"tokens_per_second": 10.0 if step < 3 else 1000.0 + step, "tflops": 2.0, "share_of_peak": 0.5}
        rows.append({"step": step, "tokens": 100 * step, "seconds": float(step), "loss": 9 / step, "lr": 0.1, "grad_norm": 1.0, **speed})
    rows.append({"step": steps, "tokens": 100 * steps, "seconds": float(steps), "val_loss": 0.5, "bits_per_byte": 0.3, "sample": "text"})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def given_report(folder: Path, xml: str = XML, steps: int = 41) -> dict[str, dict[str, Any]]:
    (folder / "tests.xml").write_text(xml)
    (folder / "benchmark.json").write_text('{"parts": {}}')
    write_metrics(folder / "out", steps)
    return {
        "machine": MACHINE,
        "tests": read_tests(folder / "tests.xml", Stage("python -m pytest", "", 1, 30.0)),
        "benchmark": read_benchmark(folder / "benchmark.json", DONE),
        "training": read_training(folder / "out", DONE),
    }


def test_the_report_has_the_results_of_every_stage(tmp_path: Path) -> None:
    report = given_report(tmp_path)
    page = write_report(tmp_path / "benchmarks", report)
    assert page.name == "nvidia-test-80gb.md"
    assert json.loads(page.with_suffix(".json").read_text()) == report
    text = page.read_text()
    assert text == as_page(report)
    for part in (
        "# NVIDIA Test 80GB\n\nWritten by `make gpu`.\n\n- tests: 1 failed\n",
        "| gpu memory gib | 79.1 |\n| torch | 2.13.0 |",
        "1 passed, 1 failed, 1 skipped in 30 s.\n\n- `test_a::test_two[x]`: assert 1 == 2 + where\n- `test_b::test_three`: needs two GPUs",
        "`python script.py`, 12 s.\n\n| a | b |\n\n## Training",
        "Medians of the log lines: 1,022 tokens/s, 2.0 TFLOP/s, 50% of the peak in its data sheet.",
        "| 0 | 0 | 0 |  | 9.0000 |  |\n| 1 | 100 | 1 | 9.0000 |  | 10 |",
        "| 41 | 4,100 | 41 | 0.2195 | 0.5000 | 1,041 |\n",
    ):
        assert part in text, part
    assert len(text.partition("| step |")[2].strip().splitlines()) == 2 + 1 + 15  # head, first evaluation, log lines
    assert "driver" not in text  # unknown


def test_a_report_without_problems_says_so(tmp_path: Path) -> None:
    report = given_report(tmp_path, XML.replace("failure", "system-out"), steps=1)
    report["tests"]["problem"] = ""
    assert problems_of(report) == []
    text = as_page(report)
    assert "Everything passed and finished." in text
    assert "2 passed, 0 failed, 1 skipped in 30 s.\n\n- `test_b::test_three`: needs two GPUs\n" in text


def test_a_run_that_skipped_every_test_has_not_passed(tmp_path: Path) -> None:
    report = given_report(tmp_path, '<testsuite><testcase classname="a" name="b"><skipped message="needs a GPU"/></testcase></testsuite>')
    report["tests"]["problem"] = ""
    assert problems_of(report) == ["tests: 0 passed"]
    assert "Everything passed" not in as_page(report)


def test_stages_that_left_nothing_are_named_with_their_reason(tmp_path: Path) -> None:
    broken = Stage("python script.py", "some\nscript.py: no such flag\n╰───╯\n", 2, 1.0)
    cut = Stage("python -m pytest", "...", -2, 360.4, is_cut=True)
    report = {
        "machine": MACHINE,
        "tests": read_tests(tmp_path / "none.xml", cut),
        "benchmark": read_benchmark(tmp_path / "none.json", broken),
        "training": read_training(tmp_path, broken),
    }
    assert problems_of(report) == [
        "tests: `python -m pytest` was stopped after 360 s",
        "benchmark: failed with exit code 2: script.py: no such flag",
        "training: failed with exit code 2: script.py: no such flag",
    ]
    text = as_page(report)
    assert "0 passed, 0 failed, 0 skipped in 360 s." in text
    assert "No step was measured." in text


@pytest.mark.parametrize("content", [b"<testsuite>", b"\xff", b'<?xml version="1.0" encoding="x"?><a/>', b""])
def test_results_that_were_cut_off_are_a_problem(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "results").write_bytes(content)
    assert "its results cannot be read" in read_tests(tmp_path / "results", DONE)["problem"]
    assert "its figures cannot be read" in read_benchmark(tmp_path / "results", DONE)["problem"]


def test_the_results_of_pytest_are_read(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): assert 1 == 2\n@pytest.fixture\ndef broken(): raise ValueError('x')\n"
        "def test_c(broken): pass\ndef test_d(): pytest.skip('no reason')\n"
    )
    xml = tmp_path / "tests.xml"
    stage = run_stage("", ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(tmp_path), f"--junitxml={xml}"), 60)
    found = read_tests(xml, stage)
    assert (found["passed"], found["problem"]) == (1, "")
    assert [(test["name"], test["reason"][:20]) for test in found["failed"]] == [
        ("test_it::test_b", "assert 1 == 2"),
        ("test_it::test_c", "failed on setup with"),
    ]
    assert found["skipped"] == [{"name": "test_it::test_d", "reason": "no reason"}]


def test_a_gpu_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = SimpleNamespace(name="NVIDIA H100 80GB HBM3", total_memory=79 << 30, major=9, minor=0, multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    machine = describe_gpu()
    assert (machine["gpu"], machine["gpu_memory_gib"], machine["compute_capability"]) == ("NVIDIA H100 80GB HBM3", 79.0, "9.0")
    assert machine["torch"] == torch.__version__
    assert file_stem(machine["gpu"]) == "nvidia-h100-80gb-hbm3"


@pytest.mark.parametrize(("cuda", "reason"), [(None, "is a build without CUDA"), ("13.0", "finds none. See whether nvidia-smi does")])
def test_without_a_gpu_there_is_one_line(cuda: str | None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    fails_with(call_script("gpu_xcoax.py"), 1, "no GPU that PyTorch can use", reason)


@pytest.mark.parametrize("has_data", [False, True])
def test_every_stage_is_run_and_the_report_is_written(
    has_data: bool, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stages that only leave their files."""
    commands: list[list[str]] = []
    most_seconds = 30.0  # for what is between the stages

    def run(title: str, arguments: Sequence[str], limit_seconds: float) -> Stage:
        nonlocal most_seconds
        commands.append(list(arguments))
        most_seconds += limit_seconds + GRACE_SECONDS
        scratch = tmp_path / "out" / "gpu" / "scratch"
        if "pytest" in arguments:
            (scratch / "tests.xml").write_text(XML)
        elif arguments[0] == "benchmark_xcoax.py":
            Path(arguments[arguments.index("--json") + 1]).write_text("{}")
        elif arguments[0] == "train_xcoax.py":
            write_metrics(Path(arguments[arguments.index("--out-dir") + 1]), 5)
        return Stage(" ".join(arguments), "", 0, 1.0)

    def write_world(folder: Path, count: int) -> None:
        folder.mkdir()
        write_jsonl(folder / "stories.jsonl", ["a story"])

    monkeypatch.setattr("benchmarking.stages.run_stage", run)
    monkeypatch.setattr("benchmarking.gpu.describe_gpu", lambda: MACHINE)
    monkeypatch.setattr("preprocessing.toy_world.write_world", write_world)
    flags = ("--data-dir", dataset_folder) if has_data else ()
    fails_with(call_script("gpu_xcoax.py", *flags, cwd=tmp_path), 1, "no tests/cuda here")
    (tmp_path / "tests" / "cuda").mkdir(parents=True)
    result = call_script("gpu_xcoax.py", *flags, cwd=tmp_path)
    fails_with(result, 1, "not everything passed or finished: tests: 1 failed. See benchmarks/nvidia-test-80gb.md")
    names = [next(name for name in command if name.endswith((".py", "cuda"))) for command in commands]
    assert names == ["tests/cuda", "benchmark_xcoax.py", *(() if has_data else ("preprocess_xcoax.py",)), "train_xcoax.py"]
    assert most_seconds <= 25 * 60
    assert commands[-1][commands[-1].index("--data-dir") + 1] == (str(dataset_folder) if has_data else "out/gpu/scratch/data")
    assert (tmp_path / "benchmarks" / "nvidia-test-80gb.json").is_file()
    assert not (tmp_path / "out" / "gpu" / "scratch").exists()


def test_a_data_folder_that_is_not_finished_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarking.gpu.describe_gpu", lambda: MACHINE)
    fails_with(call_script("gpu_xcoax.py", "--data-dir", tmp_path), 1, "no finished dataset in")
