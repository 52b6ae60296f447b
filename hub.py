"""Data sets on the hub, as files of rows that can be entered anywhere."""

import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from config import SourceConfig
from errors import UserError, first_line
from files import BATCH_ROWS

SILENCE_SECONDS = 30  # without a byte from the hub, and the connection counts as lost


class HubTrouble(ConnectionError):
    """The hub cannot be reached, broke off, or answered that it cannot just now."""

    def __init__(self, message: str, pause: int = 0) -> None:
        super().__init__(message)
        self.pause = pause  # seconds that the hub asks to wait


class Patience:
    """What is left of the attempts to reach the hub: each pause is twice the one before."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._used = 0

    def wait(self, trouble: str, error: Exception) -> None:
        """Say what went wrong and pause, or give up."""
        if self._used == self._retries:
            raise UserError(
                f"{trouble}: {first_line(error)}. Gave up after {self._used} new attempts; what is done is kept. "
                "Run the same command again to go on, or read local files with --input"
            ) from error
        pause = max(2**self._used, getattr(error, "pause", 0))
        print(f"{trouble}: {first_line(error)}. Trying again in {pause} s")
        time.sleep(pause)
        self._used += 1

    def restore(self) -> None:
        self._used = 0


class HubFiles(NamedTuple):
    """A data set on the hub."""

    revision: str  # its commit; empty where there is none
    name: str
    names: tuple[str, ...]  # of its files, for messages
    fields: list[str] | None  # of its rows, where the hub knows them
    read: Callable[[int, int, list[str] | None], Iterator[Any]]  # the Arrow tables of file .. from row .. on, of some fields or all


def open_hub(config: SourceConfig, revision: str) -> HubFiles:
    """The data set that the flags ask for, as it was at a revision or is now."""
    import datasets  # takes a second: only where it is used
    import pyarrow
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # re-exported, not declared

    _let_troubles_through()
    passing_errors = (ConnectionError, TimeoutError, httpx.RequestError)
    lasting_errors = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError, pyarrow.ArrowException)
    name = config.dataset + (f" ({config.subset})" if config.subset else "")
    patience = Patience(config.retries)
    while True:
        try:
            builder = datasets.load_dataset_builder(config.dataset, config.subset or None, revision=revision or None)
            dataset = builder.as_streaming_dataset(split=config.split)
            break
        except passing_errors as error:
            if datasets.config.HF_HUB_OFFLINE:
                raise UserError(f"cannot reach {name}: HF_HUB_OFFLINE is set. Unset it, or read local files with --input") from error
            patience.wait(f"cannot reach {name} on the hub", error)
        except datasets.exceptions.DatasetNotFoundError as error:
            raise UserError(f"{first_line(error)} Check --dataset, or read local files with --input") from error
        except lasting_errors as error:  # an unknown configuration or split, for one; the message lists the ones there are
            raise UserError(f"{name}, split {config.split!r}: {textwrap.shorten(str(error), 1000)}") from error
    names = tuple(f"{name}, file {index + 1} of {dataset.num_shards}" for index in range(dataset.num_shards))

    def read(file: int, row: int, fields: list[str] | None) -> Iterator[Any]:
        # As Arrow tables: made into Python strings by the library, one invalid byte would end the run.
        rows = dataset.select_columns(fields) if fields is not None and dataset.features is not None else dataset
        try:
            yield from rows.shard(len(names), file).skip(row).with_format("arrow").iter(BATCH_ROWS)
        except HubTrouble:
            raise
        except passing_errors as error:
            raise HubTrouble(first_line(error)) from error
        except lasting_errors as error:
            raise UserError(f"{names[file]} cannot be read: {first_line(error)}") from error

    fields = None if dataset.features is None else list(dataset.features)
    return HubFiles(builder.hash if builder.repo_id else "", name, names, fields, read)


def _let_troubles_through() -> None:
    """Have the libraries below raise at once what they would retry for minutes: `Patience` retries, and says so."""
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
                raise HubTrouble(f"{error or type(error).__name__} ({request.url.host})") from error
            if response.status_code in (408, 429) or response.status_code >= 500:
                response.close()
                quota, wish = parse_ratelimit_headers(response.headers), response.headers.get("retry-after", "")
                pause = quota.reset_in_seconds + 1 if quota and not quota.remaining else int(wish) if wish.isdecimal() else 0
                raise HubTrouble(f"{request.url.host} answers {response.status_code} {response.reason_phrase}", pause)
            return response

    hooks = get_session().event_hooks
    huggingface_hub.set_client_factory(lambda: Client(event_hooks=hooks, follow_redirects=True))
    # Of files that lie elsewhere than on the hub:
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
