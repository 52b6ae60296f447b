"""config.json, the record of a run and of each of its sittings, which another run can be like."""

import dataclasses
import json
from collections.abc import Set
from pathlib import Path
from typing import Any, TypeVar

from config import LoopConfig
from system.errors import BAD_FLAGS, UserError
from system.files import write_json
from system.json_text import to_json
from system.provenance import describe_program
from system.recorded_settings import describe_likeness, read_record, with_recorded
from system.settings import changed_settings
from training.task import TrainingTask

RECORD = "config.json"
RESOLVED, GIVEN, DATA, SITTINGS = "resolved", "given", "data", "sittings"  # what it holds beside the settings and the program
PROGRAM = ("command", "commit", "versions")  # what describes the program
ONCE = ("out_dir", "like", "plot", "dry_run", "new_data")  # flags that concern one start of one run

Config = TypeVar("Config", bound=LoopConfig)


def write_record(config: LoopConfig, task: TrainingTask, resumed_step: int, *facts: str) -> None:
    """Write the settings of a run, everything else that its result depends on, and the sitting that begins, after the earlier ones."""
    path = Path(config.out_dir) / RECORD
    beside = {RESOLVED: facts, GIVEN: task.given, DATA: task.data_fingerprint, **describe_program()}
    record = json.loads(to_json({**dataclasses.asdict(config), **beside}))  # as it will be read
    earlier = _earlier_record(path) if resumed_step else {}
    sittings = _sittings(earlier)
    sitting = {"from_step": resumed_step, "to_step": None, "command": record["command"], "commit": record["commit"], "changed": {}}
    if sittings:
        sittings[-1]["to_step"] = resumed_step  # if it was killed, what was kept of it
        was, now = _compared(earlier), _compared(record)
        sitting["changed"] = {name: [was[name], now[name]] for name in now if name in was and was[name] != now[name]}
    write_json(path, {**record, SITTINGS: [*sittings, sitting]})


def end_sitting(config: LoopConfig, saved_step: int) -> None:
    """Record the last step of the sitting. One that was killed gets it when the run is resumed."""
    path = Path(config.out_dir) / RECORD
    record = _earlier_record(path)
    sittings = _sittings(record)
    if sittings and sittings[-1].get("to_step") != saved_step:
        sittings[-1]["to_step"] = saved_step
        write_json(path, {**record, SITTINGS: sittings})


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
    return with_recorded(preset, settings, path, {RESOLVED, GIVEN, DATA, SITTINGS, *PROGRAM, *ONCE})


def likeness(config: LoopConfig) -> list[str]:
    """What differs between a run and the one that --like names, in one line, and between that one's sittings in another."""
    if not config.like:
        return []
    now = {name: value for name, value in _flat(dataclasses.asdict(config)).items() if name not in ONCE}
    record = read_record(Path(config.like) / RECORD)
    lines = [describe_likeness(config.like, _flat(record), now)]
    sittings = _sittings(record)
    changes = [(each.get("from_step"), _changes(each, {*now, DATA})) for each in sittings]
    told = "; ".join(f"from step {step} {', '.join(changed)}" for step, changed in changes if changed)
    if told and Path(config.like).resolve() != Path(config.out_dir).resolve():
        lines.append(f"{config.like} had {len(sittings)} sittings with different settings, the last ones are taken: {told}")
    return lines


def _changes(sitting: dict[str, Any], names: Set[str]) -> list[str]:
    changed = sitting.get("changed")
    pairs = {name: pair for name, pair in changed.items() if name in names} if isinstance(changed, dict) else {}
    pairs = {name: pair for name, pair in pairs.items() if isinstance(pair, list) and len(pair) == 2}
    return changed_settings({name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()})


def _earlier_record(path: Path) -> dict[str, Any]:
    """What the file holds; nothing if it was deleted or damaged, which must not keep a run from resuming."""
    try:
        return read_record(path)
    except UserError:
        return {}


def _sittings(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Every start of a run, in order. An earlier version recorded only the last one, without its steps."""
    sittings = record.get(SITTINGS)
    if isinstance(sittings, list):
        return [sitting for sitting in sittings if isinstance(sitting, dict)]
    only = {"command": record.get("command"), "commit": record.get("commit")}
    return [{"from_step": None, "to_step": None, **only, "changed": {}}] if only["command"] else []


def _compared(record: dict[str, Any]) -> dict[str, Any]:
    """What may change from one sitting to the next: settings, data and versions."""
    versions = record.get("versions")
    settings = {name: value for name, value in _flat(record).items() if name not in {RESOLVED, GIVEN, SITTINGS, *PROGRAM, *ONCE}}
    return {**settings, **(versions if isinstance(versions, dict) else {})}


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of the model beside the others."""
    model = settings.get("model")
    return {**(model if isinstance(model, dict) else {}), **{name: value for name, value in settings.items() if name != "model"}}
