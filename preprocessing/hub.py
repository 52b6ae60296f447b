"""Owns reading data sets from the hub: as files of rows, from any row on, with retries when the connection fails."""

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from config import SourceConfig
from formats.hub_client import raise_network_errors_at_once
from formats.hub_models import is_repository
from formats.parquet_files import BATCH_ROWS
from preprocessing.retries import Retries
from system.errors import LostConnection, UserError, first_line, require


class HubDataset(NamedTuple):
    """One split of a data set on the hub."""

    revision: str  # its commit; empty if it has none
    name: str
    names: tuple[str, ...]  # of its files, for messages
    parquet: tuple[str, ...]  # the URLs of its files, if they are Parquet
    fields: list[str] | None  # of its rows; None if the hub does not say
    read: Callable[[int, int, list[str] | None], Iterator[Any]]  # (file, first row, fields or None for all) -> Arrow tables


def open_hub_dataset(config: SourceConfig, revision: str) -> HubDataset:
    """The data set that the flags name, at this revision (a commit), or the newest if it is empty."""
    import datasets  # heavy: worker processes must not import it
    import pyarrow
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # re-exported, not declared

    require(
        is_repository(config.dataset) or Path(config.dataset).exists(),
        f"--dataset {config.dataset}: a data set on the hub is named owner/name. Read local files with --input",
    )
    raise_network_errors_at_once()
    # For files that are stored outside the hub:
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
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
                way_out = "Check the name and unset it, or read local files with --input"
                raise UserError(f"cannot reach {name}: HF_HUB_OFFLINE is set. {way_out}") from error
            retries.wait(f"cannot reach {name} on the hub", error, "Check its name and the connection. ")
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
        except LostConnection:
            raise
        except transient_errors as error:
            raise LostConnection(first_line(error)) from error
        except permanent_errors as error:
            raise UserError(f"{names[file]} cannot be read: {first_line(error)}") from error

    fields = None if dataset.features is None else list(dataset.features)
    return HubDataset(builder.hash if builder.repo_id else "", name, names, _parquet_urls(builder, config.split), fields, read)


def _parquet_urls(builder: Any, split: str) -> tuple[str, ...]:
    """The files of a data set in their order, if they are Parquet on the hub: rows of them can be read on their own."""
    files = tuple(map(str, (builder.config.data_files or {}).get(split, ())))
    return files if all(file.startswith("hf://") and file.lower().endswith(".parquet") for file in files) else ()
