"""How runs are called: by the folder of the model, with as much of the path before it as tells runs apart."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence

from formats.checkpoint import BEST, Checkpoint
from formats.hub_models import SCHEME, is_on_hub

LONGEST_NAME = 200  # characters of a folder's name; file systems allow 255 bytes

Parts = tuple[str, ...]  # of a path


def parts_of(named: str, checkpoint: Checkpoint) -> Parts:
    """The path of a model's folder, in parts; the last one also has the name of the file, if it is not the usual one."""
    if is_on_hub(named):
        return tuple(named.removeprefix(SCHEME).rstrip("/").split("/"))
    parts = checkpoint.folder.resolve().parts
    usual = checkpoint.path.is_dir() or checkpoint.path.name == BEST
    return parts if usual else (*parts[:-1], f"{parts[-1]}-{checkpoint.path.stem}")


def tell_apart(runs: Sequence[Parts]) -> list[str]:
    """The shortest end of each path that no other path has; what occurs several times is numbered."""
    counts, numbers = Counter(runs), Counter[Parts]()
    names = []
    for run in runs:
        others = counts.keys() - {run}
        lengths = (length for length in range(1, len(run)) if all(run[-length:] != other[-length:] for other in others))
        length = next(lengths, len(run))
        numbers[run] += 1
        names.append("/".join(run[-length:]).replace("//", "/") + (f" {numbers[run]}" if counts[run] > 1 else ""))
    return names


def name_beside(ours: Parts, other: Parts) -> str:
    """The other run as part of a folder's name: its path below the folder that has ours, or from the first folder that has both."""
    folder, theirs = ours[:-1], other[:-1]
    shared = next(
        (place for place, (one, two) in enumerate(zip(folder, theirs, strict=False)) if one != two), min(len(folder), len(theirs))
    )
    first = shared if shared == len(folder) else max(0, shared - 1)
    return ",".join(part for part in other[first:] if part != os.sep)


def fit_name(name: str) -> str:
    """The name of a folder; a long one ends in a hash of what does not fit."""
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name.encode()[:LONGEST_NAME].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
