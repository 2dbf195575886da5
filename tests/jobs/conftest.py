"""Jobs are run as users run them: as processes, here against the session's cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from cssta.samples import write_samples
from pipelines.config import JobConfig

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def write_config(tmp_path: Path, mlflow_database: Path) -> Callable[[dict], Path]:
    """Writes a configuration with its storage and tracking inside the test's folder."""

    database = shutil.copy(mlflow_database, tmp_path / "mlflow.db")

    def write(content: dict) -> Path:
        base = {
            "data": {"videos": str(tmp_path / "in")},
            "cluster": {"storage": str(tmp_path / "runs"), "use_gpu": False},
            "tracking": {"uri": f"sqlite:///{database}"},
        }
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(base | content))
        return path

    return write


@pytest.fixture
def run_job(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs `python jobs/<name>.py ARGUMENTS` from another folder, without the repository's path."""

    def run(name: str, *arguments: str, address: str | None = None):
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment |= {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        if address:
            environment["RAY_ADDRESS"] = address
        command = [sys.executable, str(REPOSITORY / "jobs" / f"{name}.py"), *map(str, arguments)]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture
def cluster_address(ray_cluster) -> str:
    """The session cluster's address, as RAY_ADDRESS takes it."""
    return ray_cluster.get_runtime_context().gcs_address


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a.mp4 and b.mp4 (5 frames of 48x64 each); read only."""
    import numpy as np

    from cssta.video import write_video

    folder = tmp_path_factory.mktemp("small-videos")
    y, x = np.mgrid[:48, :64]
    frames = np.stack([np.stack([x * 3 + t, y * 4, x + y], -1) for t in range(5)])
    for name in "ab":
        write_video(folder / f"{name}.mp4", frames.astype(np.uint8), 24)
    return folder


TRAINING = ("autoeval_0000", "autoeval_0001", "autoeval_0002", "autoeval_0005", "anyv2v_0619")
COMPLETED = ("anyv2v_0612", "anyv2v_0618")
EVALUATED = ("dog", "libby")
STEPS = {"im2im": 15, "inpainter": 60, "temporal": 10}
LOG_EVERY = 5


@dataclass(frozen=True)
class WholeJob:
    """A job that was submitted and has ended: its configuration, what it printed, its runs."""

    cfg: JobConfig
    output: str
    client: MlflowClient
    run_id: str

    def stage_run(self, name: str):
        """The MLflow run of a stage."""
        experiment = self.client.get_experiment_by_name("cssta").experiment_id
        tags = f"tags.`mlflow.parentRunId` = '{self.run_id}' and tags.stage = '{name}'"
        (run,) = self.client.search_runs([experiment], tags)
        return run


@pytest.fixture(scope="session")
def whole_job(ray_node, footage: Path | None, tmp_path_factory: pytest.TempPathFactory) -> WholeJob:
    """All of the job, once, for all tests that look at it: submitted as the README says.

    Real footage where it is there, else sample clips; a file that is no video among those to train
    on and among those to complete, a truncated one in training.
    """
    folder = tmp_path_factory.mktemp("whole-job")
    cfg = _whole_job_config(folder)
    _whole_job_videos(folder, footage)
    if footage is None:
        cfg["evaluate"]["videos"] = None
    config = folder / "job.yaml"
    config.write_text(yaml.safe_dump(cfg))
    away = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if key not in away}
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ray")), "job", "submit",
            "--address", ray_node.url, "--working-dir", ".",
            "--", "python", "jobs/train_all.py", "--config", str(config),
        ],
        cwd=REPOSITORY, env=environment, timeout=400, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    uri = f"sqlite:///{folder}/runs/mlflow.db"
    run_id = re.search(rf"^MLflow run (\w+) at {uri}$", done.stdout, re.MULTILINE)[1]
    return WholeJob(JobConfig.load(config), done.stdout, MlflowClient(uri, uri), run_id)


def _whole_job_config(folder: Path) -> dict:
    shared = {"batch_size": 2, "learning_rate": 1e-3, "log_every": LOG_EVERY}
    shared["validate_every"] = 1000
    return {
        "name": "whole",
        "data": {
            "videos": str(folder / "train"),
            "height": 64,
            "width": 64,
            "references": 2,
            "clips_per_epoch": 16,
            # Holes of about one size: the loss is mostly what happens in them.
            "masks": {"ratio": [0.2, 0.25]},
        },
        "model": {"size": "tiny"},
        "stages": {name: {"steps": steps, **shared} for name, steps in STEPS.items()},
        "cluster": {"storage": str(folder / "runs"), "use_gpu": False},
        "evaluate": {"videos": str(folder / "evaluate"), "clips": 2, "max_frames": 5},
        "inference": {
            "videos": str(folder / "complete"),
            "output": str(folder / "completed"),
            "limits": {"seam": None, "warping": None},  # (what so short a training makes is poor)
        },
    }


def _whole_job_videos(folder: Path, footage: Path | None) -> None:
    """train/ with five videos and two bad files, complete/ with two and one, evaluate/."""
    buckets = {"train": TRAINING, "complete": COMPLETED}
    if footage is None:
        write_samples(folder / "clips", count=7, seconds=0.5, size=(64, 96))
        clips = sorted((folder / "clips").glob("*.mp4"))
    else:
        clips = [footage / "clips" / f"{name}.mp4" for name in TRAINING + COMPLETED]
        (folder / "evaluate").mkdir()
        for name in EVALUATED:
            (folder / "evaluate" / name).symlink_to(footage / "davis/JPEGImages/480p" / name)
    for kind, names in buckets.items():
        (folder / kind).mkdir()
        for name in names:
            (folder / kind / f"{name}.mp4").symlink_to(clips.pop(0))
        (folder / kind / "notes.mp4").write_text("this is no video")
    whole = (
        footage / "clips" / "autoeval_0006.mp4"
        if footage
        else folder / "train" / f"{TRAINING[0]}.mp4"
    )
    (folder / "train" / "truncated.mp4").write_bytes(whole.read_bytes()[:4000])
