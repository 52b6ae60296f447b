"""Device and dtype: peak speed by exact name, devices that are not available, and the default dtype."""

import numpy as np
import pytest
import torch

from system.device import autocast, choose_device, choose_dtype, explain_out_of_memory, peak_flops
from system.errors import UserError


def test_the_peak_speed_is_looked_up_by_the_exact_name(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    for name, tflops in (("NVIDIA L40", 181e12), ("NVIDIA L4", 121e12), ("NVIDIA L40S", 362e12), ("NVIDIA L400", None)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, name=name: name)
        assert peak_flops(cuda, torch.bfloat16) == tflops
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L40")
    assert peak_flops(cuda, torch.float32) is None
    assert peak_flops(torch.device("cpu"), torch.bfloat16) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_available_is_refused() -> None:
    with pytest.raises(UserError, match="--device cuda: not available; this machine has") as caught:
        choose_device("cuda")
    assert caught.value.exit_code == 2


def test_the_default_dtype_depends_on_what_the_device_is_fast_at(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert choose_dtype("auto", cpu) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_dtype("bfloat16", cpu) == torch.bfloat16


def test_autocast_computes_products_in_its_dtype() -> None:
    cpu = torch.device("cpu")
    with autocast(cpu, torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast(cpu, torch.float32):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_too_little_memory_on_a_cpu_is_one_line_and_other_errors_stay() -> None:
    told = r"this machine has too little memory: 4,000,000.0 GB at once could not be had. Try a lower --batch-size$"
    with pytest.raises(UserError, match=told), explain_out_of_memory("Try a lower --batch-size"):
        torch.empty(10**15)
    with pytest.raises(UserError, match=r"this machine has too little memory: Unable to allocate 8.00 PiB"), explain_out_of_memory(""):
        np.empty(1 << 50)
    with pytest.raises(UserError, match="this machine has too little memory.$"), explain_out_of_memory(""):
        raise MemoryError
    with pytest.raises(RuntimeError, match="a bug"), explain_out_of_memory(""):
        raise RuntimeError("a bug")
