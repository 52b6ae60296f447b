"""Processes that work together: what one does alone, and how a group divides, adds up and fails."""

from pathlib import Path

import pytest
import torch

from system import ranks
from system.errors import UserError
from system.ranks import ALONE, Ranks
from tests.ranks import in_processes


def test_one_process_exchanges_nothing() -> None:
    tensor = torch.ones(2)
    ALONE.add_up([tensor])
    ALONE.require_same({"anything": 1})
    assert tensor.tolist() == [1, 1]
    assert (ALONE.total(1, 2.5), ALONE.largest(3), ALONE.first(None), ALONE.first(0), ALONE.share(6)) == ([1, 2.5], 3, None, 0, 6)
    assert ALONE.divided(lambda items: (item * 2 for item in items), [1, 2, 3]) == [2, 4, 6]
    assert ALONE.each_row(torch.neg, tensor[None]).tolist() == [[-1, -1]]


def test_tensors_are_sent_in_buckets_that_hold_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "BUCKET", 5)
    tensors = [torch.empty(size) for size in (3, 3, 9, 1, 1)]
    assert [[len(tensor) for tensor in bucket] for bucket in ranks._buckets(tensors)] == [[3, 3], [9], [1, 1]]


def test_three_processes_divide_and_add_up(tmp_path: Path) -> None:
    code, printed, told = in_processes(3, tmp_path, """
tensors = [torch.full((2, 3), float(ranks.number)), torch.tensor(1.0)]
ranks.add_up(tensors)
assert tensors[0].tolist() == [[3.0] * 3] * 2 and tensors[1].item() == 3
assert ranks.total(1 << 40, ranks.number) == [3 << 40, 3]
assert ranks.largest(-ranks.number) == 0
assert ranks.first(ranks.number + 5) == 5
assert ranks.first(None if ranks.is_first else 7) is None
assert ranks.divided(lambda items: [item * item for item in items], range(5)) == [0, 1, 4, 9, 16]
assert ranks.divided(list, "ab") == ["a", "b"]
for count in (1, 3, 4):
    rows = torch.arange(count * 2.0).view(count, 2)
    assert torch.equal(ranks.each_row(torch.neg, rows), -rows)
ranks.require_same({"the data": 1})
""")  # fmt: skip
    assert (code, printed, told) == (0, "done\n", [])


@pytest.mark.parametrize("end", ["pass", pytest.param('raise UserError("no")', marks=pytest.mark.long)], ids=["well", "with an error"])
def test_processes_end_without_a_teardown(end: str, tmp_path: Path) -> None:
    """Threads of gloo are still there, and abort it now and then."""
    end_file = tmp_path / "end"
    body = f"import atexit\natexit.register(print, 'teardown', file=open({str(end_file)!r}, 'w'))\n{end}"
    code, _, _ = in_processes(2, tmp_path, body)
    assert (code == 0) == (end == "pass")
    assert end_file.read_text(encoding="utf-8") == ""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('raise UserError("all alike")', "all alike"),
        pytest.param(
            'ranks.require_same({"the data": ranks.number // 2})',
            "the data differs between the processes: 0 in the first, 1 in number 2",
            marks=pytest.mark.long,
        ),
        ('if ranks.number == 1: raise UserError("only here")\nranks.wait_for_first()', "only here"),
    ],
    ids=["of all", "of a comparison", "of one"],
)
def test_an_error_is_told_once(body: str, message: str, tmp_path: Path) -> None:
    code, printed, told = in_processes(3, tmp_path, body)
    assert code != 0
    assert printed == ""
    [line] = told
    assert line.startswith(f"script.py: {message}")


@pytest.mark.long
def test_a_process_that_is_gone_ends_the_others(tmp_path: Path) -> None:
    code, printed, told = in_processes(2, tmp_path, "if ranks.number: __import__('os')._exit(3)\nranks.total(1)")
    assert code != 0
    assert printed == ""
    assert all("another process of this run ended" in line for line in told)  # unless torchrun was faster


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "choose_device", lambda wanted: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UserError, match="--nproc_per_node 4: this machine has 2 GPUs"):
        ranks._own_device("cuda")


def test_only_equal_parts_are_shares() -> None:
    assert Ranks(1, 4).share(8) == 2
    with pytest.raises(AssertionError):
        Ranks(1, 4).share(6)


def test_a_lack_of_memory_is_not_the_loss_of_a_process() -> None:
    with pytest.raises(torch.OutOfMemoryError), ranks._explain_loss():
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(UserError, match="another process of this run ended"), ranks._explain_loss():
        raise RuntimeError("Connection reset by peer")
