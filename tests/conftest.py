"""Fixtures for every test: real footage, a local Ray cluster, MLflow, a tiny model."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# One thread per library: the suite shares two cores with Ray's workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("RAY_worker_niceness", "0")  # (15 by default: tests would wait for others)
# An actor per stage that waits for nodes to be taken away, which these cannot be.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
if "XDG_CACHE_HOME" not in os.environ:
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cssta-test-cache-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
os.environ.pop("RAY_ADDRESS", None)

import torch  # (before decord, which otherwise loads an older OpenMP)

from tests.ray_head import Head, ray_head

torch.set_num_threads(1)
# A thread of Ray's asks for a Prometheus server and logs a traceback where there is none. Python
# 3.11 parses source for tracebacks, and not safely beside a main thread that parses, too.
logging.getLogger("ray.data._internal.usage").setLevel(logging.INFO)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def footage() -> Path | None:
    """Folder with real footage (`davis/`, `clips/`), or None where there is none."""
    folder = Path(os.environ.get("CSSTA_SHARED", REPOSITORY.parent / "shared"))
    there = (folder / "davis" / "JPEGImages").is_dir() and (folder / "clips").is_dir()
    return folder if there else None


@pytest.fixture(scope="session")
def shared_dir(footage: Path | None) -> Path:
    """The folder with real footage; tests that need it skip without it."""
    if footage is None:
        pytest.skip("no real footage (davis/ and clips/) at ../shared; set CSSTA_SHARED")
    return footage


@pytest.fixture(scope="session")
def ray_node() -> Iterator[Head]:
    """A Ray node of this session's own, shared by all cluster tests."""
    with ray_head(REPOSITORY) as head:
        yield head


@pytest.fixture(scope="session")
def ray_cluster(ray_node: Head):
    """This process, connected to the session's Ray node."""
    import ray

    ray.init(address=ray_node.address, log_to_driver=False, logging_level="WARNING")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, to be copied: making one takes MLflow over a second."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow_uri(tmp_path: Path, mlflow_database: Path) -> str:
    """A fresh MLflow tracking store (sqlite, absolute path)."""
    return f"sqlite:///{shutil.copy(mlflow_database, tmp_path / 'mlflow.db')}"


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
