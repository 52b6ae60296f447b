"""SIGKILL at any moment of the work: the same command then ends with the same bytes as a run that nothing disturbed."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
import torch

from config import ModelConfig
from formats.checkpoint import save_checkpoint
from model import GPT
from tests.conftest import ROOT, make_documents, make_pairs, run_script, write_jsonl, write_pairs
from tests.faults.states import same_state
from tests.faults.trials import Trials
from tests.preprocessing.in_process import contents
from tests.training.runs import pretraining_command, tuning_command
from tokens.tokenizer import Tokenizer
from training.metrics import METRICS
from training.run_record import RECORD

Start = Callable[..., Trials]
CHUNK = 400  # documents or pairs; the real number would take minutes to make enough of
SMALL_CHUNKS = f"""import runpy, sys, preprocessing.chunks
preprocessing.chunks.CHUNK_DOCUMENTS = {CHUNK}
sys.argv = sys.argv[1:]
sys.path[0] = {str(ROOT)!r}
runpy.run_path(sys.argv[0], run_name="__main__")"""
DONE = re.compile("already exists|is not empty|is there already")
TUNED = ("--epochs", 1, "--eval-every", 5)


class Lost(Exception):
    """A chain of kills that did not end right."""

    def __init__(self, kills: list[str], problem: object) -> None:
        super().__init__(f"after {kills}: {problem}")
        self.kills = kills


class Campaign:
    """Kills of one command that writes into a folder."""

    def __init__(self, folder: Path, command: Sequence[object], who: Sequence[str] = ("group", "process")) -> None:
        self.folder, self.who = folder, who
        small = ["-c", SMALL_CHUNKS] if str(command[0]).startswith("preprocess") else []
        self.line = [sys.executable, *small, *map(str, command)]
        self.chooser = random.Random(16)
        self.early = 0  # kills that came before any of the work was on disk
        self.processes: list[subprocess.Popen[str]] = []
        self.begin()
        process = self.start()
        self.wait_for_work(process)
        started = changed = time.monotonic()
        state = self._state()
        while process.poll() is None:
            before, state = state, self._state()
            if before != state:
                changed = time.monotonic()
            time.sleep(0.002)
        self.end(process)
        self.seconds = changed - started  # of work: the end of the interpreter can take longer
        self.whole = contents(folder)

    def begin(self) -> None:
        """An empty folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def start(self) -> subprocess.Popen[str]:
        """Start the command as it is, in a process group of its own. What it prints goes to files: a pipe would hold it up."""
        self.found = self._state()
        self.printed = self.folder.with_name("printed")
        with self.printed.open("w") as out, self.folder.with_name("errors").open("w") as errors:
            line, env = self.line, {**os.environ, "OMP_NUM_THREADS": "1"}
            process = subprocess.Popen(line, cwd=ROOT, stdout=out, stderr=errors, text=True, start_new_session=True, env=env)
        self.processes.append(process)
        return process

    def wait_for_work(self, process: subprocess.Popen[str]) -> None:
        """Wait for a first sign of work: a line on stdout or a change on disk."""
        while process.poll() is None and not self.printed.stat().st_size and self._state() == self.found:
            time.sleep(0.002)

    def _state(self) -> dict[str, int]:
        state = {}
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                if path.name != ".lock":
                    state[str(path)] = path.stat().st_mtime_ns
        return state

    def end(self, process: subprocess.Popen[str], may_be_done: bool = False) -> None:
        """Wait for the end of a run that nothing disturbs. If all was done before it, a script that overwrites nothing says so."""
        code = process.wait(300)
        assert code == 0 or (may_be_done and self.was_done(code)), self.errors()

    def errors(self) -> str:
        """What the last process wrote to stderr."""
        return self.folder.with_name("errors").read_text(encoding="utf-8")

    def was_done(self, code: int) -> bool:
        """Whether a process that ended with this code found all of its work done, by one that was killed after it."""
        return code == 2 and bool(DONE.search(self.errors()))

    def kill(self, process: subprocess.Popen[str]) -> str:
        """Kill the process group, its first process alone, or one of its workers; returns which, or nothing if it had just ended."""
        who = self.chooser.choice(self.who)
        workers = []
        if who == "worker":
            children = [child for child in psutil.Process(process.pid).children(recursive=True) if child.ppid() != process.pid]
            workers = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        if workers:
            self.chooser.choice(workers).kill()
            code, errors = process.wait(120), self.errors()
            if self.was_done(code):
                return ""
            assert code in (0, 1) and errors.count("\n") == code and ("a worker process was killed" in errors) == code, errors
            return who
        if who == "group":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        code = process.wait(120)
        assert code in (0, -signal.SIGKILL) or self.was_done(code), f"code {code}: {self.errors()}"
        return who if code == -signal.SIGKILL else ""

    def chain(self, most: int) -> list[str]:
        """Start and kill the command until it comes to its end, or as often as wanted; then let it end, and compare. Returns the kills."""
        kills: list[str] = []
        self.begin()
        try:
            while len(kills) < most:
                process = self.start()
                self.wait_for_work(process)
                moment = self.chooser.uniform(0, self.seconds)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(moment)
                if process.poll() is not None:
                    break
                kills.append("")  # also if what comes next goes wrong
                is_on_disk = any(path.is_file() and path.name not in (".lock", RECORD, METRICS) for path in self.folder.rglob("*"))
                with contextlib.suppress(psutil.NoSuchProcess):
                    kills[-1] = self.kill(process)
                if not kills[-1]:
                    kills.pop()
                    break
                kills[-1] += f" after {moment:.2f} s"
                self.early += not is_on_disk
            else:
                process = self.start()
            self.end(process, bool(kills))
            now = contents(self.folder)
            assert now.keys() == self.whole.keys(), f"{sorted(now.keys() ^ self.whole.keys())} differ"
            for name, content in now.items():
                assert same_state(name, content, self.whole[name]), f"{name} differs"
        except AssertionError as error:
            raise Lost(kills, error) from error
        return kills

    def run(self, trials: Trials, count: int) -> None:
        """Kill the command this often, in as many chains as it takes."""
        while trials.tried < count:
            before = trials.tried
            wrong = None
            try:
                kills = self.chain(count - trials.tried)
            except Lost as lost:
                kills, wrong = lost.kills or ["not one kill"], lost
            for kill in kills:
                with trials.one(kill):
                    if wrong:
                        raise wrong
            assert trials.tried > before or self.seconds > 0.05, "the work is too short to be killed"
        for process in self.processes:
            psutil.wait_procs([each for each in psutil.process_iter() if _group(each) == process.pid], timeout=30)
            with pytest.raises(ProcessLookupError):  # nobody is left
                os.killpg(process.pid, 0)
        trials.note = f"{self.early} before any of the work was on disk"


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return -1


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, pairs and what the commands make of them: work of about a second."""
    folder = tmp_path_factory.mktemp("source")
    write_jsonl(folder / "documents.jsonl", make_documents(8000))
    pairs = make_pairs(8000)
    write_pairs(folder / "pairs.jsonl", [*pairs, *pairs[::7]])
    write_pairs(folder / "few.jsonl", make_pairs(250))
    (folder / "texts.txt").write_text("".join(f"It rains {number} times.\n" for number in range(240)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(source: Path) -> Path:
    for command in (documents_command(source, source / "data"), pairs_command(source, source / "few", "few.jsonl")):
        result = run_script(*command)
        assert result.returncode == 0, result.stderr
    return source / "data"


@pytest.fixture(scope="module")
def base(data: Path) -> Path:
    """A checkpoint to tune."""
    result = run_script(*pretraining_command(data, data.with_name("base"), "--max-steps", 2, "--eval-every", 2))
    assert result.returncode == 0, result.stderr
    return data.with_name("base") / "best_checkpoint.pt"


def documents_command(source: Path, folder: Path) -> list[object]:
    flags = ["--vocab-size", 400, "--val-share", 0.1, "--workers", 2]
    return ["preprocess_xcoax.py", "--input", source / "documents.jsonl", "--data-dir", folder, *flags]


def pairs_command(source: Path, folder: Path, name: str = "pairs.jsonl") -> list[object]:
    flags = ["--tokenizer", source / "data", "--vocab-size", 400, "--val-share", 0.2, "--block-size", 64, "--workers", 2]
    return ["preprocess_instruct.py", "--input", source / name, "--data-dir", folder, *flags]


def save_model(path: Path, tokenizer: Tokenizer, stage: str, width: int) -> Path:
    """A checkpoint with random weights."""
    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=4, n_head=4, n_embed=width, block_size=128, vocab_size=400))
    path.parent.mkdir(exist_ok=True)
    facts = {"model_config": model.config, "train_config": {}, "must_match": {}, "order": "backward"}
    numbers = {"step": 1, "tokens": 1, "val_loss": 6.0}
    save_checkpoint(path, weights=model.state_dict(), stage=stage, tokenizer=tokenizer, **facts, **numbers)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("count", [1, pytest.param(25, marks=pytest.mark.faults)])
def test_documents(trials: Start, source: Path, tmp_path: Path, count: int) -> None:
    campaign = Campaign(tmp_path / "data", documents_command(source, tmp_path / "data"), ("group", "process", "worker"))
    campaign.run(trials("SIGKILL while documents are preprocessed"), count)


@pytest.mark.faults
def test_pairs(trials: Start, source: Path, data: Path, tmp_path: Path) -> None:
    campaign = Campaign(tmp_path / "data", pairs_command(source, tmp_path / "data"), ("group", "process", "worker"))
    campaign.run(trials("SIGKILL while pairs are preprocessed"), 25)


@pytest.mark.faults
def test_training(trials: Start, data: Path, tmp_path: Path) -> None:
    flags = ("--max-steps", 60, "--eval-every", 6, "--dropout", 0.1, "--optimizer", "muon")
    Campaign(tmp_path / "out", pretraining_command(data, tmp_path / "out", *flags)).run(trials("SIGKILL while a model trains"), 25)


@pytest.mark.faults
def test_tuning(trials: Start, base: Path, tmp_path: Path) -> None:
    command = tuning_command(base, base.parent.with_name("few"), tmp_path / "out", *TUNED)
    Campaign(tmp_path / "out", command).run(trials("SIGKILL while a model is tuned"), 25)


@pytest.mark.faults
@pytest.mark.parametrize("stage", ["pretraining", "tuning"])
def test_files(trials: Start, source: Path, data: Path, tmp_path: Path, stage: str) -> None:
    model = save_model(tmp_path / "model" / "best_checkpoint.pt", Tokenizer.load(data), stage, 64)
    script = "sample_xcoax.py" if stage == "pretraining" else "sample_xcoax_instruct.py"
    flags = ["--max-new-tokens", 8, "--batch-size", 4, "--seed", 1]
    files = ["--input", source / "texts.txt", "--output", tmp_path / "out" / "texts.jsonl"]
    campaign = Campaign(tmp_path / "out", [script, "--model-path", model, *files, *flags])
    rows = campaign.whole["texts.jsonl"].splitlines()
    assert len(rows) == 240
    campaign.run(trials("SIGKILL while a file is worked through"), 10)


@pytest.mark.faults
@pytest.mark.parametrize("kind", [["--no-verify"], ["--format", "gguf"]])
def test_export(trials: Start, data: Path, tmp_path: Path, kind: list[str]) -> None:
    model = save_model(tmp_path / "model" / "best_checkpoint.pt", Tokenizer.load(data), "tuning", 512)
    command = ["export_xcoax.py", "--model-path", model, "--out-dir", tmp_path / "out" / "model", *kind]
    Campaign(tmp_path / "out", command).run(trials("SIGKILL while a model is exported"), 5)
