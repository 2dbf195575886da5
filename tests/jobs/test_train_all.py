"""`jobs/train_all.py`, submitted to a running cluster as the README says, and its command line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import yaml
from mlflow import MlflowClient

from cssta.samples import write_samples
from cssta.video import probe
from infra.demo import free_ports

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
STUDY_WEIGHTS = {"lambda_r": 2.5, "lambda_f": 0.125, "lambda_g": 0.0625, "delta": 50.0}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Ours, with this Python first on the path and nothing that leads to another cluster."""
    names = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "PYTHONPATH")
    kept = {key: value for key, value in os.environ.items() if key not in names}
    return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def session_folder() -> Iterator[Path]:
    """Where the cluster keeps its files: not below pytest's folder, socket paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="cssta-ray-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster_url(environment, session_folder, tmp_path_factory) -> Iterator[str]:
    """Address of a cluster of our own, in a process group of its own, gone afterwards."""
    log = tmp_path_factory.mktemp("head") / "ray.log"
    names = ("port", "ray-client-server-port", "dashboard-agent-listen-port", "dashboard-port")
    ports = free_ports(len(names))
    command = [
        str(BIN / "ray"), "start", "--head", "--block", "--include-dashboard=true",
        *(f"--{name}={port}" for name, port in zip(names, ports, strict=True)),
        "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={session_folder}",
        "--num-cpus=4", "--object-store-memory=500000000", "--disable-usage-stats",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{ports[-1]}"
    with open(log, "wb") as output:
        head = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=session_folder,
            env=environment, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(url, head, log)
            yield url
        finally:
            end(head)


def wait_for(url: str, head: subprocess.Popen, log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and head.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/api/version", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no cluster at {url}: {log.read_text()[-2000:]}")


def end(head: subprocess.Popen) -> None:
    """End the head's process group and nothing else."""
    for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        deadline = time.monotonic() + seconds
        try:
            os.killpg(head.pid, number)
            while time.monotonic() < deadline:
                head.poll()
                os.killpg(head.pid, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            return


@pytest.fixture(scope="module")
def job_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a bucket of four sample clips, one file that is none, and job.yaml."""
    folder = tmp_path_factory.mktemp("job")
    write_samples(folder / "videos", count=4, seconds=0.5, size=(64, 96))
    (folder / "videos" / "notes.mp4").write_text("this is no video")
    stage = {"steps": 2, "log_every": 1, "checkpoint_every": 2, "validate_every": 2}
    config = {
        "name": "submitted",
        "data": {
            "videos": str(folder / "videos"),
            "height": 48,
            "width": 64,
            "references": 1,
            "clips_per_epoch": 8,
        },
        "model": {"size": "tiny"},
        "stages": {name: stage for name in ("im2im", "inpainter", "temporal")},
        "cluster": {"storage": str(folder / "runs"), "workers": 2, "use_gpu": False},
        "evaluate": {"clips": 1, "max_frames": 4},
        "inference": {"videos": str(folder / "videos"), "output": str(folder / "completed")},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    return folder


def submit(url: str, environment: dict, folder: Path, *more: str) -> subprocess.CompletedProcess:
    command = [
        str(BIN / "ray"), "job", "submit", "--address", url, "--working-dir", ".",
        "--", "python", "jobs/train_all.py", "--config", str(folder / "job.yaml"), *more,
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=REPOSITORY, env=environment, timeout=400, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def submitted(cluster_url, environment, job_folder: Path) -> str:
    """Output of the first submission, by two workers per stage."""
    done = submit(cluster_url, environment, job_folder)
    assert done.returncode == 0, done.stdout
    return done.stdout


def versions(folder: Path) -> list[str]:
    uri = f"sqlite:///{folder}/runs/mlflow.db"
    found = MlflowClient(uri, uri).search_model_versions("name='cssta'")
    return sorted(str(one.version) for one in found)


def test_a_submitted_job_trains_registers_and_completes(submitted: str, job_folder: Path):
    for name in ("im2im", "inpainter", "temporal"):
        assert re.search(rf"^  {name} 2/2  loss [-\d.]+", submitted, re.MULTILINE)
        assert re.search(rf"^stage {name}: \d+ s, loss", submitted, re.MULTILINE)
    assert "rejected (unreadable)" in submitted and "notes.mp4" in submitted
    assert "registered: models:/cssta/1, also as models:/cssta@champion" in submitted
    assert "5 videos: 4 done" in submitted and "1 failed" in submitted
    assert versions(job_folder) == ["1"]
    for source in (job_folder / "videos").glob("sample-*.mp4"):
        assert probe(job_folder / "completed" / source.name).frames == probe(source).frames


def test_what_is_uploaded_is_small(submitted, session_folder: Path):
    (shipped,) = session_folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    files = [path for path in shipped.rglob("*") if path.is_file()]
    assert shipped / "jobs/train_all.py" in files and shipped / "cssta/engine.py" in files
    assert not {".git", ".venv", "runs", "mlruns"} & {path.name for path in shipped.iterdir()}
    assert sum(path.stat().st_size for path in files) < 50e6  # (of 100 MiB that Ray takes)


def test_submitted_again_it_reuses_everything(
    submitted, cluster_url, environment, job_folder: Path
):
    done = submit(cluster_url, environment, job_folder)
    assert done.returncode == 0, done.stdout
    for name in ("im2im", "inpainter", "temporal"):
        assert f"stage {name}: reused" in done.stdout
    assert "already evaluated and registered: models:/cssta/1" in done.stdout
    assert "4 skipped" in done.stdout
    assert versions(job_folder) == ["1"]


def test_an_unknown_key_is_one_line_and_exit_code_1(run_job, write_config):
    config = write_config({"stages": {"im2im": {"step": 5}}})
    done = run_job("train_all", "--config", config)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for part in (str(config), "stages.im2im", "step", "learning_rate"):
        assert part in line


@pytest.fixture
def study(tmp_path: Path) -> str:
    """Name of a study in the job's storage whose second trial is the best."""
    (tmp_path / "runs").mkdir()
    made = optuna.create_study(
        study_name="weights", storage=f"sqlite:///{tmp_path}/runs/optuna.db", direction="maximize"
    )
    for score, params in ((10, {key: 1.0 for key in STUDY_WEIGHTS}), (20, STUDY_WEIGHTS)):
        made.enqueue_trial(params)
        trial = made.ask({k: optuna.distributions.FloatDistribution(0, 100) for k in params})
        made.tell(trial, score)
    return made.study_name


def test_best_of_takes_a_studys_weights(
    run_job, write_config, cluster_address, study, tmp_path: Path
):
    (tmp_path / "in").mkdir()  # without videos: what counts here comes before them
    config = write_config({})
    done = run_job("train_all", "--config", config, "--best-of", study, address=cluster_address)
    assert done.returncode == 1 and "holds no videos" in done.stderr
    assert "loss weights of study weights" in done.stdout and "lambda_r 2.5" in done.stdout
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("cssta").experiment_id])
    used = {key: float(run.data.params[f"losses.{key}"]) for key in STUDY_WEIGHTS}
    assert used == STUDY_WEIGHTS
    assert run.info.status == "FAILED"


def test_best_of_an_unknown_study_names_the_known(run_job, write_config, study):
    done = run_job("train_all", "--config", write_config({}), "--best-of", "others")
    assert done.returncode == 1
    assert "no study 'others'" in done.stderr and "weights" in done.stderr
    assert "Traceback" not in done.stderr
