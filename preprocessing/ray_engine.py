"""Owns the workers on a Ray cluster: the same functions, on every machine of it."""

import socket
from pathlib import Path
from typing import Any

from preprocessing.chunks import Chunk
from preprocessing.engine import EncodeChunk, Result, WorkerKilled, encode
from system.errors import BAD_FLAGS, UserError, first_line

RAY = "ray==2.60.0"
CODE = Path(__file__).parent.parent
NOT_CODE = ["data", "out", "assets", "docs", "tests", ".git", ".venv", "*.pt", "*.bin"]  # not sent to the machines


class RayWorkers:
    """Tasks of a Ray cluster, or of Ray on this machine. A task whose machine is lost is repeated on another."""

    def __init__(self, encode_chunk: EncodeChunk[Any], folder: Path, address: str) -> None:
        self._ray = ray = _import_ray()
        _require_reachable(address)
        code = {"working_dir": str(CODE), "excludes": NOT_CODE}
        try:
            ray.init(address=address or "local", runtime_env=code, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise UserError(f"--ray-address {address}: {first_line(error)}", BAD_FLAGS) from error
        self._task = ray.remote(max_retries=-1)(encode)
        self._encode_chunk = ray.put(encode_chunk)
        self._folder = folder.absolute()
        self._chunks: dict[Any, Chunk[Any]] = {}  # in progress, by their task

    def has_room(self) -> bool:
        """Two tasks for each processor, so that none waits; machines may join and leave."""
        processors: float = self._ray.cluster_resources().get("CPU", 1)
        return len(self._chunks) < 2 * processors

    def is_busy(self) -> bool:
        return bool(self._chunks)

    def send(self, chunk: Chunk[Any]) -> None:
        self._chunks[self._task.remote(chunk, self._encode_chunk, self._folder)] = chunk

    def receive(self) -> tuple[Chunk[Any], Result]:
        [task], _ = self._ray.wait(list(self._chunks), num_returns=1)
        chunk = self._chunks.pop(task)
        try:
            result: Result = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            raise WorkerKilled(
                f"Ray lost a worker for good ({first_line(error)}). Finished chunks are kept: run the same command again"
            ) from error
        return chunk, result

    def close(self) -> None:
        self._ray.shutdown()


def _require_reachable(address: str) -> None:
    """Refuse an address where nobody listens: Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():
        return  # such as "auto"
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--ray-address {address}: {first_line(error)}. Start a cluster there with: ray start --head", BAD_FLAGS) from error


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UserError(f"--engine ray: Ray is not installed. Run: pip install '{RAY}'", BAD_FLAGS) from error
    return ray
