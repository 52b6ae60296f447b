"""Two runs on one place: exactly one goes on, the other is told which process it would disturb, and nothing is damaged."""

import fcntl
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from formats.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from preprocessing import workers
from preprocessing.toy_world import write_world
from tests.conftest import call_script
from tests.faults.states import same_state
from tests.faults.trials import Trials
from tests.faults.writers import Sources, Writer, make_sources, rows_of, writers
from tests.preprocessing.in_process import contents

RACES = "two runs started on one place at the same moment"
KILLED = "a lock whose process was killed"
READERS = "a checkpoint read while training replaces it"
# What a run is told that came just after the other had ended.
CAME_LATE = "already exists|is not empty|is there already|was made with|is already finished|is already at step"


# How a race went.
NAMED = "were told the other's process"
UNNAMED = "were told that there is another"
LATE = "came when the work was done, and were told so"
AGAIN = "made a report again"


class Run(NamedTuple):
    """How a run ended."""

    process: int
    code: int
    printed: str
    told: str


class Started(NamedTuple):
    """A run in a process of its own, which waits to be let go."""

    process: int
    go: int
    result: int


def start(work: Callable[[], tuple[int, str, str]]) -> Started:
    """Fork a process that has everything imported, so that two of them do their work at one moment."""
    go_read, go = os.pipe()
    result, result_write = os.pipe()
    if process := os.fork():
        os.close(go_read)
        os.close(result_write)
        return Started(process, go, result)
    try:
        os.close(go)
        os.read(go_read, 1)
        os.write(result_write, json.dumps(work()).encode())
    finally:
        os._exit(0)


def end(started: Started) -> Run:
    """Wait for its end."""
    with os.fdopen(started.result, "rb") as file:
        content = file.read()
    os.waitpid(started.process, 0)
    os.close(started.go)
    code, printed, told = json.loads(content or '[-9, "", "killed"]')
    return Run(started.process, code, printed, told)


def script(command: list[object]) -> Callable[[], tuple[int, str, str]]:
    def work() -> tuple[int, str, str]:
        workers.START_METHOD = "spawn"  # the server of processes, which it would ask, belongs to the process of the tests
        result = call_script(*command)
        return result.returncode, result.stdout[-3000:], result.stderr[-3000:]

    return work


def race(*works: Callable[[], tuple[int, str, str]]) -> list[Run]:
    """Do these works at one moment."""
    both = [start(work) for work in works]
    for each in both:
        os.write(each.go, b"1")
    return [end(each) for each in both]


@pytest.fixture(scope="module")
def sources(dataset_folder: Path, checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(dataset_folder, checkpoints, tmp_path_factory.mktemp("sources"))


ROUNDS = 8  # of a pair for each script
QUICK = ("score --output", "export")


def alone(kind: Writer, place: Path) -> list[dict[str, bytes]]:
    """What each of the two runs of a race leaves at this place when it has it for itself."""
    found = []
    for command in (kind.with_seed(seed) for seed in range(2 if kind.has_seed else 1)):
        fresh(place)
        ended = race(script(command))[0]
        assert ended.code == 0, ended.told
        kind.check()
        found.append(contents(place))
    assert not kind.has_seed or differing(place, found[0]), "both runs leave the same: a mix could not be seen"
    return found if kind.has_seed else found * 2


def fresh(place: Path) -> None:
    """An empty folder."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()


def differing(place: Path, expected: dict[str, bytes]) -> list[str]:
    """The files that are not as a run on its own leaves them, of whatever it writes."""
    now = contents(place)
    names = sorted(now.keys() | expected.keys())
    return [name for name in names if name not in now or not same_state(name, now[name], expected.get(name))]


def judge(name: str, runs: list[Run], went_on: list[int]) -> str:
    """How the race went: the other was told whose place it is, it came late and was told so, or it did the work a second time."""
    assert went_on, [run.told for run in runs]
    assert not any("Traceback" in run.told for run in runs), [run.told for run in runs]
    for run in (run for run in runs if run.code):
        assert run.code in (1, 2) and run.told.strip().count("\n") == 0, run.told
        if re.search(CAME_LATE, run.told):
            return LATE
        holder = re.search(r"another process is writing \S+( \(process (\d+)\))?\. Wait for it, or use another --", run.told)
        assert holder, run.told
        assert not holder[2] or int(holder[2]) == runs[went_on[0]].process, (run.told, runs)
        return NAMED if holder[2] else UNNAMED  # the other had ended before its id could be looked up
    if name == "evaluate":  # a report may be made again
        return AGAIN
    assert any(re.search(CAME_LATE, run.printed) for run in runs), [run.printed for run in runs]
    return LATE


@pytest.mark.parametrize("count", [1, pytest.param(ROUNDS, marks=pytest.mark.faults)])
def test_of_two_runs_one_goes_on(trials: Callable[..., Trials], sources: Sources, tmp_path: Path, count: int) -> None:
    races = trials(RACES)
    outcomes: Counter[str] = Counter()
    place = tmp_path / "place"
    for name, kind in writers(sources, place).items():
        if count == 1 and name not in QUICK:
            continue
        expected = alone(kind, place)
        for number in range(count):
            fresh(place)
            with races.one(f"{name}, pair {number}") as trial:
                runs = race(*(script(kind.with_seed(seed)) for seed in range(2)))
                went_on = [index for index, run in enumerate(runs) if not run.code]
                outcome = judge(name, runs, went_on)
                kind.check()
                mixed = [differing(place, expected[index]) for index in went_on]
                assert not all(mixed), f"it is neither of the two runs: {mixed} differ"
                outcomes[outcome] += 1
                trial.refused = len(went_on) == 1
    assert outcomes[NAMED] or sys.platform != "linux"
    races.note = "; ".join(f"{outcomes[outcome]} {outcome}" for outcome in (NAMED, UNNAMED, LATE, AGAIN) if outcomes[outcome])


def held(lock: Path) -> bool:
    """Whether a process holds it."""
    try:
        descriptor = os.open(lock, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@pytest.mark.faults
def test_the_lock_of_a_killed_run_blocks_nobody(trials: Callable[..., Trials], sources: Sources, tmp_path: Path) -> None:
    killed = trials(KILLED)
    in_time = 0
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        for name, kind in writers(sources, tmp_path / str(number)).items():
            with killed.one(f"{name}, {number}"):
                run = start(script(kind.command))
                os.write(run.go, b"1")
                deadline = time.monotonic() + 60
                while (
                    not held(kind.lock)
                    and time.monotonic() < deadline
                    and not os.waitid(os.P_PID, run.process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                ):
                    time.sleep(0.0005)
                in_time += held(kind.lock)
                with suppress(ProcessLookupError):
                    os.kill(run.process, signal.SIGKILL)
                was_done = end(run).code == 0
                again = call_script(*kind.command)
                assert again.returncode == 0 or (was_done and re.search(CAME_LATE, again.stderr)), again.stderr
                kind.check()
    killed.note = f"{in_time} while they held it; the same command then went on"


@pytest.mark.faults
def test_two_demos_write_one_world(tmp_path: Path) -> None:
    def work() -> tuple[int, str, str]:
        write_world(tmp_path, 50)
        return 0, "", ""

    assert [run.code for run in race(work, work)] == [0, 0]
    assert rows_of(tmp_path / "stories.jsonl") == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs_held_out.jsonl", "pairs_train.jsonl", "stories.jsonl"]


def save(base: Checkpoint, path: Path, step: int) -> None:
    """A checkpoint all of whose weights are its step."""
    weights = {name: torch.full_like(tensor, step) for name, tensor in base.weights.items()}
    facts = {name: getattr(base, name) for name in ("model_config", "train_config", "stage", "must_match", "tokenizer", "order")}
    save_checkpoint(path, weights=weights, step=step, tokens=1, val_loss=1.0, **facts)


@pytest.mark.parametrize("saves", [10, pytest.param(300, marks=pytest.mark.faults)])
def test_a_reader_sees_one_whole_checkpoint(
    trials: Callable[..., Trials], checkpoints: dict[str, Path], tmp_path: Path, saves: int
) -> None:
    """Two readers, mapped and whole: the weights, the tokenizer and the step are of one moment, also if the file is replaced meanwhile."""
    base = replace(load_checkpoint(checkpoints["pretraining"], mapped=False))
    path = tmp_path / "best_checkpoint.pt"
    save(base, path, 0)

    def write() -> tuple[int, str, str]:
        for step in range(1, saves):
            save(base, path, step)
        (tmp_path / "done").touch()
        return 0, "", ""

    def read(mapped: bool) -> Callable[[], tuple[int, str, str]]:
        def work() -> tuple[int, str, str]:
            steps: list[int] = []
            while not (tmp_path / "done").exists() or not steps:
                found = load_checkpoint(path, mapped=mapped)
                time.sleep(0.002)
                if any(bool((tensor != found.step).any()) for tensor in found.weights.values()):
                    return 1, "", f"weights of step {found.step} are not its own"
                steps.append(found.step)
            return 0, json.dumps([len(steps), len(set(steps))]), ""

        return work

    reads = trials(READERS)
    seen: list[list[int]] = []
    for run in race(write, read(True), read(False)):
        with reads.one("a process"):
            assert run.code == 0, run.told
            seen += [json.loads(run.printed)] if run.printed else []
    for _ in range(sum(number for number, _ in seen)):
        with reads.one("a read"):
            pass
    reads.note = f"{sum(different for _, different in seen)} different steps seen, of {saves} that were written"
    assert call_script("sample_xcoax.py", "--model-path", path, "--prompt", "x", "--max-new-tokens", 1).returncode == 0
