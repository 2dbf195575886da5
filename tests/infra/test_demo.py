"""The demonstration's launcher: services end whatever happens, nothing of others is touched."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo", REPOSITORY / "infra" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def first_line(log: Path) -> str:
    for _ in range(200):
        if (text := log.read_text()).endswith("\n"):
            return text.splitlines()[0]
        time.sleep(0.05)
    raise AssertionError(f"{log} stayed empty")


@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt])
def test_a_service_and_its_children_end_with_the_context(demo, tmp_path, monkeypatch, ending):
    polite, certain = demo.ENDINGS
    monkeypatch.setattr(demo, "ENDINGS", ((polite[0], 0.5), certain))
    command = [sys.executable, "-c", STUBBORN]
    expected = pytest.raises(ending) if ending else nullcontext()
    with expected, demo.service("stubborn", command, tmp_path) as process:
        child = int(first_line(tmp_path / "stubborn.log"))
        assert running(process.pid) and running(child)
        if ending:
            raise ending
    assert not running(process.pid) and not running(child)


def test_a_terminated_launcher_stops_what_it_started(tmp_path):
    script = (
        "import importlib.util, signal, sys, time\n"
        f"spec = importlib.util.spec_from_file_location('demo', {str(REPOSITORY)!r} + "
        "'/infra/demo.py')\n"
        "demo = importlib.util.module_from_spec(spec); spec.loader.exec_module(demo)\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGTERM, demo.interrupt)\n"
        f"with demo.service('child', [sys.executable, '-c', 'import os, time; "
        f"print(os.getpid(), flush=True); time.sleep(600)'], Path({str(tmp_path)!r})):\n"
        "    time.sleep(600)\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    for _ in range(200):
        if (tmp_path / "child.log").exists() and (tmp_path / "child.log").read_text():
            break
        time.sleep(0.05)
    child = int(first_line(tmp_path / "child.log"))
    launcher.send_signal(signal.SIGTERM)
    launcher.wait(timeout=30)
    assert not running(child)


def test_ports_differ(demo):
    ports = demo.free_ports(20)
    assert len(set(ports)) == 20 and all(1024 < port < 65536 for port in ports)


def test_other_clusters_and_servers_are_out_of_reach(demo, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://production:8265")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://production:5000")
    environment = demo.environment()
    assert "RAY_ADDRESS" not in environment and "MLFLOW_TRACKING_URI" not in environment
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_data_within_the_repository_is_not_shipped_with_the_code(demo, tmp_path):
    inside = REPOSITORY / "my videos"
    assert demo.excludes(inside, tmp_path) == ["/my videos"]


def test_each_bucket_has_its_own_results(demo, tmp_path):
    folders = {demo.completed_folder(tmp_path, data) for data in (None, Path("/a/v"), Path("/b/v"))}
    assert len(folders) == 3


def test_the_sheet_shown_is_one_of_this_run(demo, tmp_path, capsys):
    completed = tmp_path / "completed"
    (completed / "contact-sheets").mkdir(parents=True)
    (completed / "contact-sheets" / "a-stale.png").touch()
    videos = [{"sheet": ""}, {"sheet": "/out/contact-sheets/b.png"}]
    (completed / "batch-summary.json").write_text(json.dumps({"videos": videos}))
    demo.show_results(tmp_path, completed)
    shown = capsys.readouterr().out
    assert "/out/contact-sheets/b.png" in shown and "stale" not in shown
    assert f"make ui OUTPUT={tmp_path}" in shown


def test_a_service_that_dies_at_once_is_told_with_its_log(demo, tmp_path):
    with demo.service("brief", [sys.executable, "-c", "pass"], tmp_path) as process:
        process.wait()
        with pytest.raises(demo.DemoError, match=r"brief ended at once; see .*brief\.log"):
            demo.wait_for("http://127.0.0.1:9/", process, tmp_path / "brief.log")


def test_a_missing_data_folder_is_named():
    command = [sys.executable, "infra/demo.py", "--data", "/no/such/folder"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 2 and "--data /no/such/folder: no such folder" in result.stderr
