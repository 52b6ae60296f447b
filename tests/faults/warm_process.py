"""A process that has imported all that the scripts need, and forks a child for each command: a run costs tenths of a second.

The child meets one fault of failing_disk.c below a folder. Other tests start it through `warm.py`.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import sys
import threading
import traceback
from pathlib import Path
from typing import Any
from unittest import mock

from tqdm import tqdm

from tests.preprocessing.in_process import EngineHere


def serve(modules: list[str]) -> None:
    """Run the commands that come as lines of JSON, one after the other; each is answered with the wait status of its process."""
    for name in modules:
        importlib.import_module(name)
    tqdm.set_lock(threading.RLock())  # not shared with the children, which are killed
    gc.freeze()  # or each child would copy all of these modules, to look through them
    print("warm", flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_become(case))
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


def _become(case: dict[str, Any]) -> int:
    """Be the process of a command; returns its exit code. What it leaves is collected, but not the modules: that takes seconds."""
    os.setsid()
    for number, (path, flags) in enumerate(((os.devnull, os.O_RDONLY), *((case[name], os.O_WRONLY) for name in ("out", "err")))):
        os.dup2(os.open(path, flags), number)
    sys.argv = [case["script"], *case["flags"]]
    log = os.open(case["log"], os.O_WRONLY)
    disk = ctypes.CDLL(case["disk"])
    disk.arm(case["folder"].encode(), log, case["at"], case["fault"])
    with contextlib.ExitStack() as stack:
        if case["chunk"]:  # the work of the workers, in this process too
            here = lambda config, encode_chunk, folder: EngineHere(encode_chunk, folder)  # noqa: E731
            stack.enter_context(mock.patch("preprocessing.encoding._make_engine", here))
            stack.enter_context(mock.patch("preprocessing.documents.prepare_workers"))
            stack.enter_context(mock.patch("preprocessing.instruct_pairs.prepare_workers"))
            stack.enter_context(mock.patch("preprocessing.chunks.CHUNK_DOCUMENTS", case["chunk"]))
        elif not case["picture"]:
            stack.enter_context(mock.patch("training.loop.redraw_loss_curve"))
        try:
            runpy.run_path(str(Path(case["root"]) / case["script"]), run_name="__main__")
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001 -- as the interpreter would
            traceback.print_exc()
            code = 1
    gc.collect()
    sys.stdout.flush()
    disk.finish()
    return code


if __name__ == "__main__":
    serve(sys.argv[1:])
