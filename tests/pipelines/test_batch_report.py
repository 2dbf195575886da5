"""The page holds everything in itself, escapes names, and MLflow shows the run with its model."""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines import batch_report
from pipelines.batch_record import ModelIdentity
from pipelines.batch_report import duration, log_to_mlflow, write_report
from pipelines.config import JobConfig
from tests.pipelines.outcomes import MODEL, batch, outcome

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Text and addresses of a page; every element that is opened must be closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open, self.words, self.addresses = [], [], []
        self.feed(content)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value for key, value in attributes if key in ("src", "href")]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(tmp_path: Path, outcomes, **options) -> Page:
    options = {"model": MODEL, "seconds": 60.0, "title": "Batch of s3://a/<b>"} | options
    path = write_report(tmp_path / "made" / "report.html", outcomes, **options)
    return Page(path.read_text(encoding="utf-8"))


def test_what_an_earlier_run_held_for_review_is_told_again(tmp_path: Path):
    held = outcome("old.mp4", "skipped", review="the hole's edge shows")
    text = page_of(tmp_path, [held]).text
    assert "Held for review" in text and text.count("the hole's edge shows") == 1
    assert "1 held for review" in text and "0 already there" in text


def test_a_page_tells_totals_failures_reviews_and_the_model(tmp_path: Path):
    page = page_of(tmp_path, batch(), facts={"ledger": "s3://a/ledger.parquet"})
    for words in (
        "Batch of s3://a/<b>",
        "2 published",
        "1 held for review",
        "1 already there",
        "3 quarantined",
        "30 frames completed, 24 with a hole",
        "0.50 frames per second",
        "mask-missing : 2",
        "text.mp4 is no video; re-encode it",
        "höhle <1> & #2.mp4 the hole's edge shows: seam 4.00 is above 1.8",
        "models:/cssta@champion (version models:/cssta/3)",
        MODEL.digest,
        "s3://a/ledger.parquet",
    ):
        assert words in page.text
    assert page.text.index("mask-missing") < page.text.index("unreadable")  # the more frequent


def test_nothing_comes_from_elsewhere(tmp_path: Path):
    sheet = tmp_path / "sheet.png"
    cv2.imwrite(str(sheet), np.random.default_rng(0).integers(0, 256, (40, 2400, 3), np.uint8))
    worst = [("höhle <1> & #2.mp4", sheet), ("poor.mp4", tmp_path / "none.png")]
    page = page_of(tmp_path, batch(), worst=worst)
    (address,) = page.addresses
    assert address.startswith("data:image/jpeg;base64,")
    assert "its contact sheet could not be read" in page.text
    assert "höhle <1> & #2.mp4 · seam 4.00 · warping 1.20 · self_test 20.0 dB" in page.text
    content = (tmp_path / "made" / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|<script|@import|url\(", content)


def test_a_batch_of_nothing_and_one_of_failures_have_pages(tmp_path: Path):
    assert "0 published" in page_of(tmp_path, [], seconds=0.0).text
    page = page_of(tmp_path, [outcome("a.mp4", "failed")])
    assert "Quality" not in page.text and "1 quarantined" in page.text


def test_a_large_batch_stays_readable(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(batch_report, "LISTED", 50)
    videos = [outcome(f"{i:04d}.mp4", quality={"seam": 1 + i / 1000}) for i in range(300)]
    videos += [outcome(f"bad {i}.mp4", "failed") for i in range(30)]
    page = page_of(tmp_path, videos)
    assert "20 more" in page.text and "280 more are in the ledger" in page.text
    table = page.text[page.text.index("Videos, the worst first") :]
    assert table.index("bad 3.mp4") < table.index("0299.mp4") < table.index("0298.mp4")
    assert "0000.mp4" not in table


def test_durations():
    assert [duration(s) for s in (8.24, 250, 11103)] == ["8.2 s", "4 min 10 s", "3 h 05 min"]


@pytest.fixture
def cfg(tmp_path: Path, mlflow_uri: str) -> JobConfig:
    tracking = {"uri": mlflow_uri}
    content = {"data": {"videos": "/v"}, "tracking": tracking}
    return JobConfig.parse(content | {"cluster": {"storage": str(tmp_path)}})


def test_the_run_in_mlflow_is_tied_to_the_model(tmp_path: Path, cfg: JobConfig):
    client = MlflowClient(cfg.tracking.uri, cfg.tracking.uri)
    experiment = client.create_experiment("training", tmp_path.as_uri())
    training = client.create_run(experiment).info.run_id
    logged = client.create_logged_model(experiment, name="cssta", source_run_id=training)
    client.create_registered_model("cssta")
    source = f"models:/{logged.model_id}"
    mlflow.set_tracking_uri(cfg.tracking.uri)  # where MLflow looks for that
    try:
        client.create_model_version("cssta", source, training, model_id=logged.model_id)
    finally:
        mlflow.set_tracking_uri(None)
    (tmp_path / "report.html").write_text("page")
    model = ModelIdentity("models:/cssta@champion", "models:/cssta/1", "ab")
    files = [tmp_path / "report.html"]
    run_id = log_to_mlflow(cfg, batch(), model=model, seconds=60.0, files=files)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["videos_failed"] == 3 and run.data.metrics["seam_worst"] == 4
    assert run.data.tags["model_version"] == "models:/cssta/1"
    assert (run.data.tags["job"], run.data.tags["model_run"]) == ("batch", training)
    assert [found.model_id for found in run.inputs.model_inputs] == [logged.model_id]
    assert [file.path for file in client.list_artifacts(run_id)] == ["report.html"]


def test_a_tracker_that_is_away_or_knows_no_such_version_ends_no_batch(cfg: JobConfig, caplog):
    caplog.set_level(logging.WARNING)
    model = ModelIdentity("models:/cssta@champion", "models:/cssta/9", "ab")
    assert log_to_mlflow(cfg, batch(), model=model, seconds=1.0)
    assert "not tied to models:/cssta/9" in caplog.text
    away = cfg.model_copy(
        update={"tracking": cfg.tracking.model_copy(update={"uri": "sqlite:////proc/none/m.db"})}
    )
    assert log_to_mlflow(away, batch(), model=model, seconds=1.0) is None
    assert "the batch is not logged" in caplog.text
