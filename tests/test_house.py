"""The rules of the house, held over the syntax trees: layers, verbs and nouns, imports that do nothing."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(ROOT.glob("*.py"))}
VERBS = {name for name in FILES if name.endswith("_xcoax") or name.split("_")[0] in {"preprocess", "sample"}}
NOUNS = set(FILES) - VERBS

# From the top down: a file imports only from the lines below its own, never from its own.
LAYERS = [
    ["session", "recovery", "hellaswag"],
    ["training", "dialogue", "language", "held_out"],
    ["pipeline", "evaluation", "writing", "repl"],
    ["journal", "checkpoint", "engine", "scoring", "optimizer", "results", "report", "wording"],
    ["corpus", "packing", "figures"],
    ["layout", "hub", "lighter"],
    ["model", "shards", "tokenizer", "metrics", "device", "pairs", "flags"],
    ["files", "presets", "screen"],
    ["config", "world", "disk"],
    ["text", "errors"],
]
LAYER_OF = {name: depth for depth, names in enumerate(LAYERS) for name in names}


def imported_names(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


def test_every_noun_has_its_layer() -> None:
    assert set(LAYER_OF) == NOUNS


@pytest.mark.parametrize("name", sorted(NOUNS))
def test_imports_point_down(name: str) -> None:
    for imported in imported_names(FILES[name]) & set(FILES):
        assert imported in NOUNS, f"{name} imports the script {imported}"
        assert LAYER_OF[imported] > LAYER_OF[name], f"{name} imports {imported}, which is not below it"


@pytest.mark.parametrize("name", sorted(VERBS))
def test_scripts_import_no_script(name: str) -> None:
    assert not imported_names(FILES[name]) & VERBS


@pytest.mark.parametrize("name", sorted(FILES))
def test_importing_does_nothing(name: str) -> None:
    """At the top of a file stand definitions and constants, no statement with an effect."""
    allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in FILES[name].body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_main = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        assert isinstance(node, allowed) or is_docstring or (is_main and name in VERBS), f"{name}.py, line {node.lineno}"


@pytest.mark.parametrize("name", sorted(FILES))
def test_every_public_thing_says_what_it_is(name: str) -> None:
    tree = FILES[name]
    assert ast.get_docstring(tree), f"{name}.py has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and node.name != "main":
            assert ast.get_docstring(node), f"{name}.{node.name} has no docstring"


@pytest.mark.parametrize("name", sorted(FILES))
def test_files_are_rooms(name: str) -> None:
    assert len((ROOT / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 320


def test_a_worker_process_does_not_load_what_it_does_not_need() -> None:
    """Importing a preprocessing script in every worker must stay cheap: torch and datasets take seconds and hundreds of megabytes."""
    heavy = "('torch', 'datasets', 'matplotlib', 'pyarrow')"
    code = f"import sys, preprocess_xcoax, preprocess_instruct; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_torch_is_pinned_and_every_requirement_is_explained() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert "torch==2.13.0\n" in requirements
    for line in requirements.splitlines():
        if line and not line.startswith("#"):
            name = re.split(r"[=<>]", line)[0]
            assert f"`{name}`" in readme, f"the README does not say why {name} is there"
