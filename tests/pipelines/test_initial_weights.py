"""Training starts from what `model.init` names, or says why it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from cssta.checkpoint import CheckpointError
from cssta.config import ModelConfig
from pipelines.config import JobConfig
from pipelines.initial_weights import initial_weights
from pipelines.registry import RegistryError


def starting(model: dict, tracking_uri: str | None = None):
    cfg = JobConfig.parse({"data": {"videos": "/v"}, "model": model})
    return initial_weights(cfg, tracking_uri)


def test_without_a_model_weights_are_random():
    assert starting({"size": "tiny"}) == (ModelConfig.preset("tiny"), {}, "random")


def test_a_folders_networks_and_size(tiny_model: Path):
    config, weights, where = starting({"size": "base", "init": str(tiny_model)})
    assert config == ModelConfig.preset("tiny")  # the folder's own, whatever size is configured
    content = (tiny_model / "inpainter.safetensors").read_bytes()
    assert weights == {"inpainter": content} and where == str(tiny_model)


def test_an_ablations_attention(tiny_model: Path):
    for model in ({"size": "tiny"}, {"init": str(tiny_model)}):
        assert starting({**model, "attention": "none"})[0].attention == "none"
        assert starting(model)[0].attention == "full"


def test_a_model_that_is_not_there_is_named(tiny_model: Path, mlflow_uri: str, tmp_path: Path):
    with pytest.raises(RegistryError, match="models:/none@champion"):
        starting({"init": "models:/none@champion"}, mlflow_uri)
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"):
        starting({"init": "models:/none@champion"})
    with pytest.raises(RegistryError, match="no/such/folder"):
        starting({"init": "/no/such/folder"})
    (tmp_path / "config.yaml").write_bytes((tiny_model / "config.yaml").read_bytes())
    with pytest.raises(CheckpointError, match=r"inpainter\.safetensors"):
        starting({"init": str(tmp_path)})
