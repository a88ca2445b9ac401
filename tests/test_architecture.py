"""Who may import whom: the table of the architecture, read from the imports; and what no file may do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "robots": set(),
    "episodes": {"robots"},
    "dynamics": {"robots", "episodes"},
    "planners": {"robots", "episodes", "dynamics"},
    "policies": {"robots", "episodes", "dynamics", "planners"},
    "sim": {"robots", "episodes", "dynamics", "planners"},
    "hw_bridge": {"robots", "episodes", "dynamics", "planners", "policies"},
    "hw_bridge/twins": {"robots", "episodes", "dynamics", "planners", "policies", "sim"},
    "experiments": {"robots", "episodes", "dynamics", "planners", "policies", "sim", "hw_bridge"},
}
"""For every folder, the others it may import; itself always. The longest folder that holds a file decides."""

PACKAGES = {folder for folder in MAY_IMPORT if "/" not in folder}
NEVER_FOLDERS = {"utils", "util", "common", "helpers", "misc"}
NEVER_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def source_files(root: Path, *folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def imported_modules(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield (line, absolute dotted name) of every import in `tree`, also within functions, relative or by a constant string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            yield node.lineno, ".".join(part for part in (base, node.module) if part)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                yield node.lineno, node.args[0].value


def import_violations(root: Path) -> list[str]:
    """Return one line for every import that the table forbids."""
    found = []
    for path in source_files(root, *sorted(PACKAGES)):
        package = path.relative_to(root).parent.parts
        folder = max((f for f in MAY_IMPORT if package[: f.count("/") + 1] == tuple(f.split("/"))), key=len)
        for line, module in imported_modules(ast.parse(path.read_text(), str(path)), package):
            top = module.split(".")[0]
            if top == "tests" or (top in PACKAGES and top != package[0] and top not in MAY_IMPORT[folder]):
                found.append(f"{path.relative_to(root)}:{line}: {folder} may not import {module}")
    return found


def habit_violations(root: Path) -> list[str]:
    """Return one line for every pickle, bare except, eval and exec in the packages and the tests."""
    found = []
    for path in source_files(root, *sorted(PACKAGES), "tests"):
        tree = ast.parse(path.read_text(), str(path))
        where = path.relative_to(root)
        found += [f"{where}:{line}: imports {module}" for line, module in imported_modules(tree, where.parent.parts)
                  if module.split(".")[0] in NEVER_MODULES]
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                found.append(f"{where}:{node.lineno}: bare except")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                found.append(f"{where}:{node.lineno}: {node.func.id}()")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and getattr(node.value, "value", True) is not False:
                found.append(f"{where}:{node.value.lineno}: allow_pickle")
    return found


def folder_violations(root: Path) -> list[str]:
    """Return one line for every folder of odds and ends, and for every `__init__.py` among the tests."""
    places = [path for folder in (*sorted(PACKAGES), "tests") for path in (root / folder).rglob("*")]
    places += [path for path in root.iterdir() if not path.name.startswith(".")]
    found = [f"{p.relative_to(root)}: name it after what it holds" for p in places if p.stem in NEVER_FOLDERS and p.suffix in ("", ".py")]
    return found + [f"{p.relative_to(root)}: tests are no package" for p in (root / "tests").rglob("__init__.py")]


def test_imports_follow_the_table():
    assert not import_violations(ROOT)


def test_no_pickle_no_bare_except_no_eval():
    assert not habit_violations(ROOT)


def test_no_folder_of_odds_and_ends_and_tests_are_no_package():
    assert not folder_violations(ROOT)


def test_every_package_of_the_table_exists():
    assert {folder for folder in MAY_IMPORT if not (ROOT / folder / "__init__.py").is_file()} == set()


FORBIDDEN = [(folder, other) for folder, allowed in MAY_IMPORT.items() for other in sorted((PACKAGES | {"tests"}) - allowed)
             if other != folder.split("/")[0]]


def plant(root: Path, where: str, code: str) -> None:
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)


@pytest.mark.parametrize(("folder", "other"), FORBIDDEN)
@pytest.mark.parametrize("code", ["import {0}.planted", "from {0} import planted", "from {0}.planted import x as y",
                                  "def f():\n    import os, {0}", "if TYPE_CHECKING:\n    from {0}.planted import x",
                                  "import importlib\nimportlib.import_module('{0}.planted')"])
def test_a_planted_import_is_found(tmp_path, folder, other, code):
    plant(tmp_path, f"{folder}/deep/planted.py", code.format(other))
    found = import_violations(tmp_path)
    assert len(found) == 1 and f"{folder} may not import {other}" in found[0]


@pytest.mark.parametrize(("folder", "other"), [(folder, other) for folder, allowed in MAY_IMPORT.items() for other in sorted(allowed)])
def test_a_permitted_import_is_not(tmp_path, folder, other):
    own = folder.replace("/", ".")
    plant(tmp_path, f"{folder}/fine.py", f"import numpy\nfrom {other}.module import x\nfrom {own} import y\nfrom . import z")
    assert not import_violations(tmp_path)


def test_relative_imports_are_followed(tmp_path):
    plant(tmp_path, "policies/deep/sly.py", "from ...sim import task\nfrom ..sibling import x\nfrom . import y")
    assert [line.split(": ")[1] for line in import_violations(tmp_path)] == ["policies may not import sim"]


@pytest.mark.parametrize("code", ["import pickle", "from pickle import loads", "import dill as d", "try:\n    x = 1\nexcept:\n    pass",
                                  "x = eval('1')", "exec('x = 1')", "numpy.load('f', allow_pickle=True)"])
def test_a_planted_bad_habit_is_found(tmp_path, code):
    plant(tmp_path, "robots/fine.py", "model.eval()\ntry:\n    x = 1\nexcept ValueError:\n    pass\nnumpy.load('f', allow_pickle=False)")
    assert not habit_violations(tmp_path)
    plant(tmp_path, "robots/planted.py", code)
    assert len(habit_violations(tmp_path)) == 1


@pytest.mark.parametrize("where", ["utils/a.py", "sim/common/a.py", "planners/utils.py", "tests/__init__.py", "tests/sim/__init__.py"])
def test_a_planted_folder_is_found(tmp_path, where):
    plant(tmp_path, "sim/common_rail.py", "")
    assert not folder_violations(tmp_path)
    plant(tmp_path, where, "")
    assert folder_violations(tmp_path)
