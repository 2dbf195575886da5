"""What goes wrong after the last video does not make a finished batch a failed one."""

from __future__ import annotations

import time
from pathlib import Path

from cssta.video import write_video
from pipelines import batch, batch_publish
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
