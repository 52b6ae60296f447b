"""Freed memory is kept: the next tensors cause no page faults."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

CODE = """
import resource, torch
from system.memory import keep_freed_memory
if {kept}:
    keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(10):
    before = faults()
    tensors = [torch.ones(1 << 21) for _ in range(8)]  # 8 MB each
    del tensors
print(faults() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_used_again() -> None:
    counts = [
        int(subprocess.run([sys.executable, "-c", CODE.format(kept=kept)], cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        for kept in (False, True)
    ]
    assert counts[1] < 100 < 1000 < counts[0]
