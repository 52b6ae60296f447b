"""A small corpus, and what the real stages make of it, shared by all tests."""

import contextlib
import io
import json
import os
import random
import resource
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent

# In CI the same examples each time; elsewhere new ones. No deadline: machines are shared.
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")
WORDS = """the cat dog sleeps runs under over a red blue house tree in of and small old 7 42 é 日本 said. then, (why) never	again"""


def make_documents(count: int, seed: int = 0) -> list[str]:
    """Short texts with several lines, blank lines, indentation and unusual characters."""
    chooser = random.Random(seed)
    documents = []
    for _ in range(count):
        lines = [" ".join(chooser.choices(WORDS.split(" "), k=chooser.randint(0, 12))) for _ in range(chooser.randint(1, 6))]
        documents.append("\n".join(lines) + f" {chooser.randint(0, 10**9)}")
    return documents


def write_jsonl(path: Path, documents: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents), encoding="utf-8")
    return path


def make_pairs(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Pairs with Alpaca's field names, whose response gives the instruction away."""
    chooser = random.Random(seed)
    pairs = []
    for index in range(count):
        words = " ".join(chooser.choices(WORDS.split(), k=chooser.randint(1, 6)))
        pairs.append({"instruction": f"Repeat {words}", "input": f"{index} times" if index % 3 else "", "output": f"{words} {index}"})
    return pairs


def write_pairs(path: Path, pairs: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


def run_script(*arguments: object, timeout: float = 240, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a script of the project as a user does, from any folder."""
    script, *rest = map(str, arguments)
    return subprocess.run(
        [sys.executable, str(ROOT / script), *rest], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )


def call_script(*arguments: object, cwd: Path = ROOT, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Like run_script, but inside this process: without the seconds that a new one takes to import torch.

    Use run_script where the process is the point: signals, kills, terminals, memory.
    """
    import torch

    script, *flags = map(str, arguments)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code = 0
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(cwd), torch.random.fork_rng(devices=[]):
        for name, value in (("argv", [script, *flags]), ("stdin", io.StringIO(stdin)), ("stdout", out), ("stderr", err)):
            patch.setattr(sys, name, value)
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess([script, *flags], code, *texts)


@contextlib.contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A limit on the size of a file stands in for a full disk: the write of more bytes fails at the same place with an OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def copy_project(folder: Path) -> Path:
    """A copy of all that a user runs, without tests, data or checkpoints."""
    for file in ROOT.glob("*.py"):
        shutil.copy(file, folder)
    for room in {file.parent for file in ROOT.glob("*/__init__.py")} - {ROOT / "tests"}:
        shutil.copytree(room, folder / room.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def fails_with(result: subprocess.CompletedProcess[str], exit_code: int, *parts: str) -> None:
    """The run ended with a user error: one line with these parts, and no traceback."""
    assert result.returncode == exit_code, result.stderr + result.stdout
    assert "Traceback" not in result.stderr, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr, result.stderr


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The commands of the pages take a minute: they start first, so that at the end no process waits for the other."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Tests run in parallel: more threads would wait for each other."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_enabled() -> None:
    """In the background of a shell Ctrl-C is ignored, and the processes that tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def documents() -> list[str]:
    return make_documents(400)


@pytest.fixture(scope="session")
def dataset_folder(documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished data folder, made by the real script. Tests only read it."""
    folder = tmp_path_factory.mktemp("data")
    source = write_jsonl(folder / "documents.jsonl", documents)
    result = run_script(
        "preprocess_xcoax.py", "--input", source, "--data-dir", folder / "small", "--vocab-size", 400, "--val-share", 0.1, "--workers", 1
    )
    assert result.returncode == 0, result.stderr
    return folder / "small"


@pytest.fixture(scope="session")
def checkpoints(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pretrained and a tuned checkpoint of a small model with random weights: it generates nonsense, immediately."""
    import torch

    from config import ModelConfig
    from formats.checkpoint import save_checkpoint
    from model import GPT
    from tokens.tokenizer import Tokenizer

    torch.manual_seed(0)
    model = GPT(ModelConfig(n_layer=2, n_head=2, n_embed=32, block_size=512, vocab_size=400))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    folder = tmp_path_factory.mktemp("checkpoints")
    made = {}
    for stage in ("pretraining", "tuning"):
        made[stage] = folder / stage / "best_checkpoint.pt"
        made[stage].parent.mkdir()
        save_checkpoint(
            made[stage],
            weights=model.state_dict(),
            model_config=model.config,
            train_config={},
            stage=stage,
            must_match={},
            tokenizer=Tokenizer.load(dataset_folder),
            order="backward",
            step=1,
            tokens=1,
            val_loss=6.0,
        )
    return made
