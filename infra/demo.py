"""The demonstration: a Ray cluster and an MLflow server of its own, one submitted job, its results.

    python infra/demo.py [--data FOLDER] [--output runs/demo]

Ports are free ones, folders its own; whatever was started is stopped at the end, on errors and on
Ctrl-C too, and nothing else is. A second run reuses videos, finished stages and outputs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
START_TIMEOUT_S = 180
OBJECT_STORE_BYTES = 500 * 2**20
# How a service is ended: politely, then for certain; with seconds to wait after each. (Ray drains
# for half a minute if let; there is nothing left here that it could lose.)
ENDINGS = ((signal.SIGTERM, 5), (signal.SIGKILL, 10))


class DemoError(RuntimeError):
    """A service did not start or the job failed; the message says where to look."""


def main() -> int:
    options = parse()
    output = options.output.absolute()
    logs = output / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        say("1/4 videos")
        videos = options.data.absolute() if options.data else sample_videos(output / "videos")
        completed = completed_folder(output, options.data)
        with ExitStack() as stack:
            say("2/4 a local Ray cluster and an MLflow server (about half a minute)")
            ports = free_ports(5)
            command = mlflow_command(output, ports[0])
            mlflow = stack.enter_context(service("mlflow", command, logs))
            ray = stack.enter_context(ray_head(ports[1:], logs))
            mlflow_url, ray_url = (f"http://127.0.0.1:{port}" for port in ports[:2])
            wait_for(f"{mlflow_url}/health", mlflow, logs / "mlflow.log")
            wait_for(f"{ray_url}/api/version", ray, logs / "ray.log")
            say(f"    Ray dashboard {ray_url}, MLflow {mlflow_url}")
            say("3/4 the job: train three stages, evaluate, register, complete the videos")
            submit(ray_url, mlflow_url, videos, output, completed)
        say("4/4 done")
        show_results(output, completed)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything that was started is stopped", file=sys.stderr)
        return 130
    return 0


def interrupt(number: int, _frame: object) -> None:
    """End as on Ctrl-C, so that a closed terminal leaves no services behind either."""
    raise KeyboardInterrupt


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of your own videos")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "runs" / "demo")
    options = parser.parse_args()
    if options.data and not options.data.is_dir():
        parser.error(f"--data {options.data}: no such folder")
    return options


def say(text: str) -> None:
    print(text, flush=True)


def sample_videos(folder: Path) -> Path:
    from cssta.samples import write_samples

    clips = write_samples(folder, count=4, seconds=1.5, size=(180, 320))
    say(f"    {len(clips)} sample clips in {folder}")
    return folder


def completed_folder(output: Path, data: Path | None) -> Path:
    """One folder per bucket, so that results of other videos are never shown for these."""
    if data is None:
        return output / "completed"
    digest = hashlib.sha256(str(data.absolute()).encode()).hexdigest()[:6]
    return output / f"completed-{data.absolute().name}-{digest}"


def mlflow_command(output: Path, port: int) -> list[str]:
    # Artifacts are plain files beside the database, so that jobs find them without a server too.
    return [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{output}/mlflow.db",
        "--no-serve-artifacts", "--default-artifact-root", (output / "mlartifacts").as_uri(),
    ]  # fmt: skip


@contextmanager
def ray_head(ports: Sequence[int], logs: Path):
    """A head node with its session folder under the system's, where socket paths stay short."""
    session = tempfile.mkdtemp(prefix="cssta-ray-")
    names = ("dashboard-port", "port", "ray-client-server-port", "dashboard-agent-listen-port")
    given = [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", *given,
        "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={session}",
        f"--num-cpus={max(2, os.cpu_count() or 2)}",
        f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats",
    ]  # fmt: skip
    try:
        with service("ray", command, logs) as process:
            yield process
    finally:
        shutil.rmtree(session, ignore_errors=True)


@contextmanager
def service(name: str, command: list[str], logs: Path):
    """A process group of its own that ends with the context."""
    with open(logs / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            cwd=REPOSITORY, env=environment(), start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            stop(process)


def stop(process: subprocess.Popen) -> None:
    """End the whole group: politely, then for certain, whatever keys are pressed meanwhile."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        end_group(process)
    finally:
        signal.signal(signal.SIGINT, before)


def end_group(process: subprocess.Popen) -> None:
    for number, patience in ENDINGS:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and group_alive(process):
            time.sleep(0.1)


def group_alive(process: subprocess.Popen) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def environment() -> dict[str, str]:
    """Ours, less what would lead to another cluster, with this Python first on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return kept | {
        "PATH": path,
        "RAY_AUTH_MODE": "disabled",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        # Masks that move give every frame other buffer sizes; freed ones go back to the system.
        "MALLOC_MMAP_THRESHOLD_": str(2**20),
        # Each worker of a tiny cluster would otherwise ask for all cores.
        "OMP_NUM_THREADS": "1",
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, and that no process is given that asks for any port.

    Systems give those from 32768 on, and Ray's workers take 10002 to 19999: a port from there may
    be gone before its server starts.
    """
    found: list[int] = []
    candidates = random.sample(range(20000, 32768), 1000)
    while len(found) < count:
        port = candidates.pop()
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
    return found


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoError(f"{log.stem} ended at once; see {log}")
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise DemoError(f"{log.stem} did not answer at {url} within {START_TIMEOUT_S} s; see {log}")


def submit(ray_url: str, mlflow_url: str, videos: Path, output: Path, completed: Path) -> None:
    """`ray job submit`, as anyone would type it; its output is the demonstration's progress."""
    settings = {
        "data.videos": str(videos),
        "inference.videos": str(videos),
        "inference.output": str(completed),
        "cluster.storage": str(output),
    }
    runtime = {
        "env_vars": {"MLFLOW_TRACKING_URI": mlflow_url},
        "excludes": excludes(videos, output),
    }
    overrides = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    command = [
        str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", ray_url,
        "--working-dir", ".",
        "--runtime-env-json", json.dumps(runtime),
        "--", "python", "jobs/train_all.py", "--config", "jobs/configs/demo.yaml", *overrides,
    ]  # fmt: skip
    code = subprocess.call(command, cwd=REPOSITORY, env=environment())
    if code:
        raise DemoError(f"the job failed (exit code {code}); its output is above")


def excludes(*folders: Path) -> list[str]:
    """What lies inside the repository but is data: a working directory is shipped, whole."""
    inside = [folder for folder in folders if folder.is_relative_to(REPOSITORY)]
    return [f"/{folder.relative_to(REPOSITORY).as_posix()}" for folder in inside]


def show_results(output: Path, completed: Path) -> None:
    summary = json.loads((completed / "batch-summary.json").read_text())
    sheets = [video["sheet"] for video in summary["videos"] if video["sheet"]]
    ui = "make ui"
    if output != REPOSITORY / "runs" / "demo":
        ui += f" OUTPUT={shlex.quote(str(output))}"
    say(f"\ncompleted videos  {completed}")
    say(f"contact sheet     {sheets[0] if sheets else 'none: no video could be completed'}")
    say(f"MLflow UI         {ui}   (runs, losses, pictures, the registered model)")


if __name__ == "__main__":
    sys.exit(main())
