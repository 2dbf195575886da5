"""What happened in a job, in MLflow: one parent run per job, a child run per stage.

A run's handle holds an address and an id only, so it can be handed to other processes, such as the
controller of a Ray Train stage. MLflow itself is imported where it is used: it costs seconds of CPU
that data workers should not pay.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from pipelines.config import ConfigError, JobConfig
from pipelines.shown_uri import shown

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

# Models are safetensors with code; nothing that MLflow hands over may be unpickled.
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

_PARAMS_PER_CALL, _PARAM_LENGTH = 100, 6000  # MLflow's limits

# What is told again and again, while training waits. (By default MLflow's client tries for
# minutes, which is right for what is told once.) Who sets a variable decides.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


def tracking_uri(cfg: JobConfig) -> str:
    """The configured server, else MLFLOW_TRACKING_URI, else sqlite in the storage folder.

    Raises ConfigError if there is none of them because storage is not a local folder.
    """
    uri = cfg.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        return uri
    storage = cfg.cluster.storage.removeprefix("file://")
    if "://" in storage:
        raise ConfigError(
            f"tracking.uri: is not set, and sqlite cannot be kept at {storage}; "
            "set tracking.uri or MLFLOW_TRACKING_URI to an MLflow server"
        )
    return f"sqlite:///{storage}/mlflow.db"


class Run:
    """A run that something can be logged to, from any process.

    A tracker that is away must not end hours of training: what cannot be logged is warned of and
    left out. Only starting a run raises.
    """

    def __init__(self, tracking_uri: str, run_id: str, experiment_id: str) -> None:
        self.tracking_uri = tracking_uri
        self.run_id = run_id
        self.experiment_id = experiment_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Parameters of any type, as text, without passwords of addresses."""
        from mlflow.entities import Param

        entities = [Param(key, shown(str(value))[:_PARAM_LENGTH]) for key, value in params.items()]
        for start in range(0, len(entities), _PARAMS_PER_CALL):
            chunk = entities[start : start + _PARAMS_PER_CALL]
            self._try(lambda client, chunk=chunk: client.log_batch(self.run_id, params=chunk))

    def log_step(self, metrics: Mapping[str, float], step: int) -> None:
        """Metrics at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entities = [Metric(key, float(value), now, step) for key, value in metrics.items()]
        self._try(lambda client: client.log_batch(self.run_id, metrics=entities))

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Metrics of the whole run."""
        self.log_step(metrics, 0)

    def log_picture(self, picture: np.ndarray, name: str) -> None:
        """uint8 (H, W, 3) RGB or (H, W), as the artifact pictures/<name>.png."""
        shown = picture[..., ::-1] if picture.ndim == 3 else picture
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.png"
            cv2.imwrite(str(path), np.ascontiguousarray(shown))
            self.log_file(path, "pictures")

    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        """A local file as an artifact."""
        self._try(lambda client: client.log_artifact(self.run_id, str(path), folder))

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Tags of any type, as text."""
        for key, value in tags.items():
            self._try(lambda c, key=key, value=value: c.set_tag(self.run_id, key, str(value)))

    def finish(self, status: str = "FINISHED") -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._try(lambda client: client.set_terminated(self.run_id, status))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if kind is None:
            self.finish()
        else:
            self.set_tags({"error": f"{kind.__name__}: {error}"[:500]})
            self.finish("FAILED" if issubclass(kind, Exception) else "KILLED")

    def _try(self, log) -> None:
        try:
            log(_client(self.tracking_uri))
        except Exception as error:
            logger.warning("not logged to MLflow at %s: %s", self.tracking_uri, error)


class StageRun(Run):
    """One stage of a job: a child run. What it is told while training waits, it tries briefly."""

    def log_step(self, metrics: Mapping[str, float], step: int) -> None:
        with _briefly():
            super().log_step(metrics, step)

    def log_file(self, path: str | Path, folder: str | None = None) -> None:
        with _briefly():
            super().log_file(path, folder)


class JobRun(Run):
    """A job: the parent run."""

    @classmethod
    def start(cls, cfg: JobConfig, *, job: str = "train") -> JobRun:
        """Create the run with the whole configuration as parameters.

        Raises ConfigError, naming the address, if MLflow cannot be reached.
        """
        uri = tracking_uri(cfg)
        try:
            experiment = ensure_experiment(uri, cfg.tracking.experiment)
            tags = {"job": job, "mlflow.source.name": f"{job} {cfg.name}"}
            run = _client(uri).create_run(experiment, tags=tags, run_name=cfg.name)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"tracking.uri: MLflow at {shown(uri)} cannot be used ({reason}); "
                "start the server or set another tracking.uri"
            ) from error
        started = cls(uri, run.info.run_id, experiment)
        started.log_params(cfg.flat())
        return started

    def stage(self, name: str) -> StageRun:
        """A child run, shown beneath this one. Raises MlflowException if it cannot be created."""
        run = _client(self.tracking_uri).create_run(
            self.experiment_id,
            tags={"mlflow.parentRunId": self.run_id, "stage": name},
            run_name=name,
        )
        return StageRun(self.tracking_uri, run.info.run_id, self.experiment_id)


def ensure_experiment(uri: str, name: str) -> str:
    """The experiment's id; it is created, or restored if it had been deleted."""
    from mlflow.exceptions import MlflowException

    location = None
    if uri.startswith("sqlite:///"):
        # By default artifacts of a bare sqlite store go to the working directory, which on a
        # cluster is a temporary copy.
        database = Path(uri.removeprefix("sqlite:///"))
        database.parent.mkdir(parents=True, exist_ok=True)
        location = (database.parent / "mlartifacts").absolute().as_uri()
    client = _client(uri)
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, location)
        except MlflowException:  # another job was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


@contextmanager
def _briefly() -> Iterator[None]:
    """MLflow's client, which takes these from the environment alone, gives up within seconds."""
    ours = {key: value for key, value in _PATIENCE.items() if key not in os.environ}
    os.environ |= ours
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


def _client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)
