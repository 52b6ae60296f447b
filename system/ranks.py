"""The processes that train one model together, as torchrun starts them: which one this is, and what they exchange."""

import contextlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]  # torch's gap
from torch.distributed.rendezvous import rendezvous

from system.device import choose_device
from system.device_names import Device
from system.errors import BAD_FLAGS, UserError, discard_output, first_line

BUCKET = 1 << 24  # numbers that are sent at once: their copy takes 64 MB
PATIENCE = timedelta(minutes=10)  # for a process that does not answer; one that has ended is noticed at once

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. All of them call the same methods in the same order; with one process nothing is sent."""

    number: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """The first process writes, prints and decides; the others only compute."""
        return self.number == 0

    def share(self, count: int) -> int:
        """This process's part of a count that the processes divide."""
        assert count % self.count == 0
        return count // self.count

    def total(self, *values: float) -> list[float]:
        """The sum of each value over all processes; exact for whole numbers."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, value: int) -> int:
        """The largest value of any process."""
        return int(self._reduced([value], dist.ReduceOp.MAX)[0])

    def first(self, value: int | None) -> int | None:
        """The value of the first process."""
        found = self.largest(-1 if value is None or not self.is_first else value)
        return None if found < 0 else found

    def wait_for_first(self) -> None:
        """Wait until the first process is here too."""
        self.largest(0)

    def require_same(self, facts: dict[str, object]) -> None:
        """Refuse a run whose processes differ in these facts: another folder, another data set, other flags."""
        if self.count == 1:
            return
        everyone: list[dict[str, object]] = [{}] * self.count
        with _explain_loss():
            dist.all_gather_object(everyone, facts)
        for number, theirs in enumerate(everyone):
            for name, value in everyone[0].items():
                if theirs[name] != value:
                    raise UserError(
                        f"{name} differs between the processes: {value} in the first, {theirs[name]} in number {number}. "
                        "Give all machines the same files and the same flags"
                    )

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor, in place, by its sum over all processes."""
        if self.count == 1:
            return
        with _explain_loss():
            for bucket in _buckets(tensors):
                flat = torch.cat([tensor.flatten() for tensor in bucket])
                dist.all_reduce(flat)
                sums = torch.split(flat, [tensor.numel() for tensor in bucket])
                torch._foreach_copy_(bucket, [each.view_as(tensor) for each, tensor in zip(sums, bucket, strict=True)])

    def divided(self, function: Callable[[Sequence[Item]], Iterable[Result]], items: Sequence[Item]) -> list[Result]:
        """The results of a function that gives one for each item of a list, of which each process computes its part."""
        mine = list(function(items[self.number :: self.count]))
        if self.count == 1:
            return mine
        parts: list[list[Result]] = [[]] * self.count
        with _explain_loss():
            dist.all_gather_object(parts, mine)
        return [parts[index % self.count][index // self.count] for index in range(len(items))]

    def each_row(self, function: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        """The function of every row of a stack. It maps rows to rows of one shape, and each process computes its part of them."""
        if self.count == 1:
            return function(rows)
        most = -(-len(rows) // self.count)  # rows for a process
        mine = rows[self.number * most : (self.number + 1) * most]
        sent = torch.zeros_like(rows[:1].expand(most, *rows.shape[1:]), memory_format=torch.contiguous_format)
        if len(mine):
            sent[: len(mine)] = function(mine)
        gathered = sent.new_empty(self.count * most, *rows.shape[1:])
        with _explain_loss():
            dist.all_gather_single(gathered, sent)
        return gathered[: len(rows)]

    def _reduced(self, values: Sequence[float], how: dist.ReduceOp.RedOpType) -> list[float]:
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)  # on the CPU, so it does not wait for a GPU
        with _explain_loss():
            dist.all_reduce(tensor, how)
        found: list[float] = tensor.tolist()
        return found


ALONE = Ranks()


def _buckets(tensors: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The tensors in groups of about BUCKET numbers."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        bucket.append(tensor)
        if sum(each.numel() for each in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


@contextlib.contextmanager
def join_ranks(wanted: Device) -> Iterator[tuple[Ranks, torch.device]]:
    """Join the other processes, if torchrun started this one; which process this is, and its device."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE, choose_device(wanted)
        return
    device = _own_device(wanted)
    with _explain_loss():
        launcher, number, count = next(rendezvous("env://", timeout=PATIENCE))
        store = _own_store(launcher, number)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=PATIENCE)
    if number:
        discard_output()  # the first process speaks for all
        sys.stderr = _WithoutBars(io.FileIO(2, "w", closefd=False), write_through=True)  # but an error may be that of this one alone
    try:
        yield Ranks(number, count), device
    except UserError as error:
        # An error that all processes share, or that follows from the end of another, is told once.
        if _is_told(launcher, f"told {store.port}", number):
            sys.exit(error.exit_code)
        raise
    dist.destroy_process_group()


def _is_told(launcher: Store, key: str, number: int) -> bool:
    """Whether another process has told its error already. Where the launcher's machine cannot be reached, nobody has."""
    answers: list[bytes] = []

    def ask() -> None:
        with contextlib.suppress(RuntimeError):
            answers.append(launcher.compare_set(key, "", str(number)))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(5)
    return bool(answers) and answers[0] != str(number).encode()


def _own_store(launcher: Store, number: int) -> TCPStore:
    """The store in which these processes meet. That of torchrun keeps the addresses of processes from before a restart."""
    address = os.environ["MASTER_ADDR"]  # of the first process too
    if number == 0:
        store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
        launcher.set("port", str(store.port))
        return store
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while True:
        try:
            return TCPStore(address, int(launcher.get("port")), is_master=False, timeout=timedelta(seconds=1))
        except RuntimeError:  # a port from before the restart: the new one will be there soon
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


class _WithoutBars(io.TextIOWrapper):
    """Standard error that does not count as a terminal: tqdm draws no progress bar there."""

    def isatty(self) -> bool:
        return False


def _own_device(wanted: Device) -> torch.device:
    device, local, there = choose_device(wanted), int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if device.type != "cuda":
        return device
    if (count := int(os.environ["LOCAL_WORLD_SIZE"])) > there:
        raise UserError(f"--nproc_per_node {count}: this machine has {there} GPUs", BAD_FLAGS)
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


@contextlib.contextmanager
def _explain_loss() -> Iterator[None]:
    """If another process is gone, say so in one line."""
    try:
        yield
    except torch.OutOfMemoryError:  # of this process
        raise
    except RuntimeError as error:  # of gloo; that of NCCL is a kind of it
        raise UserError(
            f"another process of this run ended or cannot be reached ({first_line(error)}). "
            "Run the same command again: training resumes from the last checkpoint"
        ) from error
