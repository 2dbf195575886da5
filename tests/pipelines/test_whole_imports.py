"""A task that is cancelled in an import leaves no process that works with half a module."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import time
from pathlib import Path

import pytest

from pipelines.whole_imports import is_importing

SECONDS = 60  # at most, for what takes one
SLOW, LOOKS = "module_that_takes_long", "module_that_looks"


def wait_until(condition) -> bool:
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.cluster
@pytest.mark.parametrize("where", ["import", "body"])
def test_only_a_process_cancelled_in_an_import_ends(ray_cluster, tmp_path: Path, where: str):
    told = tmp_path / "pid"
    wait = f"import os, time\nopen({str(told)!r}, 'w').write(f'{{os.getpid()}} ')\n"
    wait += "for _ in range(1000): time.sleep(0.1)\n"
    (tmp_path / f"{SLOW}.py").write_text(wait)

    @ray_cluster.remote(max_retries=0)
    def task(where: str, folder: str) -> None:
        import pipelines  # noqa: F401

        sys.path.insert(0, folder)
        try:
            if where == "import":
                importlib.import_module(SLOW)
            else:
                exec((Path(folder) / f"{SLOW}.py").read_text())
        finally:
            sys.path.remove(folder)

    pending = task.remote(where, str(tmp_path))
    assert wait_until(lambda: told.exists() and told.read_text().endswith(" "))
    pid = int(told.read_text())
    ray_cluster.cancel(pending)
    with pytest.raises(ray_cluster.exceptions.RayError):
        ray_cluster.get(pending, timeout=SECONDS)
    if where == "import":
        assert wait_until(lambda: not lives(pid))
    else:
        assert lives(pid)


def test_what_is_part_of_an_import(tmp_path: Path, monkeypatch):
    found = []
    monkeypatch.setattr(sys, "frames_seen", found, raising=False)
    (tmp_path / f"{LOOKS}.py").write_text("import sys\nsys.frames_seen.append(sys._getframe())\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(LOOKS)
    monkeypatch.delitem(sys.modules, LOOKS)
    assert is_importing(found[0]) and not is_importing(None)
    assert not is_importing(inspect.currentframe())
