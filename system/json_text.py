"""JSON as others can read it: null for infinity and NaN, which JSON lacks."""

import json
import math


def to_json(value: object, indent: int | None = None) -> str:
    """A value as JSON text, with Unicode as it is."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
