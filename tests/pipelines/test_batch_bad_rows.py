"""What is wrong with one video's places ends that video, not the batch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipelines import batch_inputs, storage
from pipelines.batch_plan import plan_batch
from pipelines.batch_quarantine import Quarantine
from pipelines.storage import StorageError
from tests.pipelines.test_batch_plan import MODEL, finish, make_config, touch


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    monkeypatch.setattr("pipelines.retries.FIRST_WAIT", 0.001)


def of_rows(tmp_path: Path, rows: list[dict], **data):
    manifest = tmp_path / "list.jsonl"
    manifest.write_text("\n".join(json.dumps(row) for row in rows))
    cfg = make_config(tmp_path, manifest=str(manifest))
    return cfg.model_copy(update={"data": cfg.data.model_copy(update=data)})


def test_rows_whose_places_cannot_be_asked_are_quarantined(tmp_path: Path, s3_bucket):
    touch(tmp_path / "in/a.mp4")
    rows = [
        {"video": "a.mp4", "boxes": "1,2,3,4"},
        {"video": "s3://bucket/b.mp4"},
        {"video": "gs://bucket/c.mp4"},
        {"video": "lone \udce9.mp4"},
        {"video": "a.mp4", "mask": "lone \udce9.png", "output": "lone \udce9.mp4"},
        {"video": "nul \0.mp4"},
        {"video": "a.mp4", "dilate": "wide", "output": "wide.mp4"},
        {"video": "a.mp4", "colour": "red", "boxes": "1,2,3,4"},
        {"mask": "x.png"},
    ]
    cfg = of_rows(tmp_path, rows, s3_endpoint="http://127.0.0.1:9")
    plan = plan_batch(cfg, MODEL)
    assert [task.name for task in plan.tasks] == ["a.mp4"]
    reasons = ["storage"] * 2 + ["bad-name"] * 3 + ["bad-row"] * 3
    assert [outcome.reason for outcome in plan.settled] == reasons
    quarantine = Quarantine(str(tmp_path / "out"))
    for number, outcome in enumerate(plan.settled, start=2):
        assert f"row {number}" in outcome.message
        json.dumps(vars(outcome), ensure_ascii=False).encode()
        quarantine.update(plan.all_tasks[outcome.name], outcome)
    assert len(list((tmp_path / "out/_quarantine").rglob("*.json"))) == 8


def test_a_record_that_cannot_be_read_means_not_finished(tmp_path: Path, monkeypatch):
    touch(tmp_path / "in/a.mp4", tmp_path / "in/b.mp4")
    cfg = make_config(tmp_path)
    for task in plan_batch(cfg, MODEL).tasks:
        finish(task)
    real = storage.read_bytes

    def refuse(uri: str, endpoint: str | None) -> bytes:
        if "a.mp4" in uri:
            raise StorageError(f"{uri}: ACCESS_DENIED")
        return real(uri, endpoint)

    monkeypatch.setattr(storage, "read_bytes", refuse)
    plan = plan_batch(cfg, MODEL)
    assert [task.name for task in plan.tasks] == ["a.mp4"]
    assert [outcome.name for outcome in plan.settled] == ["b.mp4"]


def test_listings_are_tried_again(tmp_path: Path, monkeypatch):
    touch(tmp_path / "in/a.mp4", tmp_path / "masks/a.png")
    for name in ("list_videos", "Listing", "MaskFolder"):
        failed = []
        real = getattr(batch_inputs, name)

        def once(*arguments, failed=failed, real=real):
            if not failed:
                failed.append(True)
                raise StorageError("connection reset", transient=True)
            return real(*arguments)

        monkeypatch.setattr(batch_inputs, name, once)
    plan = plan_batch(make_config(tmp_path, masks=str(tmp_path / "masks")), MODEL)
    assert [task.name for task in plan.tasks] == ["a.mp4"]


def test_a_name_that_is_not_utf8_is_quarantined(tmp_path: Path):
    source = tmp_path / "in"
    touch(source / "good.mp4", source / "good.txt", source / "walk/1.png", source / "run/1.png")
    names = (b"\xe9t\xe9.mp4", b"\xe9t\xe9.braw", b"\xe9t\xe9.txt", b".\xe9.mp4", b"run/\xe9.png")
    for name in (*names, b"\xe9/b.mp4", b"\xe9/1.png"):
        path = os.fsencode(source) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(b"x")
    touch(tmp_path / "masks/good.png", tmp_path / "masks/walk/1.png")
    os.close(os.open(os.fsencode(tmp_path) + b"/masks/\xe9.png", os.O_CREAT))
    plan = plan_batch(make_config(tmp_path, masks=str(tmp_path / "masks")), MODEL)
    assert [task.name for task in plan.tasks] == ["good.mp4", "walk"]
    found = {outcome.name: outcome for outcome in plan.settled}
    accent = r"\udce9"
    assert {name: outcome.reason for name, outcome in found.items()} == dict.fromkeys(
        (f"{accent}t{accent}.mp4", f"{accent}t{accent}.braw", f"{accent}/b.mp4", "run"), "bad-name"
    )
    quarantine = Quarantine(str(tmp_path / "out"))
    for outcome in found.values():
        assert "rename it" in outcome.message
        json.dumps(vars(outcome), ensure_ascii=False).encode()
        quarantine.update(plan.all_tasks[outcome.name], outcome)
    assert len(list((tmp_path / "out/_quarantine").rglob("*.json"))) == 4
    # (As when an earlier run left one among its outputs.)
    touch(tmp_path / "out/a.mp4")
    for name in (b"/out/\xe9.mp4", b"/out/_quarantine/\xe9.json"):
        os.close(os.open(os.fsencode(tmp_path) + name, os.O_CREAT))
    assert Quarantine(str(tmp_path / "out"))
    assert len(plan_batch(make_config(tmp_path), MODEL).tasks) == 2
