"""Try this machine's GPU within 25 minutes: the tests that need one, the benchmark, and ten minutes of training.

    make gpu
    make gpu DATA=data/xcoax

It trains the published shape on the token shards in DATA; without them, on the demo's toy world. The report is written to
benchmarks/, as a page and as JSON, and named after the GPU. Everything else is made in out/gpu and deleted at the end.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from system.startup import run_script

from benchmarking.gpu import describe_gpu
from benchmarking.gpu_report import problems_of, read_benchmark, read_tests, read_training, write_report
from benchmarking.stages import run_stage
from formats.shards import open_dataset
from preprocessing.toy_world import write_world
from system.errors import UserError
from system.escapes import tell
from system.files import lock_folder

PRESET = "xcoax"
STORY_COUNT = 100_000
TRAINING_SECONDS = 600
# In seconds: 25 minutes with GRACE_SECONDS for each and half a minute for what is between them.
TEST_LIMIT, BENCHMARK_LIMIT, DATA_LIMIT, TRAINING_LIMIT = 270, 390, 30, 660
PARTS = ("train", "generate", "score", "preprocess")  # of the benchmark; what needs no GPU comes last, in case time runs out
EVALUATION = ("--eval-every", "200", "--eval-tokens", "131072", "--log-every", "5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="", help="finished data folder to train on; without it, the demo's toy world")
    data_dir = parser.parse_args().data_dir
    machine = describe_gpu()
    if not Path("tests/cuda").is_dir():
        raise UserError("no tests/cuda here. Run `make gpu` in the project's folder")
    if data_dir:
        open_dataset(Path(data_dir))  # refuses one that is not finished before anything takes time
    folder = Path("out/gpu")
    with lock_folder(folder, "folder of the project"):
        scratch = folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
        scratch.mkdir()
        try:
            report = {"machine": machine, **run_stages(scratch, data_dir)}
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    page = write_report(Path("benchmarks"), report)
    tell(f"\nwrote {page} and {page.with_suffix('.json')}")
    if problems := problems_of(report):
        raise UserError(f"not everything passed or finished: {'; '.join(problems)}. See {page}")


def run_stages(scratch: Path, data_dir: str) -> dict[str, dict[str, Any]]:
    """The results of all stages; one that fails does not keep the others from running."""
    tests, figures, out = scratch / "tests.xml", scratch / "benchmark.json", scratch / "out"
    stage = run_stage("[1/4] the tests that need a GPU", ("-m", "pytest", "tests/cuda", f"--junitxml={tests}"), TEST_LIMIT)
    tested = read_tests(tests, stage)
    stage = run_stage("[2/4] the benchmark", ("benchmark_xcoax.py", PRESET, "--parts", *PARTS, "--json", str(figures)), BENCHMARK_LIMIT)
    measured = read_benchmark(figures, stage)
    if not data_dir:
        world, data_dir = scratch / "world", str(scratch / "data")
        write_world(world, STORY_COUNT)
        source = ("--input", str(world / "stories.jsonl"), "--data-dir", data_dir)
        stage = run_stage(f"[3/4] {STORY_COUNT:,} stories of the toy world", ("preprocess_xcoax.py", "demo", *source), DATA_LIMIT)
        if stage.describe_end():
            return {"tests": tested, "benchmark": measured, "training": read_training(out, stage)}
    flags = ("--data-dir", data_dir, "--out-dir", str(out), "--hours", f"{TRAINING_SECONDS / 3600:.4f}", *EVALUATION, "--device", "cuda")
    stage = run_stage("[4/4] training", ("train_xcoax.py", PRESET, *flags), TRAINING_LIMIT)
    return {"tests": tested, "benchmark": measured, "training": read_training(out, stage)}


if __name__ == "__main__":
    run_script(main)
