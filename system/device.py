"""Device and dtype: which to use, and how fast the device could be."""

import contextlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch

from system.device_names import PEAK_TFLOPS, Device, Dtype
from system.errors import BAD_FLAGS, UserError, first_line


def choose_device(wanted: Device) -> torch.device:
    """The device asked for, or the first available."""
    there = [name for name, is_there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if is_there]
    there.append("cpu")
    if wanted != "auto" and wanted not in there:
        raise UserError(f"--device {wanted}: not available; this machine has {', '.join(there)}", BAD_FLAGS)
    return torch.device(there[0] if wanted == "auto" else wanted)


def choose_dtype(wanted: Dtype, device: torch.device) -> torch.dtype:
    """The dtype asked for, or the fastest that trains well on the device."""
    if wanted != "auto":
        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu":
        processor = torch.cpu.get_capabilities()
        return torch.bfloat16 if processor.get("avx512_bf16") or processor.get("amx_bf16") else torch.float32
    return torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Matrix products in `dtype`, sums and norms in float32."""
    return contextlib.nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def send(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy values from the CPU to the device. A GPU gets them in its own time: from pinned memory, nothing waits for it."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


@contextlib.contextmanager
def explain_out_of_memory(way_out: str) -> Iterator[None]:
    """If the device, or this machine, runs out of memory in this context, say so in one line. On a device the CPU is another way out."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition("Including non-PyTorch memory")[0].strip(" .;")  # what was asked for, and what there is
        raise UserError(f"{reason or 'out of memory on the device'}. {way_out}{', or' if way_out else 'Try'} --device cpu") from error
    except (RuntimeError, MemoryError) as error:
        asked = re.search(r"can't allocate memory: you tried to allocate (\d+) bytes", str(error))  # torch has no type for it on a CPU
        if not asked and not isinstance(error, MemoryError):
            raise
        size = f"{int(asked[1]) / 1e9:,.1f} GB at once could not be had" if asked else str(error) and first_line(error)
        raise UserError(f"this machine has too little memory{size and f': {size}'}. {way_out}".rstrip()) from error


def device_name(device: torch.device) -> str:
    """The name that its driver or the operating system reports."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.cpu.get_capabilities().get("cpu_name", "CPU")) if device.type == "cpu" else device.type


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Peak floating-point operations per second, where known."""
    tflops = PEAK_TFLOPS.get(device_name(device)) if device.type == "cuda" and dtype != torch.float32 else None
    return tflops * 1e12 if tflops else None
