"""A model folder written from bytes is one that loads, or an error that names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cssta import Inpainter
from cssta.checkpoint import CheckpointError, load_model, save_model
from cssta.config import ModelConfig
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from cssta.temporal import TemporalNetwork
from pipelines.model_folder import write_model_folder

TINY = ModelConfig.preset("tiny")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, bytes]:
    """A stage's result each, by network name."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    save_model(folder, TINY, InpaintingNetwork(TINY), TemporalNetwork(TINY), Im2Im(TINY))
    return {path.stem: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_holds_every_network_and_completes_frames(weights, tmp_path: Path):
    assert weights.keys() == {"im2im", "inpainter", "temporal"}
    folder = write_model_folder(tmp_path / "new" / "model", TINY, weights)
    assert folder == tmp_path / "new" / "model"
    model = load_model(folder)
    assert model.config == TINY
    assert model.temporal is not None and model.im2im is not None
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), np.uint8)
    masks = np.zeros((2, 32, 40), bool)
    masks[:, 8:16, 8:24] = True
    completed = Inpainter.load(folder).inpaint(frames, masks)
    np.testing.assert_array_equal(completed[~masks], frames[~masks])


def test_the_networks_beside_the_inpainter_may_be_missing(weights, tmp_path: Path):
    model = load_model(write_model_folder(tmp_path, TINY, {"inpainter": weights["inpainter"]}))
    assert model.temporal is None and model.im2im is None


@pytest.mark.parametrize("damage", ["cut", "other-size", "missing"])
def test_what_does_not_load_is_not_handed_on(weights, tmp_path: Path, damage: str):
    config = ModelConfig.preset("small") if damage == "other-size" else TINY
    given = dict(weights)
    if damage == "cut":
        given["inpainter"] = given["inpainter"][:1000]
    elif damage == "missing":
        del given["inpainter"]
    with pytest.raises(CheckpointError, match=r"inpainter\.safetensors"):
        write_model_folder(tmp_path, config, given)
