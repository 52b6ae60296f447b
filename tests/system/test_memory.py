"""Freed memory stays with the process, for the next tensors."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

CODE = """
import psutil, torch
from system.memory import keep_freed_memory
if {kept}:
    keep_freed_memory()
before = psutil.Process().memory_info().rss
tensors = [torch.ones(1 << 21) for _ in range(25)]  # 8 MB each
del tensors
print(psutil.Process().memory_info().rss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_kept() -> None:
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", CODE.format(kept=kept)], cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        for kept in (True, False)
    )
    assert given_back < 50e6 < 150e6 < kept
