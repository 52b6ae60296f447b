"""Two machines, each a network of its own, whose cable is cut: nothing is closed, and both end."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.ranks import told_by_script

CODE = """
import sys, time
sys.path.insert(0, {root!r})
from datetime import timedelta
from system.startup import run_script
from system import ranks
ranks.PATIENCE = timedelta(seconds=8)

def main():
    with ranks.join_ranks("cpu") as (ours, device):
        while True:
            ours.total(1)
            print("exchanged", flush=True)
            time.sleep(0.05)

run_script(main)
"""
NAMES = ("xcoax-a", "xcoax-b")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def cable() -> Iterator[None]:
    """Two network namespaces with a cable between them."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("needs root and the command ip")
    try:
        for name in NAMES:
            ip("netns", "add", name)
        ip("link", "add", "cable-0", "netns", NAMES[0], "type", "veth", "peer", "name", "cable-1", "netns", NAMES[1])
        for number, name in enumerate(NAMES):
            ip("-n", name, "addr", "add", f"10.77.0.{number + 1}/24", "dev", f"cable-{number}")
            ip("-n", name, "link", "set", f"cable-{number}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    finally:
        for name in NAMES:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)


@pytest.mark.long
@pytest.mark.usefixtures("cable")
def test_both_machines_end(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(CODE.format(root=str(ROOT)), encoding="utf-8")
    machines = []
    for number, name in enumerate(NAMES):
        meeting = ["--nnodes", "2", "--nproc_per_node", "1", "--node_rank", str(number), "--master_addr", "10.77.0.1"]
        line = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", *meeting, "--master_port", "29512", str(script)]
        environment = os.environ | {"GLOO_SOCKET_IFNAME": f"cable-{number}"}
        with (tmp_path / f"errors{number}").open("w") as errors, (tmp_path / f"printed{number}").open("w") as printed:
            machines.append(subprocess.Popen(line, cwd=ROOT, env=environment, stdout=printed, stderr=errors))
    deadline = time.monotonic() + 100
    while "exchanged" not in (tmp_path / "printed0").read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    ip("-n", NAMES[0], "link", "set", "cable-0", "down")
    for number, machine in enumerate(machines):
        assert machine.wait(timeout=60) != 0
        [line_told] = told_by_script((tmp_path / f"errors{number}").read_text(), "script.py")
        assert "another process of this run ended or cannot be reached" in line_told
