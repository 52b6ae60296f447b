"""config.json, the record of a run, which another run can be like."""

import dataclasses
from collections.abc import Set
from pathlib import Path
from typing import Any, TypeVar

from config import LoopConfig
from system.errors import BAD_FLAGS, UserError
from system.files import write_json
from system.provenance import describe_program
from system.recorded_settings import describe_likeness, read_record, with_recorded
from training.task import TrainingTask

RECORD = "config.json"
RESOLVED, GIVEN, DATA = "resolved", "given", "data"  # what it holds beside the settings and what describes the program
ONCE = ("out_dir", "like", "plot", "dry_run", "new_data")  # flags that concern one start of one run

Config = TypeVar("Config", bound=LoopConfig)


def write_record(config: LoopConfig, task: TrainingTask, *facts: str) -> None:
    """Write the settings of a run, and everything else that its result depends on."""
    beside = {RESOLVED: facts, GIVEN: task.given, DATA: task.data_fingerprint, **describe_program()}
    write_json(Path(config.out_dir) / RECORD, {**dataclasses.asdict(config), **beside})


def like_run(preset: Config, folder: Path, given: Set[str]) -> Config:
    """The preset with the settings of the run in a folder. The new run must get a folder of its own, or that one to resume."""
    path = folder / RECORD
    record = read_record(path)
    own = {field.name for field in dataclasses.fields(preset)} - {field.name for field in dataclasses.fields(LoopConfig)} - {"data_dir"}
    if not own & record.keys() or not isinstance(record.get("model"), dict):
        raise UserError(f"{path} is not of a run of this script. Name the folder of another run with --like", BAD_FLAGS)
    if not {"out_dir", "dry_run"} & given:
        raise UserError(f"--like {folder}: name the folder of the new run with --out-dir, or {folder} itself to resume that run", BAD_FLAGS)
    as_given = record.get(GIVEN)
    settings = {**record, **(as_given if isinstance(as_given, dict) else {})}
    return with_recorded(preset, settings, path, {RESOLVED, GIVEN, DATA, *describe_program(), *ONCE})


def likeness(config: LoopConfig) -> list[str]:
    """What differs between a run and the one that --like names, in one line; nothing without --like."""
    if not config.like:
        return []
    now = {name: value for name, value in _flat(dataclasses.asdict(config)).items() if name not in ONCE}
    was = _flat(read_record(Path(config.like) / RECORD))
    return [describe_likeness(config.like, was, now)]


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the model beside the others."""
    return {**settings["model"], **{name: value for name, value in settings.items() if name != "model"}}
