"""Parts of a model as methods, and folders of results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cssta.checkpoint import save_model
from cssta.config import ModelConfig
from cssta.engine import Inpainter
from cssta.evaluation.methods import PARTS, ResultsFolder, coarse_only, methods_of, model_methods
from cssta.evaluation.protocols import PAPER
from cssta.inpainting import InpaintingNetwork
from cssta.temporal import TemporalNetwork
from cssta.video import VideoError, write_frame_folder
from tests.cssta.evaluation.conftest import panning

SMALL = replace(PAPER, height=48, width=64)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    import torch

    torch.manual_seed(0)
    config = ModelConfig.preset("tiny")
    temporal = TemporalNetwork(config)
    torch.nn.init.normal_(temporal.residual.weight, std=0.1)  # (untrained it changes nothing)
    folder = tmp_path_factory.mktemp("model")
    return save_model(folder, config, InpaintingNetwork(config), temporal)


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, np.ndarray]:
    frames = panning(6)
    masks = np.zeros(frames.shape[:3], bool)
    masks[1:, 16:32, 20:40] = True
    return np.where(masks[..., None], np.uint8(127), frames), masks


def test_every_part_completes_holes_only(model, clip):
    frames, masks = clip
    methods = model_methods(list(PARTS), model, "")
    assert [method.name for method in methods] == list(PARTS)
    results = {method.name: method.complete(frames, masks) for method in methods}
    for name, result in results.items():
        assert (result[~masks] == frames[~masks]).all(), name
        assert result.dtype == np.uint8 and (result[masks] != frames[masks]).any(), name
    assert (results["recurrent"] != results["stage1"]).any()
    assert (results["network"] != results["cssta"]).any(), "the camera pans: flow finds pixels"
    again = {method.name: method.complete(frames, masks) for method in methods}
    assert all((again[name] == results[name]).all() for name in results), (
        "the plan was left changed"
    )


@pytest.mark.parametrize(("part", "wanted"), [("0", {0}), ("2", {2}), ("6", {5, 6}), ("all", {11})])
def test_so_many_references_are_used(model, monkeypatch, part: str, wanted: int):
    seen = []

    def inpaint(self, frames, masks):
        assert self.propagation is None, "what flow finds needs no reference"
        seen.append(self.plan)
        return frames

    monkeypatch.setattr(Inpainter, "inpaint", inpaint)
    (method,) = model_methods([f"references-{part}"], model, "")
    frames = np.zeros((12, 16, 16, 3), np.uint8)
    method.complete(frames, np.zeros((12, 16, 16), bool))
    (plan,) = seen
    numbers = plan.for_target(6, plan.spread(12), range(12))
    assert len(numbers) in wanted  # (a near one may be a far one too)


def test_stage_1_looks_at_one_frame_alone(model, clip):
    frames, masks = clip
    inpainter = Inpainter.load(model)
    whole = coarse_only(inpainter, frames, masks, recurrent=False)
    alone = coarse_only(inpainter, frames[3:4], masks[3:4], recurrent=False)
    assert (whole[3] == alone[0]).all()
    steadied = coarse_only(inpainter, frames, masks, recurrent=True)
    first = coarse_only(inpainter, frames[3:4], masks[3:4], recurrent=True)
    assert (steadied[3] != first[0]).any(), "no memory of the frames before"


def test_labels_tell_models_apart(model):
    names = [m.name for m in model_methods(["cssta", "stage1"], model, "ours")]
    assert names == ["ours", "ours: stage1"]
    with pytest.raises(ValueError, match=r"'gated'.*telea"):
        model_methods(["gated"], model, "")
    assert model_methods([], "/no/such/folder", "") == []


def test_without_a_temporal_network_nothing_is_recurrent(tiny_model):
    with pytest.raises(ValueError, match="no temporal network"):
        model_methods(["recurrent"], tiny_model, "")
    with pytest.raises(ValueError, match="no temporal network"):
        methods_of(Inpainter.load(tiny_model), ["recurrent"])
    found = model_methods(["stage1", "recurrent"], tiny_model, "", lenient=True)
    assert [method.name for method in found] == ["stage1"]


def test_a_folder_of_results(tmp_path: Path):
    frames = panning(4)
    write_frame_folder(tmp_path / "a", frames)
    folder = ResultsFolder(tmp_path)
    assert (folder.read("a", 3, SMALL) == frames[:3]).all()
    with pytest.raises(VideoError, match="4 frames, the sequence 5"):
        folder.read("a", 5, SMALL)
    with pytest.raises(VideoError, match="no result for b"):
        folder.read("b", 1, SMALL)
