"""What hostile input must not do, watched from inside the process: make the canary, or reach the network."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Sealed(NamedTuple):
    """A place to work in, and what tells of an escape from it."""

    folder: Path
    canary: Path
    contacted: list[object]

    def check(self) -> None:
        """Nothing ran, and nothing outside was contacted."""
        ran, contacted = self.canary.exists(), list(self.contacted)
        self.canary.unlink(missing_ok=True)
        self.contacted.clear()
        assert not ran, "code was run"
        assert not contacted, f"the network was used: {contacted}"


@contextmanager
def sealed_in(folder: Path) -> Iterator[Sealed]:
    """Work without a network; attempts to use it are recorded."""
    contacted: list[object] = []
    connect = socket.socket.connect

    def refuse(*arguments: Any, **_: object) -> None:
        contacted.append(arguments[:2])
        raise OSError("no network in this test")

    def connect_locally(self: socket.socket, address: Any) -> None:
        connect(self, address) if self.family == socket.AF_UNIX else refuse(address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_locally)
        patch.setattr(socket.socket, "connect_ex", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield Sealed(folder, folder / "canary", contacted)
