"""A Ray head node of the tests' own, with the dashboard that jobs are submitted to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.demo import free_ports

CPUS = 4
OBJECT_STORE_BYTES = 2 * 1024**3
PORTS = ("port", "ray-client-server-port", "dashboard-agent-listen-port", "dashboard-port")


@dataclass(frozen=True)
class Head:
    """Where the node is reached: by drivers, by `ray job submit`; and where it keeps its files."""

    address: str
    url: str
    folder: Path


@contextmanager
def ray_head(search_path: Path) -> Iterator[Head]:
    """While open, a node on free ports, in a process group of its own, gone afterwards.

    Its processes find the packages at `search_path` by their inherited environment: workers of a
    driver's own runtime environment would not be taken from those that Ray has started ahead.
    """
    # (Not below pytest's folder: socket paths must be short.)
    folder = Path(tempfile.mkdtemp(prefix="cssta-ray-"))
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        "--include-dashboard=true", *(f"--{name}={port}" for name, port in ports.items()),
        "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}",
        f"--num-cpus={CPUS}", f"--object-store-memory={OBJECT_STORE_BYTES}",
        "--disable-usage-stats",
    ]  # fmt: skip
    away = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    environment = {key: value for key, value in os.environ.items() if key not in away}
    # (A submitted job's `python` is to be this one.)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Ray Train asks the dashboard whether its controller lives. What it takes for this node's
    # dashboard otherwise may be that of a cluster long dead: 12 s at the end of every stage.
    environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{ports['dashboard-port']}"
    log = folder / "head.log"
    with open(log, "wb") as output:
        head = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True,
            env=environment | {"PYTHONPATH": str(search_path)},
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{ports['dashboard-port']}"
            _wait_for(f"{url}/api/version", head, log)
            yield Head(f"127.0.0.1:{ports['port']}", url, folder)
        finally:
            _end(head)
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str, head: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and head.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no cluster at {url}: {log.read_text()[-2000:]}")


def _end(head: subprocess.Popen) -> None:
    """End the head's process group and nothing else. (There is nothing here that it could lose.)"""
    for number, seconds in ((signal.SIGTERM, 1), (signal.SIGKILL, 5)):
        deadline = time.monotonic() + seconds
        try:
            os.killpg(head.pid, number)
            while time.monotonic() < deadline:
                head.poll()
                os.killpg(head.pid, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            return
