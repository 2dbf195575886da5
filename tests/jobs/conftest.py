"""Jobs are run as users run them: as processes, here against the session's cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[dict], Path]:
    """Writes a configuration with its storage and tracking inside the test's folder."""

    def write(content: dict) -> Path:
        base = {
            "data": {"videos": str(tmp_path / "in")},
            "cluster": {"storage": str(tmp_path / "runs"), "use_gpu": False},
            "tracking": {"uri": f"sqlite:///{tmp_path / 'mlflow.db'}"},
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
