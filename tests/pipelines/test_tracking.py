"""Runs hold what was logged, parent above stages, and a missing tracker never stops training."""

from __future__ import annotations

import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines import tracking
from pipelines.config import ConfigError, JobConfig
from pipelines.tracking import JobRun, Run, StageRun, tracking_uri


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobConfig:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return JobConfig.parse(
        {"name": "job", "data": {"videos": "/v"}, "cluster": {"storage": str(tmp_path / "s")}}
    )


def test_configured_then_environment_then_sqlite(cfg: JobConfig, tmp_path: Path, monkeypatch):
    assert tracking_uri(cfg) == f"sqlite:///{tmp_path}/s/mlflow.db"
    there = cfg.model_copy(
        update={"cluster": cfg.cluster.model_copy(update={"storage": "s3://bucket/runs"})}
    )
    with pytest.raises(ConfigError, match=r"tracking\.uri.*s3://bucket/runs"):
        tracking_uri(there)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://from-environment")
    assert tracking_uri(there) == "http://from-environment"
    set_ = cfg.model_copy(update={"tracking": cfg.tracking.model_copy(update={"uri": "http://x"})})
    assert tracking_uri(set_) == "http://x"


def test_what_is_logged_is_there(cfg: JobConfig, tmp_path: Path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 255
    with JobRun.start(cfg) as job:
        job.log_params({f"p{i}": i for i in range(150)} | {"long": "x" * 9000})
        job.log_params({"database": "postgresql://me:secret@host/optuna"})
        with job.stage("im2im") as stage:
            for step in (0, 10):
                stage.log_step({"loss": 1.0 / (step + 1), "gan": float("nan")}, step)
            # a handle goes to other processes, and works there
            there = pickle.loads(pickle.dumps(stage))
            there.log_step({"loss": 0.01}, 20)
            there.log_picture(picture, "sample")
        with pytest.raises(RuntimeError), job.stage("inpainter") as failed:
            raise RuntimeError("boom")
    client = MlflowClient(tracking_uri(cfg))
    parent, child = client.get_run(job.run_id), client.get_run(stage.run_id)
    assert parent.info.status == child.info.status == "FINISHED"
    assert parent.data.params["data.videos"] == "/v" and parent.data.params["p149"] == "149"
    assert len(parent.data.params["long"]) == 6000
    assert parent.data.params["database"] == "postgresql://me:***@host/optuna"
    assert child.data.tags["mlflow.parentRunId"] == job.run_id
    assert [(m.step, m.value) for m in client.get_metric_history(stage.run_id, "loss")] == [
        (0, 1.0),
        (10, pytest.approx(1 / 11)),
        (20, 0.01),
    ]
    broken = client.get_run(failed.run_id)
    assert broken.info.status == "FAILED" and "boom" in broken.data.tags["error"]
    artifacts = Path(unquote(urlsplit(child.info.artifact_uri).path))
    assert (tmp_path / "s") in artifacts.parents
    shown = cv2.imread(str(artifacts / "pictures" / "sample.png"))
    np.testing.assert_array_equal(shown[..., ::-1], picture)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_second_job_joins_the_experiment_even_if_deleted(cfg: JobConfig, mlflow_uri: str):
    cfg = cfg.model_copy(update={"tracking": cfg.tracking.model_copy(update={"uri": mlflow_uri})})
    first = JobRun.start(cfg)
    MlflowClient(tracking_uri(cfg)).delete_experiment(first.experiment_id)
    second = JobRun.start(cfg)
    assert second.experiment_id == first.experiment_id and second.run_id != first.run_id


def test_a_tracker_that_went_away_is_warned_of_only(tmp_path: Path, mlflow_uri: str, caplog):
    run = Run(mlflow_uri, "0" * 32, "1")
    run.log_step({"loss": 1.0}, 0)
    run.log_params({"a": 1})
    run.log_picture(np.zeros((2, 2), np.uint8), "p")
    run.finish()
    assert caplog.text.count("not logged to MLflow") == 4


class DeafServer(ThreadingHTTPServer):
    """Answers every request as if it were overloaded, or not at all; counts them."""

    daemon_threads = True

    def __init__(self, answers: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Deaf)
        self.answers, self.asked, self.closing = answers, 0, threading.Event()


class _Deaf(BaseHTTPRequestHandler):
    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            return
        self.server.asked += 1
        self.close_connection = True
        if self.server.answers:
            self.send_error(503)
        else:
            self.server.closing.wait(30)

    def log_message(self, *_) -> None:
        pass


@pytest.mark.parametrize("answers", [True, False])
def test_a_report_is_given_up_soon(monkeypatch, tmp_path, caplog, answers: bool):
    """A server that is overloaded, or behind a wall that swallows everything."""
    variables = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")
    for name in variables:
        monkeypatch.delenv(name, raising=False)
    assert int(tracking._PATIENCE[variables[1]]) <= 10
    monkeypatch.setitem(tracking._PATIENCE, variables[1], "1")  # (not to wait for it here)
    server = DeafServer(answers)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        run = StageRun(f"http://127.0.0.1:{server.server_address[1]}", "0" * 32, "1")
        run.log_step({"loss": 1.0}, 0)
        assert server.asked == 2
        assert "not logged to MLflow" in caplog.text
        assert not any(name in os.environ for name in variables), "others may be patient"
        # Who says how long to try is heard.
        monkeypatch.setenv(variables[0], "0")
        run.log_step({"loss": 1.0}, 0)
        assert server.asked == 3 and os.environ[variables[0]] == "0"
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()


def test_a_tracker_that_cannot_be_used_is_named_at_the_start(cfg: JobConfig, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    away = cfg.tracking.model_copy(update={"uri": "http://127.0.0.1:9"})
    with pytest.raises(ConfigError, match=r"tracking\.uri: MLflow at http://127\.0\.0\.1:9"):
        JobRun.start(cfg.model_copy(update={"tracking": away}))
