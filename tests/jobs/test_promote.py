"""`jobs/promote.py` from the command line; what it decides by is in tests/pipelines."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from pipelines.config import JobConfig
from pipelines.promote import evaluation_key

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def promote(monkeypatch) -> Callable[[list], int]:
    """The command in this process: another would take seconds to start, three times."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "jobs"))
    spec = importlib.util.spec_from_file_location("promote_job", REPOSITORY / "jobs/promote.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *arguments: module.main([str(argument) for argument in arguments])


def test_the_candidate_takes_over_and_goes_back(promote, write_config, tmp_path: Path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"x")
    config = write_config({})
    cfg = JobConfig.parse(yaml.safe_load(config.read_text()))
    client = MlflowClient(cfg.tracking.uri, cfg.tracking.uri)
    client.create_registered_model("cssta")
    for version, psnr in (("1", 20.0), ("2", 20.5)):  # both were measured before
        client.create_model_version("cssta", "file:///nowhere")
        figures = json.dumps({"cssta_hole_psnr": psnr, "videos": 1.0})
        client.set_model_version_tag("cssta", version, f"evaluation.{evaluation_key(cfg)}", figures)
    client.set_registered_model_alias("cssta", "champion", "1")
    client.set_registered_model_alias("cssta", "candidate", "2")

    def champion() -> str:
        return str(client.get_model_version_by_alias("cssta", "champion").version)

    for margin in ("-0.1", "nan"):
        assert promote("--config", config, f"--margin={margin}") == 1
        assert "give 0 or more" in capsys.readouterr().err and champion() == "1"
    assert promote("--config", config, "--margin", "0.6") == 1
    assert "models:/cssta/2 not promoted: " in capsys.readouterr().out and champion() == "1"
    assert promote("--config", config, "--dry-run") == 0
    assert "nothing was changed" in capsys.readouterr().out and champion() == "1"
    assert promote("--config", config) == 0
    assert "models:/cssta/2 promoted: cssta_hole_psnr 20.500" in capsys.readouterr().out
    assert champion() == "2"
    assert promote("--config", config, "--rollback") == 0
    assert "@champion is version 1 again, after version 2" in capsys.readouterr().out
    assert champion() == "1"
    assert promote("--config", config, "--rollback") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: models:/cssta@champion: no version is known")
