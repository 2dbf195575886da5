"""The layers stay apart: the method knows nothing of the cluster, and files stay short."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FORBIDDEN_IN_CSSTA = {"ray", "mlflow", "optuna", "pydantic", "pipelines"}


def modules(folder: str) -> list[Path]:
    return sorted((REPOSITORY / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def imported_packages(source: str) -> set[str]:
    """Top-level package of every import statement, also those inside functions, and of
    `importlib.import_module("...")` and `__import__("...")` with a literal name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                names.add(str(first.value))
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    "source",
    [
        "import ray.data",
        "def f():\n    from mlflow import log_metric",
        "import importlib\nx = importlib.import_module('optuna.study')",
        "if False:\n    import numpy, pydantic as p",
    ],
)
def test_the_check_sees_every_kind_of_import(source: str):
    assert imported_packages(source) & FORBIDDEN_IN_CSSTA


def declared_distributions() -> set[str]:
    """What pyproject.toml names, in any extra."""
    lines = (REPOSITORY / "pyproject.toml").read_text().splitlines()
    return {
        canonical(name)
        for line in lines
        for name in re.findall(r'"([A-Za-z][\w.-]*)(?:\[[^\]]*\])?[<>=!~]=?[^"]*"', line)
    }


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("folder", ["cssta", "pipelines", "jobs", "infra", "tests"])
def test_what_is_imported_is_declared(folder: str):
    """A package that another one happens to bring is missing on the next machine."""
    of_package = metadata.packages_distributions()
    ours = {"cssta", "pipelines", "jobs", "infra", "tests"}
    ours |= {path.stem for path in modules("jobs")}  # (jobs/ is on its own scripts' path)
    declared = declared_distributions()
    assert {"torch", "ray", "pytest", "moto"} <= declared
    for path in modules(folder):
        names = imported_packages(path.read_text()) - ours - set(sys.stdlib_module_names)
        missing = {
            name
            for name in names - {"botocore"}  # (boto3's own other half)
            if not {canonical(found) for found in of_package.get(name, [name])} & declared
        }
        assert not missing, f"{relative(path)} imports {sorted(missing)}: add to pyproject.toml"


@pytest.mark.parametrize("path", modules("cssta"), ids=relative)
def test_cssta_never_names_the_cluster(path: Path):
    found = imported_packages(path.read_text()) & FORBIDDEN_IN_CSSTA
    assert not found, f"{relative(path)} imports {sorted(found)}: that belongs in pipelines/"


def test_importing_all_of_cssta_loads_nothing_of_the_cluster():
    script = (
        "import importlib, json, pkgutil, sys, cssta\n"
        "names = [m.name for m in pkgutil.walk_packages(cssta.__path__, 'cssta.')\n"
        "         if not m.name.endswith('__main__')]\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "print(json.dumps([names, sorted({n.split('.')[0] for n in sys.modules})]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    names, loaded = json.loads(done.stdout.splitlines()[-1])
    assert len(names) >= 10
    assert not FORBIDDEN_IN_CSSTA & set(loaded)


@pytest.mark.parametrize(
    "module", ["cssta.video", "cssta.inpaint_command", "pipelines.manifest", "pipelines.data"]
)
def test_who_only_reads_videos_does_not_load_pytorch(module: str):
    """Each data worker would pay a second and 200 MB for it, and `cssta --help` a second."""
    program = f"import sys, {module}; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY).returncode == 0
    import cssta
    from cssta.engine import Inpainter

    assert cssta.Inpainter is Inpainter


@pytest.mark.parametrize("path", modules("jobs"), ids=relative)
def test_jobs_are_thin(path: Path):
    assert len(path.read_text().splitlines()) < 100, f"{relative(path)}: move it into pipelines/"


@pytest.mark.parametrize("path", modules("cssta") + modules("pipelines"), ids=relative)
def test_modules_are_short(path: Path):
    assert len(path.read_text().splitlines()) < 300, f"{relative(path)} has more than one subject"
