"""Fixtures for every test: real footage, a local Ray cluster, MLflow, a tiny model."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# One thread per library: the suite shares two cores with Ray's workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("RAY_worker_niceness", "0")  # (15 by default: tests would wait for others)
os.environ.setdefault("XDG_CACHE_HOME", tempfile.mkdtemp(prefix="cssta-test-cache-"))
os.environ.pop("RAY_ADDRESS", None)

import torch  # (before decord, which otherwise loads an older OpenMP)

torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with real footage (`davis/`, `clips/`); tests that need it skip without it."""
    folder = Path(os.environ.get("CSSTA_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "davis" / "JPEGImages").is_dir() or not (folder / "clips").is_dir():
        pytest.skip(f"real footage (davis/ and clips/) is not at {folder}; set CSSTA_SHARED")
    return folder


@pytest.fixture(scope="session")
def ray_cluster():
    """A local Ray cluster of this session's own, shared by all cluster tests."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=2 * 1024**3,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.fixture
def mlflow_uri(tmp_path: Path) -> str:
    """A fresh MLflow tracking store (sqlite, absolute path)."""
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a tiny, randomly initialised model: right in form, useless in looks."""
    from cssta.checkpoint import save_model
    from cssta.config import ModelConfig
    from cssta.inpainting import InpaintingNetwork

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny-model")
    config = ModelConfig.preset("tiny")
    save_model(folder, config, InpaintingNetwork(config))
    return folder
