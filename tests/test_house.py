"""The rules of the house, checked on the syntax trees: rooms, downward imports, no circles, imports without effects."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the top down: a room imports only from rooms below it. Strangers do not know each other, though one is below.
ROOMS = [
    "experiments",
    "benchmarking",
    "evaluation",
    "exporting",
    "training",
    "sampling",
    "preprocessing",
    "formats",
    "tokens",
    "model",
    "presets",
    "config",
    "system",
]
STRANGERS = {
    ("benchmarking", "evaluation"),
    ("benchmarking", "exporting"),
    ("evaluation", "exporting"),
    ("exporting", "training"),
    ("training", "preprocessing"),
    ("sampling", "preprocessing"),
}
PRINTERS = {"system.escapes", "system.startup", "sampling.terminal_sampler", "benchmarking.stages"}
EXPERIMENTS = {"experiments.tokens_to_loss", "experiments.back_translation"}  # run with `python -m`


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


FILES = [*ROOT.glob("*.py"), *(file for room in ROOMS for file in ROOT.glob(f"{room}/*.py"))]
TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(FILES)}
SCRIPTS = {name for name in TREES if "." not in name and name not in ROOMS}
MODULES = {name for name in TREES if name not in SCRIPTS and not name.endswith("__init__")}


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            yield from ([node.module] if node.module in TREES else (f"{node.module}.{alias.name}" for alias in node.names))


def room_of(name: str) -> str:
    return name.partition(".")[0]


OURS = {name: {imported for imported in imports(tree) if imported in TREES} for name, tree in TREES.items()}


def test_every_module_is_in_a_room() -> None:
    assert {room_of(name) for name in MODULES} == set(ROOMS)
    assert all(name.endswith("_xcoax") or name.startswith(("preprocess_", "sample_")) for name in SCRIPTS)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name: str) -> None:
    own = room_of(name)
    for imported in OURS[name]:
        assert imported in MODULES, f"{name} imports the script {imported}"
        other = room_of(imported)
        assert other == own or ROOMS.index(other) > ROOMS.index(own), f"{name} imports {imported}, which is not below it"
        assert (own, other) not in STRANGERS, f"{name} imports {imported}: these rooms do not know each other"


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_import_no_script(name: str) -> None:
    assert not OURS[name] & SCRIPTS


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_scripts_import_startup_first_and_nothing_else_does(name: str) -> None:
    found = [node for node in TREES[name].body if isinstance(node, ast.Import | ast.ImportFrom)]
    slow = [node for node in found if ast.unparse(node).split()[1].partition(".")[0] not in sys.stdlib_module_names]
    assert ast.unparse(slow[0]) == "from system.startup import run_script"
    assert not any("system.startup" in OURS[module] for module in MODULES - EXPERIMENTS)


def test_there_is_no_circle() -> None:
    TopologicalSorter({name: OURS[name] for name in MODULES}).prepare()


def test_room_names_shadow_no_installed_package() -> None:
    installed = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions())
    assert not installed & {*ROOMS, *SCRIPTS}


@pytest.mark.parametrize("name", sorted(TREES))
def test_importing_does_nothing(name: str) -> None:
    """The top level of a file has only definitions and constants, no statement with an effect; a room exports nothing."""
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    is_startup = name == "system.startup"  # the one exception, which says why
    for node in TREES[name].body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        assert not name.endswith("__init__") or is_docstring, f"{name} exports nothing"
        assert (
            isinstance(node, allowed)
            or is_docstring
            or (is_main and name in SCRIPTS | EXPERIMENTS)
            or (is_startup and isinstance(node, ast.If))
        ), f"{name}, line {node.lineno}"


@pytest.mark.parametrize("name", sorted(TREES))
def test_what_is_printed_cannot_drive_the_terminal(name: str) -> None:
    """Messages hold names of files, settings and texts of strangers: `tell` escapes them. Only whoever knows the output prints as it is."""
    printed = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and node.args]
    assert name in PRINTERS or not printed, f"{name}, line {printed[0].lineno}: use system.escapes.tell"


@pytest.mark.parametrize("name", sorted(TREES))
def test_every_public_thing_has_a_docstring(name: str) -> None:
    docstring = ast.get_docstring(TREES[name])
    assert docstring and not docstring.startswith("TODO"), f"{name} has no docstring"
    for node in TREES[name].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and node.name != "main":
            assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"


@pytest.mark.parametrize("path", sorted(FILES), ids=name_of)
def test_files_are_short(path: Path) -> None:
    """A script is read in one go; a file that grows past its limit is two. Only config.py has every setting, and so its length."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= (130 if name_of(path) in SCRIPTS else 500 if path.name == "config.py" else 320)


def test_worker_processes_import_nothing_heavy() -> None:
    """Every worker imports the script that started it: torch and datasets would cost seconds and hundreds of megabytes."""
    heavy = "('torch', 'datasets', 'matplotlib', 'pyarrow')"
    modules = "preprocess_xcoax, preprocess_instruct, benchmark_xcoax, benchmarking.preprocessing_speed"
    code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_torch_is_pinned_and_every_requirement_is_explained() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert "torch==2.13.0\n" in requirements
    for line in requirements.splitlines():
        if line and not line.startswith("#"):
            name = re.split(r"[=<>]", line)[0]
            assert f"`{name}`" in readme, f"the README does not say why {name} is there"
