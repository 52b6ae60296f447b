"""Owns what identifies a GPU, the machine around it and the versions that its figures depend on."""

import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from system.errors import UserError
from system.processors import usable_processors


def describe_gpu() -> dict[str, Any]:
    """The GPU, the machine and the versions; without a GPU that PyTorch can use, a UserError says why."""
    if not torch.cuda.is_available():
        if torch.version.cuda is None and torch.version.hip is None:
            reason = f"torch {torch.__version__} is a build without CUDA. Install the build that pytorch.org's Get started page names"
        else:
            reason = f"torch {torch.__version__} finds none. See whether nvidia-smi does, and whether its driver is new enough"
        raise UserError(f"no GPU that PyTorch can use: {reason}")
    gpu = torch.cuda.get_device_properties(0)
    return {
        "gpu": gpu.name,
        "gpu_memory_gib": round(gpu.total_memory / 2**30, 1),
        "compute_capability": f"{gpu.major}.{gpu.minor}",
        "multiprocessors": gpu.multi_processor_count,
        "driver": _output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]  # torch's gap
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.machine()),
        "processors": usable_processors(),
        "commit": _output_of("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
    }


def file_stem(gpu: str) -> str:
    """The name of a GPU as part of a file's name: "NVIDIA H100 80GB HBM3" is nvidia-h100-80gb-hbm3."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def _output_of(*command: str) -> str:
    """What a command prints on its first line; nothing if it cannot be run."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (result.stdout.splitlines() or [""])[0].strip() if result.returncode == 0 else ""
