from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.config import ConfigError, JobConfig, LossesConfig
from pipelines.storage import StorageError
from pipelines.tuned_losses import read_losses, write_losses

WEIGHTS = {"lambda_r": 2.5, "lambda_f": 0.125, "lambda_g": 0.0625, "delta": 50.0}


def test_what_is_written_is_read_and_fits_into_a_configuration(tmp_path: Path):
    path = tmp_path / "tune" / "best.yaml"
    write_losses(str(path), WEIGHTS, "Trial 3 of study s, score 30")
    assert path.read_text().startswith("# Trial 3 of study s, score 30\nlosses:\n")
    assert read_losses(str(path)) == WEIGHTS
    path.write_text(path.read_text() + "data: {videos: x}\n")
    assert JobConfig.load(path).losses == LossesConfig(**WEIGHTS)


@pytest.mark.parametrize(
    "content",
    [
        *("", "losses: 3", "{", "lambda_r: 1", "losses: {lambda_x: 1}", "losses: {delta: -1}"),
        "losses: {}",
        "losses: {lambda_r: 1, lambda_f: 1, lambda_g: 1}",
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str):
    (tmp_path / "best.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"best\.yaml: is no file of loss weights .*lambda_r"):
        read_losses(str(tmp_path / "best.yaml"))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(StorageError, match=r"best\.yaml"):
        read_losses(str(tmp_path / "best.yaml"))
