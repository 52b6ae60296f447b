"""Processors: as many as the process is allowed on, and no more than the CPU quota of its control groups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from system import processors
from system.processors import usable_processors
from tests.conftest import ROOT


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of eight processors whose control groups are in this folder."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(processors, "MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(processors, "GROUPS", tmp_path / "groups")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 8),
        ({"job/step": "max 100000"}, 8),
        ({"job/step": "300000 100000"}, 3),
        ({"job/step": "250000 100000"}, 3),  # rounded up: no processor idles
        ({"job/step": "20000 100000"}, 1),
        ({"job/step": "1600000 100000"}, 8),
        ({"job/step": "max 100000", "job": "200000 100000"}, 2),  # a group around it
        ({".": "400000 100000"}, 4),  # in a container, where the group's path is that outside
        ({"job/step": "damaged"}, 8),
    ],
)
def test_quota_of_control_groups(machine: Path, limits: dict[str, str], expected: int) -> None:
    write(machine / "membership", "0::/job/step\n")
    for group, limit in limits.items():
        write(machine / "groups" / group / "cpu.max", limit + "\n")
    assert usable_processors() == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("200000", 4)])
def test_quota_of_control_groups_of_version_1(machine: Path, quota: str, expected: int) -> None:
    write(machine / "membership", "4:memory:/other\n3:cpu,cpuacct:/job\n0::/\n")
    write(machine / "groups/cpu/job/cpu.cfs_quota_us", quota + "\n")
    write(machine / "groups/cpu/job/cpu.cfs_period_us", "50000\n")
    assert usable_processors() == expected


def test_a_system_without_control_groups_has_the_processors_it_allows(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_processors() == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert usable_processors() == 5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can bind a process to processors")
def test_help_shows_the_processors_of_a_bound_process() -> None:
    code = "import os, sys, runpy; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); sys.argv = ['preprocess_xcoax.py', '--help']; "
    code += "runpy.run_path('preprocess_xcoax.py', run_name='__main__')"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "default: 1)" in shown.partition("--workers")[2].partition("--order")[0]
