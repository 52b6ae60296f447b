"""torch.compile: whether it works on this machine, and which errors are its own."""

import torch

from system.errors import first_line


def compile_problem(device: torch.device) -> str | None:
    """Why torch.compile does not work here, or None if it does; tried on one addition before a model depends on it."""
    try:
        torch.compile(lambda x: x + 1)(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        return first_line(error)
    return None


def is_compiler_error(error: RuntimeError) -> bool:
    """Whether torch.compile raised this.

    Its exception classes are private to torch, so they are told by the module that defines them; should those modules be
    renamed, the error is shown as a traceback instead of one line.
    """
    return any(kind.__module__.startswith(("torch._dynamo", "torch._inductor")) for kind in type(error).__mro__)
