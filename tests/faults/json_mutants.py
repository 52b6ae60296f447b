"""Damaged JSON that is still JSON: values of other types, numbers that fit nowhere, deep and long ones, names twice or missing."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from tests.faults.mutants import MOST_REPEATS, Mutant

PLACE = "\ue000"  # stands for text that json.dumps would not write

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 400, 65_536, 65_537, 10**9, 10**12, (1 << 62) - 1, (1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63)),
    *(10**400, 0.0, -0.0, 0.5, 1.5, -1.5, 1e-300, 1e18, 1.8e308, float("inf"), float("-inf"), float("nan")),
    *(
        "",
        " ",
        "x",
        "1",
        "None",
        "a\nb",
        "\0",
        "\ud800",
        "日本",
        "../../etc/passwd",
        "/dev/zero",
        "train_00000.bin",
        "backward",
        "x" * 70_000,
    ),
    *([], {}, [[]], [None], [0, 0], ["x", "x"], [1, "x", None, {}], {"": None}, {"x": {"x": []}}, {"role": 1, "content": []}),
)
RAW = {  # text with its share of the mutants
    "[" * 100_000 + "]" * 100_000: 1,
    '{"a":' * 100_000 + "1" + "}" * 100_000: 1,
    "[" * 900 + "]" * 900: 4,
    "[" + "0," * 999_999 + "0]": 0.3,
    "[" + '"",' * 100_000 + '""]': 1,
    "9" * 5_000: 4,
    "-" + "9" * 4_000: 4,
    "1" + "0" * 310: 4,
    "1e400": 4,
}


def json_mutants(value: Any, count: int, seed: int = 0, indent: int | None = None) -> Iterator[Mutant]:
    """So many changed copies of a value, as text, no two alike, or as many as there are. Each of its parts is changed equally often."""
    chosen = random.Random(seed)
    seen = {hash(json.dumps(value, indent=indent, ensure_ascii=ascii).encode("utf-8", "surrogatepass")) for ascii in (False, True)}
    repeats = made = 0
    while made < count and repeats < MOST_REPEATS:
        changed = [copy.deepcopy(value)]  # in a list, so that the whole value is a part too
        raw = ""
        for _ in range(chosen.choice((1, 1, 1, 2, 3))):
            parts = list(_parts(changed))
            holder, key = chosen.choice(parts)
            what = chosen.choice(("value", "value", "value", "raw", "missing", "twice", "renamed", "wrapped", "exchanged"))
            if what == "value":
                holder[key] = copy.deepcopy(chosen.choice(VALUES))
            elif what == "raw" and not raw:
                [raw] = chosen.choices([*RAW], [*RAW.values()])
                holder[key] = PLACE
            elif what == "missing" and holder is not changed:
                del holder[key]
            elif what == "twice" and isinstance(holder, dict) and not raw:
                first = json.dumps(holder[key])
                holder[key] = PLACE
                raw = f"{first}, {json.dumps(key)}: {json.dumps(chosen.choice(VALUES))}"
            elif what == "renamed" and isinstance(holder, dict):
                holder[chosen.choice(("", "x", "__class__", f"{key} ", f"{key}".upper()))] = holder.pop(key)
            elif what == "wrapped":
                holder[key] = chosen.choice(([holder[key]], {"x": holder[key]}, str(holder[key]), [holder[key]] * 3))
            else:
                other, place = chosen.choice(parts)
                holder[key], other[place] = copy.deepcopy((other[place], holder[key]))
        text = json.dumps(changed[0], indent=indent, ensure_ascii=chosen.random() < 0.5)
        text = text.replace(json.dumps(PLACE), raw).replace(f'"{PLACE}"', raw)
        content = text.encode("utf-8", "surrogatepass")
        repeats = repeats + 1 if hash(content) in seen else 0
        if not repeats:
            seen.add(hash(content))
            yield Mutant(f"{text[:200]} ({made} of seed {seed})", content)
            made += 1


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each value in a list or an object, and in those in it, as the place where it is."""
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _parts(value[key])
