"""What workers report is logged; too many bad files end a stage at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines.checkpoints import Checkpoints
from pipelines.failures import TooManyFailuresError
from pipelines.stage_log import FailureLimit, StageLog
from pipelines.train_loop import PICTURE


def make_log(logged: list, said: list, checkpoints: Checkpoints | None = None) -> StageLog:
    run = SimpleNamespace(
        log_step=lambda metrics, step: logged.append((metrics, step)),
        log_file=lambda path, folder: logged.append((Path(path).read_bytes(), folder)),
    )
    stage = SimpleNamespace(steps=20)
    task = SimpleNamespace(name="inpainter", stage=stage, checkpoints=checkpoints)
    return StageLog(run, task, SimpleNamespace(say=said.append))


def test_reports_become_metrics_and_one_line(tmp_path):
    logged, said = [], []
    log = make_log(logged, said)
    log.after_report(None, [{"step": 10, "loss": 1.23456, "score_real": 0.1}], None)
    assert logged == [({"loss": 1.23456, "score_real": 0.1}, 10)]
    assert said == ["  inpainter 10/20  loss 1.23"]


def test_what_several_workers_report_is_averaged(tmp_path):
    logged = []
    log = make_log(logged, [], Checkpoints(str(tmp_path / "none")))
    reports = [
        {"step": 10, "loss": 1.0, "validation_psnr": 20.0, "grown": 4.0},
        {"step": 10, "loss": 3.0},
        {"step": 10, "loss": 5.0, "grown": 2.0},
    ]
    log.after_report(None, reports, None)
    assert logged == [({"loss": 3.0, "validation_psnr": 20.0, "grown": 3.0}, 10)]


def test_a_validations_picture_is_logged(tmp_path, caplog):
    logged = []
    checkpoints = Checkpoints(str(tmp_path / "run"))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / PICTURE).write_bytes(b"a picture")
    checkpoints.save(tmp_path / "s", 10, {})
    log = make_log(logged, [], checkpoints)
    log.after_report(None, [{"step": 10, "validation_psnr": 20.0}], None)
    assert logged[1:] == [(b"a picture", "pictures/step-000010")]
    log.after_report(None, [{"step": 15, "validation_psnr": 20.0}], None)
    assert len(logged) == 3 and "no picture of step 15" in caplog.text


def test_only_too_many_bad_files_end_a_stage_without_a_restart():
    def check():
        raise TooManyFailuresError("4 files failed")

    FailureLimit(None).after_exception(None, {0: RuntimeError()})
    FailureLimit(SimpleNamespace(check=lambda: None)).after_exception(None, {0: RuntimeError()})
    with pytest.raises(TooManyFailuresError, match="4 files"):
        FailureLimit(SimpleNamespace(check=check)).after_exception(None, {0: RuntimeError()})
