"""Disks that fail: each call that changes a file meets each fault, and afterwards the same command ends as if nothing had happened."""

import errno
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from formats.checkpoint import NUMBERED, load_checkpoint
from tests.conftest import make_documents, make_pairs, write_jsonl, write_pairs
from tests.faults.states import same_state
from tests.faults.trials import Trials
from tests.faults.warm import Ended, Warm, warm_process, why_not
from tests.preprocessing.in_process import contents
from tests.training.runs import pretraining_command, tuning_command
from training.loss_curve import PICTURE

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

Start = Callable[..., Trials]
ERRORS = {"full": errno.ENOSPC, "I/O error": errno.EIO, "read-only": errno.EROFS}
FAULTS = (*ERRORS, "short write", "kill", "power cut")
EACH = ("power cut",)  # at each call also where a run takes longest; the other faults there at some of the calls
REST = tuple(fault for fault in FAULTS if fault not in EACH)
SCRIPTS = ("preprocess_xcoax", "preprocess_instruct", "train_xcoax", "finetune_xcoax", "sample_xcoax_instruct", "export_xcoax")
RESULTS = ("score_xcoax", "evaluate_xcoax")
LIBRARIES = (
    "gguf",
    "huggingface_hub",
    "gigatoken",
    "safetensors.torch",
    "pyarrow.parquet",
    "matplotlib.backends.backend_agg",
    "torch._dynamo",
)
TEMPORARY = re.compile(r"\.part\b|report_unfinished\.|\.unfinished$|\bunfinished/|\.earlier/|(^|/)\.lock$|metrics\.jsonl$")
FREES = re.compile("ftruncate|chmod|unlink|rmdir")  # what a full disk still does
WRITES = re.compile(r"write|pwrite|sendfile|copy_file_range")
AFTER_IT = "the moment after the command"  # has ended well: its work must be on the disk
CHUNK = 60  # documents or pairs
TINY = ("--n-embed", 16, "--eval-every", 2)


@dataclass
class Work:
    """A command that works in a folder, what it finds there and what an undisturbed run leaves."""

    warm: Warm
    folder: Path
    command: Sequence[object]
    chunk: int = 0
    before: dict[str, bytes] = field(default_factory=dict)
    after: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def undisturbed(self, *command: object) -> "Work":
        """Run the command, or another one, undisturbed."""
        self.prepare()
        self.command = command or self.command
        ended = self.run()
        assert ended.code == 0, ended.stderr
        self.calls, self.after = ended.calls, contents(self.folder)
        return self

    def then(self, *command: object) -> "Work":
        """The work of a command that finds what this one leaves."""
        return Work(self.warm, self.folder, command, self.chunk, self.after).undisturbed()

    def prepare(self) -> None:
        """Put the folder into the state that the command finds."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        for name, content in self.before.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(content)

    def run(self, fault: str = "none", at: int = 0, picture: bool = True) -> Ended:
        """Run the command in the folder as it is."""
        return self.warm.run(self.folder, self.command, fault, at, self.chunk, picture)

    def check_whole(self) -> None:
        """Every file under its own name is whole: as before, as after, or a checkpoint in between. No file is gone."""
        now = contents(self.folder)
        now |= {name.replace(".model.earlier/", "model/"): now.pop(name) for name in [*now] if name.startswith(".model.earlier/")}
        for name, content in now.items():
            if not TEMPORARY.search(name) and not any(same_state(name, content, files.get(name)) for files in (self.before, self.after)):
                assert name.endswith(".pt"), f"{name} is neither the old file nor the new one"
                load_checkpoint(self.folder / name)
        gone = [name for name in self.before.keys() - now.keys() if not TEMPORARY.search(name)]
        assert not gone, f"{gone} are gone"

    def check_end(self, picture: bool, survived: bool) -> None:
        """The folder is as after an undisturbed run, the picture included if it was drawn."""

        def counts(name: str) -> bool:
            # A disk that refuses to delete an earlier export does not undo the new one.
            return (picture or not name.endswith(PICTURE)) and not (survived and ".earlier/" in name)

        now, after = ({name: found[name] for name in found if counts(name)} for found in (contents(self.folder), self.after))
        assert now.keys() == after.keys(), f"{sorted(now.keys() ^ after.keys())} differ"
        for name, content in now.items():
            assert same_state(name, content, after[name]), f"{name} differs"


def check_message(ended: Ended, at: int, fault: str) -> None:
    """One line that names the file of the call that failed, under its final name or a temporary one, what is wrong and a way out."""
    assert ended.code == 1, ended
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    failed = next(call for call in ended.calls[at - 1 :] if fault != "full" or not FREES.match(call))
    path = Path(failed.partition(" ")[2].removesuffix("/.lock").removesuffix(".part"))
    names = {path, path.with_name(f".{path.name}.")}  # of a folder: where it is filled, or where the earlier one waits
    names |= {path.parent} if path.name.startswith(".tmp") else set()  # a name that the library of the weights made up
    names |= {Path(re.sub(r"/\.([^/]+?)(\.part|\.earlier)?(?=/|$)", r"/\1", str(name))) for name in names}  # in the folder that it will be
    assert any(str(name) in lines[0] for name in names), f"{lines[0]} does not name {path}"
    assert os.strerror(ERRORS[fault]) in lines[0], lines[0]
    assert re.search("ree some space" if fault == "full" else "run the same command again|[Uu]se another|give another", lines[0]), lines[0]


def try_faults(work: Work, start: Start, where: str, faults: Sequence[str] = FAULTS, chosen: Sequence[int] = ()) -> None:
    """Every call of a command, or those with these numbers, meets each of these faults."""
    first_of_picture = next((number for number, call in enumerate(work.calls, 1) if PICTURE in call), len(work.calls) + 1)
    for fault in faults:
        trials = start(f"disk: {fault} while {where}")
        for at, call in enumerate([*work.calls, AFTER_IT], 1):
            is_chosen = not chosen or at in chosen if call != AFTER_IT else fault == "power cut"
            if not is_chosen or (fault == "short write" and not WRITES.match(call)):
                continue
            with trials.one(f"call {at}, {call}") as trial:
                picture = at >= first_of_picture  # drawing takes longer than training
                work.prepare()
                ended = work.run(fault, at, picture=picture)
                if ended.code != 0 and fault in ERRORS:
                    check_message(ended, at, fault)
                    trial.refused = True
                elif ended.code != 0:
                    assert ended.code == -signal.SIGKILL and fault in ("kill", "power cut"), ended
                work.check_whole()
                if ended.code != 0:
                    again = work.run(picture=picture)
                    assert again.code == 0, f"and then {again}"
                work.check_end(picture, ended.code == 0)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files of documents, pairs and responses."""
    folder = tmp_path_factory.mktemp("texts")
    write_jsonl(folder / "documents.jsonl", make_documents(120))
    write_pairs(folder / "pairs.jsonl", make_pairs(120))
    write_pairs(folder / "few.jsonl", make_pairs(5))
    (folder / "responses.txt").write_text("".join(f"It rains {number} times.\n" for number in range(6)), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that fails."""
    return tmp_path_factory.mktemp("disk").resolve() / "disk"


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """A process that has imported everything."""
    with warm_process(*SCRIPTS, *RESULTS, *LIBRARIES) as process:
        yield process


@pytest.fixture(scope="module")
def made(warm: Warm, texts: Path, disk: Path) -> Path:
    """Data, pairs and models, made by the commands themselves, out of reach of the faults."""
    folder = texts / "made"
    data, pairs, model, tuned = (folder / name for name in ("data", "pairs", "model", "tuned"))
    base = model / "best_checkpoint.pt"
    for command in (
        documents_command(texts, data),
        pairs_command(texts, data, pairs),
        pretraining_command(data, model, "--max-steps", 2, *TINY),
        tuning_command(base, pairs, tuned, "--epochs", 1, "--eval-every", 30),
    ):
        ended = warm.run(disk, command, chunk=CHUNK if str(command[0]).startswith("pre") else 0, picture=False)
        assert ended.code == 0, ended
    return folder


def documents_command(texts: Path, folder: Path) -> list[object]:
    return ["preprocess_xcoax.py", "--input", texts / "documents.jsonl", "--data-dir", folder, "--vocab-size", 400, "--val-share", 0.1]


def pairs_command(texts: Path, data: Path, folder: Path) -> list[object]:
    flags = ["--tokenizer", data, "--vocab-size", 400, "--val-share", 0.2, "--block-size", 64]
    return ["preprocess_instruct.py", "--input", texts / "pairs.jsonl", "--data-dir", folder, *flags]


def test_the_quick_ones(trials: Start, texts: Path, disk: Path) -> None:
    """A few calls and faults, in every `make test`, so that the failing disk itself stays whole."""
    with warm_process("preprocess_xcoax", "gigatoken") as quick:
        work = Work(quick, disk, documents_command(texts, disk / "data"), CHUNK).undisturbed()
        assert {call.split()[0] for call in work.calls} >= {"mkdir", "open", "write", "fsync", "rename", "unlink"}
        chosen = [number for number, call in enumerate(work.calls, 1) if call.startswith(("write", "rename")) and "train_00001" in call]
        try_faults(work, trials, "documents are preprocessed", FAULTS, [*chosen, chosen[-1] + 1])


@pytest.mark.faults
def test_documents(warm: Warm, texts: Path, disk: Path, trials: Start) -> None:
    """A finished folder that a longer run extends."""
    command = documents_command(texts, disk / "data")
    first = Work(warm, disk, [*command, "--num-chunks", 1], CHUNK).undisturbed()
    try_faults(first.then(*command, "--num-chunks", 2), trials, "documents are preprocessed")


@pytest.mark.faults
def test_pairs(warm: Warm, texts: Path, made: Path, disk: Path, trials: Start) -> None:
    work = Work(warm, disk, pairs_command(texts, made / "data", disk / "data"), CHUNK).undisturbed()
    try_faults(work, trials, "pairs are preprocessed")


@pytest.mark.faults
def test_training(warm: Warm, made: Path, disk: Path, trials: Start) -> None:
    """A run that is resumed, so that there are checkpoints to lose; the numbered one is for the second half alone."""
    flags = ("--optimizer", "muon", *TINY)
    first = Work(warm, disk, pretraining_command(made / "data", disk / "out", "--max-steps", 2, *flags)).undisturbed()
    more = pretraining_command(made / "data", disk / "out", "--max-steps", 4, "--keep-every", 4, *flags)
    work = first.then(*more)
    assert f"out/{NUMBERED.format(4)}" in work.after
    try_faults(work, trials, "a model trains", EACH)
    try_faults(work, trials, "a model trains", REST, range(1, 1000, 4))


@pytest.mark.faults
def test_tuning(warm: Warm, made: Path, disk: Path, trials: Start) -> None:
    """A new run, at every sixth call: it writes with the same functions as the one before."""
    command = tuning_command(made / "model" / "best_checkpoint.pt", made / "pairs", disk / "out", "--epochs", 1, "--eval-every", 30)
    try_faults(Work(warm, disk, command).undisturbed(), trials, "a model is tuned", ("full", "read-only", "power cut"), range(1, 1000, 6))


@pytest.mark.faults
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
def test_files(warm: Warm, texts: Path, made: Path, disk: Path, trials: Start, ending: str) -> None:
    flags = ("--max-new-tokens", 6, "--batch-size", 3, "--seed", 1)
    files = ("--input", texts / "responses.txt", "--output", disk / f"instructions.{ending}")
    command = ["sample_xcoax_instruct.py", "--model-path", made / "tuned" / "best_checkpoint.pt", *files, *flags]
    try_faults(Work(warm, disk, command).undisturbed(), trials, "a file is worked through")


@pytest.mark.faults
def test_scores(warm: Warm, texts: Path, made: Path, disk: Path, trials: Start) -> None:
    files = ("--pairs", texts / "few.jsonl", "--output", disk / "scored.jsonl")
    command = ["score_xcoax.py", "--model-path", made / "tuned" / "best_checkpoint.pt", *files]
    try_faults(Work(warm, disk, command).undisturbed(), trials, "pairs are scored")


@pytest.mark.faults
def test_a_report(warm: Warm, made: Path, disk: Path, trials: Start) -> None:
    """A report in the place of an earlier one, at every ninth call: its files are written with one function."""
    command = ["evaluate_xcoax.py", "--model-path", made / "model" / "best_checkpoint.pt", "--out-dir", disk / "card"]
    flags = ["--data-dir", made / "data", "--hellaswag", "", "--device", "cpu", "--documents"]
    work = Work(warm, disk, [*command, *flags, 3]).undisturbed().then(*command, *flags, 4)
    try_faults(work, trials, "a report is made", ("I/O error", "power cut"), range(3, 1000, 9))


@pytest.mark.faults
def test_a_folder_for_transformers(warm: Warm, made: Path, disk: Path, trials: Start) -> None:
    """An export in the place of an earlier one, beside a file that is not ours."""
    command = ["export_xcoax.py", "--out-dir", disk / "model", "--no-verify", "--model-path"]
    first = Work(warm, disk, [*command, made / "model" / "best_checkpoint.pt"]).undisturbed()
    first.after |= {"model/notes.txt": b"mine", "model/plans/one.txt": b"mine too"}
    try_faults(first.then(*command, made / "tuned" / "best_checkpoint.pt", "--force"), trials, "a model is exported")


@pytest.mark.faults
def test_a_file_for_llama_cpp(warm: Warm, made: Path, disk: Path, trials: Start) -> None:
    command = ["export_xcoax.py", "--out-dir", disk / "gguf", "--format", "gguf", "--dtype", "q8_0", "--model-path"]
    first = Work(warm, disk, [*command, made / "model" / "best_checkpoint.pt"]).undisturbed()
    work = first.then(*command, made / "tuned" / "best_checkpoint.pt", "--force")
    try_faults(work, trials, "a GGUF file is exported")
