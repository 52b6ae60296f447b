"""The settings that an earlier run recorded, as a configuration for another run like it."""

import dataclasses
import json
import types
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from system.errors import BAD_FLAGS, UserError, first_line
from system.escapes import tell
from system.settings import changed_settings

Config = TypeVar("Config")


def read_record(path: Path) -> dict[str, Any]:
    """The object in a JSON file that a run has written."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"--like {path.parent}: there is no {path.name}. Name the folder of a run of this script", BAD_FLAGS) from error
    except OSError as error:
        raise UserError(f"--like {path.parent}: {error.strerror}. Name the folder of a run of this script", BAD_FLAGS) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, first_line(error)) from error
    if not isinstance(record, dict):
        raise _damaged(path, "it holds no settings")
    return record


def with_recorded(preset: Config, recorded: Mapping[str, Any], path: Path, not_taken: Set[str]) -> Config:
    """The preset with the recorded settings. What the record lacks or has beside them is told in one line."""
    values = {name: value for name, value in recorded.items() if name not in not_taken}
    config, missing, unknown = _replace(preset, values, path, not_taken)
    told = [f"has no {', '.join(missing)}: used as the preset has it"] if missing else []
    told += [f"has {', '.join(unknown)}, which this version does not know"] if unknown else []
    if told:
        tell(f"{path} {'; it '.join(told)}")
    return config


def describe_likeness(folder: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs from the settings that --like names, as far as it recorded them, in one line."""
    changes = changed_settings(dict(was), {name: value for name, value in now.items() if name in was})
    return f"like {folder}" + (f", except: {'; '.join(changes)}" if changes else "")


def _replace(preset: Config, values: dict[str, Any], path: Path, not_taken: Set[str]) -> tuple[Config, list[str], list[str]]:
    """The preset with these values, and the names of those that are missing and that are unknown."""
    hints = get_type_hints(type(preset))
    fields = [field.name for field in dataclasses.fields(preset) if field.name not in not_taken]  # type: ignore[arg-type]  # any dataclass
    missing = [name for name in fields if name not in values]
    unknown = [name for name in values if name not in fields]
    changes: dict[str, Any] = {}
    for name in fields:
        if name not in values:
            continue
        value, inner = values[name], getattr(preset, name)
        if dataclasses.is_dataclass(inner) and isinstance(value, dict):
            changes[name], inner_missing, inner_unknown = _replace(inner, value, path, not_taken)
            missing, unknown = [*missing, *inner_missing], [*unknown, *inner_unknown]
        elif _fits(value, hints[name]):
            changes[name] = tuple(value) if isinstance(value, list) else value
        else:
            raise _damaged(path, f"{name} is {value!r:.80}")
    return dataclasses.replace(preset, **changes), missing, unknown  # type: ignore[type-var]  # any dataclass


def _fits(value: object, hint: Any) -> bool:
    """Whether a value that was read from JSON is of the type of a field, without what Annotated adds."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, list) and all(_fits(each, inner[0]) for each in value)
    if isinstance(value, int) and abs(value) >= 1 << 63:
        return False
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is hint


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged, or not of a run of this script ({what}). Name another folder with --like", BAD_FLAGS)
