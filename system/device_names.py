"""Names of devices and dtypes, and the peak speed of GPUs. Imports nothing, so that reading flags stays fast."""

from typing import Literal

Device = Literal["auto", "cuda", "mps", "cpu"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]

# Dense bfloat16 and float16 with float32 accumulation, from the vendors' data sheets, by the exact name that the driver reports:
# a substring search for "L4" would match an L40, and marketing figures are doubled by sparsity.
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
