"""Where a model computes and in which number type, and what the device could do at its best."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch

from config import Device, Dtype
from errors import BAD_FLAGS, UserError, first_line

# Dense bfloat16 and float16 with float32 accumulation, from the vendors' data sheets, by the exact name the driver gives:
# a search for "L4" would find an L40, and half of a marketing figure is sparsity.
PEAK_TFLOPS = {
    "NVIDIA L4": 121.0,
    "NVIDIA L40": 181.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA A10": 125.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 80GB HBM3": 989.0,
    "NVIDIA H200": 989.0,
    "NVIDIA GeForce RTX 3090": 71.0,
    "NVIDIA GeForce RTX 4090": 165.0,
}


def choose_device(wanted: Device) -> torch.device:
    """The device asked for, or the first there is."""
    there = [name for name, is_there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())) if is_there]
    there.append("cpu")
    if wanted != "auto" and wanted not in there:
        raise UserError(f"--device {wanted}: not on this machine, which has {', '.join(there)}", BAD_FLAGS)
    return torch.device(there[0] if wanted == "auto" else wanted)


def choose_dtype(wanted: Dtype, device: torch.device) -> torch.dtype:
    """The number type asked for, or the fastest that trains well on the device."""
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


def device_name(device: torch.device) -> str:
    """The name its driver or the operating system gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.cpu.get_capabilities().get("cpu_name", "CPU")) if device.type == "cpu" else device.type


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Floating-point operations a second at best, where they are known."""
    tflops = PEAK_TFLOPS.get(device_name(device)) if device.type == "cuda" and dtype != torch.float32 else None
    return tflops * 1e12 if tflops else None


def cannot_compile(device: torch.device) -> str | None:
    """Why torch.compile does not work here, or None where it does: found out on one addition, not in the middle of a model."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError, torch._dynamo.exc.TorchDynamoException) as error:
        return first_line(error)
    return None
