"""How many processors this process may use."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def usable_processors() -> int:
    """As many as the process is allowed on, which taskset and batch systems limit, and no more than its CPU quota, as in containers."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, math.ceil(min(_quotas(), default=allowed))))


def _quotas() -> Iterator[float]:
    """The CPU quotas, in processors, of the control groups of this process and of those around them."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # only Linux has control groups
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2
            root, files = GROUPS, ["cpu.max"]
        elif "cpu" in controllers.split(","):  # version 1
            root, files = GROUPS / "cpu", ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
        else:
            continue
        group = root / path.lstrip("/")  # inside a container often only the root is there, and is the group of the container
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max" for no quota
                quota, period = map(int, " ".join((folder / name).read_text(encoding="utf-8") for name in files).split())
                if quota > 0:  # -1: no quota
                    yield quota / period
