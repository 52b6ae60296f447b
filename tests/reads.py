"""Counting the operations that read values of tensors: on a GPU each waits for all that was started before."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")  # item(), bool(), a mask as an index, ...


class CountReads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Counts the reads in its context. On a CPU, copies to the host are none, and so are not counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0
        for name in ("tolist", "numpy"):  # they read past the dispatcher
            monkeypatch.setattr(torch.Tensor, name, self._counted(getattr(torch.Tensor, name)), raising=False)

    def _counted(self, method: Any) -> Any:
        def read(*arguments: Any) -> Any:
            self.count += 1
            return method(*arguments)

        return read

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function.overloadpacket.__name__ in READS
        return function(*args, **(kwargs or {}))
