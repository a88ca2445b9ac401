"""The wheel holds the packages and the scenes, and nothing else; the lock pins what the project asks for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("robots", "episodes", "dynamics", "planners", "policies", "sim", "hw_bridge", "experiments")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the checkout with strangers planted in it."""
    source = tmp_path_factory.mktemp("source") / "reflexarc"
    leave = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=leave)
    for stranger in ("runs/first/config.json", "docs/extra.md", "strangers/__init__.py", "tests/stranger.py", "robots_old/__init__.py",
                     "robots/notes.txt", "loose.py"):
        (source / stranger).parent.mkdir(parents=True, exist_ok=True)
        (source / stranger).write_text("")
    target = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(target)]
    built = subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return zipfile.ZipFile(next(target.glob("*.whl")))


def test_the_wheel_holds_every_module_and_scene_and_nothing_else(wheel):
    modules = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    scenes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "sim" / "scenes").rglob("*")
              if path.is_file() and "__pycache__" not in path.parts}
    scenes |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "robots" / "arms").glob("*.xml")}
    scenes |= {path.relative_to(ROOT).as_posix() for path in (ROOT / "hw_bridge" / "page").iterdir()
               if path.suffix in (".html", ".css", ".js")}
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == modules | scenes


def test_every_folder_of_modules_is_a_package():
    bare = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py") if not (path.parent / "__init__.py").exists()}
    assert not bare, "a folder without __init__.py is left out of the wheel"


def test_the_wheel_names_its_version_licence_and_command(wheel):
    information = f"reflexarc-{PROJECT['project']['version']}.dist-info"
    metadata = wheel.read(f"{information}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.11" in metadata
    assert "reflexarc = experiments.cli:main" in wheel.read(f"{information}/entry_points.txt").decode()
    assert "Apache License" in wheel.read(f"{information}/licenses/LICENSE").decode()


def test_the_lock_pins_every_dependency_within_its_range():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9A-Za-z.]+", line) for line in lines), "an exact, public version a line; no index, no URL"
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    asked = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["test"] + PROJECT["build-system"]["requires"]
    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
