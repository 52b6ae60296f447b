"""Memory: how much the machine has; what the process frees, it keeps; and how much the kernels of a CPU may take."""

import contextlib
import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
NEVER, LARGEST = -1, 1 << 25  # their largest values
KERNELS = 64  # of products on a CPU that are kept


def machine_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def keep_freed_memory() -> None:
    """Keep freed memory for the next tensors. A training step on a CPU frees hundreds of megabytes; given back to the system,
    every page of them would cost a fault in the next step. Without glibc it does nothing."""
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, NEVER)
        mallopt(M_MMAP_THRESHOLD, LARGEST)


def limit_kernels() -> None:
    """Before the first product: keep the kernels of the last shapes only. In bfloat16 a CPU has one of half a megabyte for each number
    of rows, and two caches keep 1,024 each: at the prompt, where every text has another length, memory would grow to a gigabyte."""
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, str(KERNELS))
