"""Data folders that another one can be like: with the same input, settings and tokenizer."""

from collections.abc import Set
from pathlib import Path
from typing import Any, TypeVar

from config import Content, InstructConfig, SourceConfig
from formats.shards import MAKERS, Dataset, open_dataset
from preprocessing.journal import ADDED
from system.errors import BAD_FLAGS, UserError
from system.recorded_settings import describe_likeness, with_recorded

GIVEN = "given"  # in meta.json: the files as --input named them, which the settings know by content only
FREE = ("data_dir", "workers", "retries", "engine", "ray_address", "like")  # no byte depends on them

Config = TypeVar("Config", bound=SourceConfig)


def record_given(config: SourceConfig) -> dict[str, Any]:
    """What meta.json records for folders like this one, beside the settings that must match when a run resumes."""
    return {GIVEN: {"input": list(config.input)}} if config.input else {}


def like_data(preset: Config, folder: Path, given: Set[str]) -> Config:
    """The preset with the input and the settings of a data folder, and the folder as its tokenizer."""
    dataset = _open(folder)
    wanted: Content = "pairs" if isinstance(preset, InstructConfig) else "documents"
    if dataset.content != wanted:
        raise UserError(
            f"--like {folder}: it holds {dataset.content}, made by {MAKERS[dataset.content]}. Name a folder of {wanted}", BAD_FLAGS
        )
    meta = dataset.meta
    settings, recorded = dict(meta["settings"]), meta.get(GIVEN)
    if "data_dir" not in given:
        raise UserError(f"--like {folder}: name the new folder with --data-dir", BAD_FLAGS)
    if "input" in settings and not {"input", "dataset"} & given:
        settings["input"] = recorded.get("input") if isinstance(recorded, dict) else None
        if not settings["input"]:
            raise UserError(f"--like {folder}: an earlier version made it and did not record its --input. Give that too", BAD_FLAGS)
    else:
        settings["input"] = []
    hub = {"dataset", "subset", "split"} - settings.keys()
    # What an earlier version did, and what is recorded only where it was used.
    optional = {name: value for name, value in ADDED.items() if hasattr(preset, name)}
    return with_recorded(preset, {**optional, **settings, "tokenizer": str(folder)}, folder / "meta.json", {*FREE, *hub})


def recorded_revision(config: SourceConfig) -> str:
    """The commit of a hub data set that --like was made from; empty if there is none, or if this is another data set."""
    if not config.like or config.input:
        return ""
    meta = _open(Path(config.like)).meta
    same = all(meta["settings"].get(name) == getattr(config, name) for name in ("dataset", "subset", "split"))
    return str(meta.get("revision", "")) if same else ""


def likeness(config: SourceConfig, settings: dict[str, Any]) -> list[str]:
    """What differs between the settings of a folder and of the one that --like names, in one line; nothing without --like."""
    if not config.like:
        return []
    meta = _open(Path(config.like)).meta
    was = {**ADDED, **meta["settings"], "tokenizer": meta["tokenizer_sha256"]}
    return [describe_likeness(config.like, was, {**ADDED, **settings})]


def _open(folder: Path) -> Dataset:
    try:
        return open_dataset(folder, None)
    except UserError as error:
        raise UserError(f"--like {folder}: {error}", BAD_FLAGS) from error
