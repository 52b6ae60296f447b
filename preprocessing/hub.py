"""Owns reading data sets from the hub: as files of rows, from any row on, with retries when the connection fails."""

import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from config import SourceConfig
from formats.parquet_files import BATCH_ROWS
from system.errors import UserError, first_line
from system.escapes import escape_controls

SILENCE_SECONDS = 30  # without a byte from the hub, after which the connection counts as lost


class HubError(ConnectionError):
    """The hub cannot be reached, broke the connection, or answered that it is busy. Worth a retry."""

    def __init__(self, message: str, pause: int = 0) -> None:
        super().__init__(message)
        self.pause = pause  # seconds that the hub asks to wait


class Retries:
    """Pauses before each retry, each twice the one before, and gives up after a number of them."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._used = 0

    def wait(self, trouble: str, error: Exception) -> None:
        """Print what went wrong and pause, or give up."""
        if self._used == self._retries:
            raise UserError(
                f"{trouble}: {first_line(error)}. Gave up after {self._used} retries; finished work is kept. "
                "Run the same command again to resume, or read local files with --input"
            ) from error
        pause = max(2**self._used, getattr(error, "pause", 0))
        print(escape_controls(f"{trouble}: {first_line(error)}. Trying again in {pause} s"))
        time.sleep(pause)
        self._used += 1

    def restore(self) -> None:
        """Allow the full number of retries again, after a success."""
        self._used = 0


class HubDataset(NamedTuple):
    """One split of a data set on the hub."""

    revision: str  # its commit; empty if it has none
    name: str
    names: tuple[str, ...]  # of its files, for messages
    fields: list[str] | None  # of its rows; None if the hub does not say
    read: Callable[[int, int, list[str] | None], Iterator[Any]]  # (file, first row, fields or None for all) -> Arrow tables


def open_hub_dataset(config: SourceConfig, revision: str) -> HubDataset:
    """The data set that the flags name, at this revision (a commit), or the newest if it is empty."""
    import datasets  # heavy: worker processes must not import it
    import pyarrow
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # re-exported, not declared

    _raise_network_errors_at_once()
    transient_errors = (ConnectionError, TimeoutError, httpx.RequestError)
    permanent_errors = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, pyarrow.ArrowException)
    name = config.dataset + (f" ({config.subset})" if config.subset else "")
    retries = Retries(config.retries)
    while True:
        try:
            builder = datasets.load_dataset_builder(config.dataset, config.subset or None, revision=revision or None)
            dataset = builder.as_streaming_dataset(split=config.split)
            break
        except transient_errors as error:
            if datasets.config.HF_HUB_OFFLINE:
                raise UserError(f"cannot reach {name}: HF_HUB_OFFLINE is set. Unset it, or read local files with --input") from error
            retries.wait(f"cannot reach {name} on the hub", error)
        except datasets.exceptions.DatasetNotFoundError as error:
            raise UserError(f"{first_line(error)} Check --dataset, or read local files with --input") from error
        except permanent_errors as error:  # such as an unknown configuration or split; the message lists the known ones
            raise UserError(f"{name}, split {config.split!r}: {textwrap.shorten(str(error), 1000)}") from error
    names = tuple(f"{name}, file {index + 1} of {dataset.num_shards}" for index in range(dataset.num_shards))

    def read(file: int, row: int, fields: list[str] | None) -> Iterator[Any]:
        # As Arrow tables: if the library made Python strings, one invalid byte would end the run.
        rows = dataset.select_columns(fields) if fields is not None and dataset.features is not None else dataset
        try:
            yield from rows.shard(len(names), file).skip(row).with_format("arrow").iter(BATCH_ROWS)
        except HubError:
            raise
        except transient_errors as error:
            raise HubError(first_line(error)) from error
        except permanent_errors as error:
            raise UserError(f"{names[file]} cannot be read: {first_line(error)}") from error

    fields = None if dataset.features is None else list(dataset.features)
    return HubDataset(builder.hash if builder.repo_id else "", name, names, fields, read)


def _raise_network_errors_at_once() -> None:
    """Make the libraries raise errors that they would silently retry for minutes: `Retries` retries, and prints it."""
    import datasets
    import huggingface_hub
    from huggingface_hub.utils import get_session, httpx, parse_ratelimit_headers  # type: ignore[attr-defined]  # re-exported, not declared

    class Client(httpx.Client):
        def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
            limits = request.extensions.get("timeout", {})
            request.extensions["timeout"] = {what: min(seconds or SILENCE_SECONDS, SILENCE_SECONDS) for what, seconds in limits.items()}
            try:
                response = super().send(request, **options)
            except httpx.RequestError as error:
                raise HubError(f"{error or type(error).__name__} ({request.url.host})") from error
            if response.status_code in (408, 429) or response.status_code >= 500:
                response.close()
                quota, retry_after = parse_ratelimit_headers(response.headers), response.headers.get("retry-after", "")
                pause = int(retry_after) if retry_after.isdecimal() else 0
                if quota and not quota.remaining:
                    pause = quota.reset_in_seconds + 1
                raise HubError(f"{request.url.host} answers {response.status_code} {response.reason_phrase}", pause)
            return response

    hooks = get_session().event_hooks
    huggingface_hub.set_client_factory(lambda: Client(event_hooks=hooks, follow_redirects=True))
    # For files that are stored outside the hub:
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
