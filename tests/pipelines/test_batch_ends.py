"""A batch starts alone on its output, and what goes wrong after its last video is only told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cssta.video import write_video
from pipelines import batch, batch_publish
from pipelines.batch_lease import Lease, LeaseError
from pipelines.batch_plan import Plan, plan_batch
from pipelines.storage import StorageError, publish
from tests.pipelines.one_process import MODEL, complete_one, config, picture_clip, settings_of


def test_a_sheet_that_cannot_be_stored_is_left_out(tmp_path: Path, monkeypatch, caplog):
    write_video(tmp_path / "in/a.mp4", picture_clip(4), 24)
    cfg = config(tmp_path)
    plan = plan_batch(cfg, MODEL)
    settings = settings_of(cfg)
    outcome = complete_one(plan.tasks[0], settings)

    def refuse(local: Path, uri: str, *more) -> None:
        if "contact-sheets" in uri:
            raise StorageError(f"{uri}: no space left")
        publish(local, uri, *more)

    monkeypatch.setattr(batch_publish, "publish", refuse)
    summary = batch_publish.publish_results(
        cfg, MODEL, plan, [outcome], settings, time.monotonic(), lambda *_: [b"picture"], False
    )
    assert [(o.status, o.sheet) for o in summary.outcomes] == [("done", "")]
    assert Path(summary.report).exists() and Path(summary.summary_file).exists()
    assert "a.mp4: no contact sheet" in caplog.text


def test_work_that_cannot_be_removed_is_told(tmp_path: Path, monkeypatch, caplog):
    def refuse(uri: str, endpoint: str | None) -> None:
        raise StorageError(f"{uri}: ACCESS_DENIED")

    monkeypatch.setattr(batch, "delete", refuse)
    batch._clean_work(Plan([], [], {}), str(tmp_path), None)
    assert "_work/results" in caplog.text


def test_one_batch_at_a_time_on_an_output(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.yaml").write_text("format: 1")
    (tmp_path / "model/weights.safetensors").write_bytes(b"weights")
    cfg = config(tmp_path)  # (its input does not even exist: nothing is looked at)
    with Lease(cfg.inference.output), pytest.raises(LeaseError, match="another batch"):
        batch.complete_bucket(cfg, tmp_path / "model")


def test_the_environments_server_is_that_of_all_nodes(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    assert settings_of(config(tmp_path)).s3_endpoint == "http://minio:9000"
