"""Runs trials in forked children: a crash of a library, a hang or a flood of memory is one lost trial, not the end of the campaign."""

import faulthandler
import gc
import itertools
import json
import os
import re
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NoReturn

import pytest

from system.errors import UserError
from tests.faults.mutants import Mutant
from tests.faults.trials import Outcome, Trials

LONG = 10_000  # mutants of each file
BATCH = 500  # trials of one child
SECONDS = 10  # that a trial may take
MEMORY = 1 << 30  # bytes that a trial may add
ADDRESSES = 8 << 30  # bytes of address space that a child may add: what wants more shows as an error, and the machine lives
REMEDY = re.compile(r"--\w|\b(Use|Delete|Train|Export|Check|Run|What fits|is expected|They stay in)\b")
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


Start = Callable[..., Trials]  # of the fixture `trials`


def counts(quick: int) -> pytest.MarkDecorator:
    """Runs a test with a few mutants in `make test`, and with many in `make faults`."""
    return pytest.mark.parametrize("count", [quick, pytest.param(LONG, marks=pytest.mark.faults)])


def refused(read: Callable[[], object], file: Path | None = None) -> bool:
    """Whether it ends with an error for a person: one line, which names the file (or the flag that it gives) and says what to do."""
    try:
        read()
    except UserError as error:
        message = str(error)
        assert len(message.splitlines()) == 1, f"not one line: {message!r}"
        assert file is None or str(file) in message or message.startswith("--"), f"{file} is not named: {message}"
        assert file is None or REMEDY.search(message), f"without a remedy: {message}"
        return True
    return False


class Lost(Exception):
    """How a trial went wrong in its child."""


def try_each(trials: Trials, mutants: Iterable[Mutant], read: Callable[[bytes], int], seconds: float = SECONDS) -> None:
    """Count for each mutant what `read` makes of it: an Outcome (or whether it was refused), an exception if it is lost."""
    gc.freeze()
    remaining = iter(mutants)
    while batch := list(itertools.islice(remaining, BATCH)):
        while batch:
            batch = batch[_try_in_child(trials, batch, read, seconds) :]


def _try_in_child(trials: Trials, batch: Sequence[Mutant], read: Callable[[bytes], int], seconds: float) -> int:
    """Count the trials up to the first that ends its child; how many there were."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _child(batch, read, writer)
    os.close(writer)
    tried = 0
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        for line in _lines(pipe, seconds):
            _count(trials, batch[tried], *json.loads(line))
            tried += 1
        hangs = tried < len(batch) and not select.select([pipe], [], [], 0)[0]
    if hangs:
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if hangs or status:
        _count(trials, batch[tried], Outcome.RIGHT, f"no end after {seconds} s" if hangs else f"the process ended with {status}")
        tried += 1
    assert tried, "a child that tried nothing"
    return tried


def _lines(pipe: IO[bytes], seconds: float) -> Iterator[bytes]:
    """The lines that a child writes, until its end or until it is silent for too long."""
    rest = b""
    while select.select([pipe], [], [], seconds)[0] and (data := pipe.read(1 << 16)):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _count(trials: Trials, mutant: Mutant, outcome: int, problem: str) -> None:
    with trials.one(mutant.what) as trial:
        trial.refused, trial.changed = outcome == Outcome.REFUSED, outcome == Outcome.CHANGED
        if problem:
            raise Lost(problem)


def _child(batch: Sequence[Mutant], read: Callable[[bytes], int], writer: int) -> NoReturn:
    """Try one mutant after the other, and tell how each ended."""
    faulthandler.disable()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    sys.stdout = sys.stderr = os.fdopen(quiet, "w")
    os.fsync = lambda fd: None  # damage is no matter of a disk that is slow
    _limit_addresses()
    at_start = _peak()
    for mutant in batch:
        outcome, problem = int(Outcome.RIGHT), ""
        try:
            outcome = int(read(mutant.content))
        except BaseException as error:  # noqa: BLE001 -- whatever it is, the parent counts it
            where = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {str(error)[:1000]} ({where.filename}, line {where.lineno})"
        added = _peak() - at_start
        problem = problem or (f"{added >> 20:,} MiB of memory" if added > MEMORY else "")
        os.write(writer, json.dumps([outcome, problem]).encode() + b"\n")
        if added > MEMORY:
            break  # the peak stays: the next child measures anew
    os._exit(0)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def _limit_addresses() -> None:
    sizes = Path("/proc/self/statm")
    if sizes.is_file():
        limit = int(sizes.read_text().split()[0]) * resource.getpagesize() + ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
