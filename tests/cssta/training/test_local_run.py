from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cssta import Inpainter
from cssta.checkpoint import load_model
from cssta.config import ModelConfig
from cssta.losses import LossWeights
from cssta.training import Settings
from cssta.training.local_run import LocalRun
from cssta.training.packed import pack
from cssta.training.stage import STATE
from tests.cssta.media import picture

CONFIG = ModelConfig(
    width=6, coarse_width=4, dilations=(2,), temporal_width=4, discriminator_width=4
)


@pytest.fixture
def run(tmp_path) -> LocalRun:
    clips = []
    for number in range(3):
        scene = picture(40, 48, seed=number)
        frames = np.stack([scene[:, t : t + 40] for t in range(8)]).astype(np.uint8)
        clips.append((f"clip{number}", f"scene{number}", frames))
    pack(tmp_path / "packed", clips)
    return LocalRun(
        packed=tmp_path / "packed",
        output=tmp_path / "out",
        config=CONFIG,
        settings=Settings(targets=2),
        losses=LossWeights(lambda_g=0),
        minutes={"im2im": 0.005, "inpainter": 0.005, "temporal": 0.005},
        batch=1,
        frames=3,
        size=32,
        report_every=1,
        log=lambda line: None,
    )


def test_writes_a_model_and_goes_on_only_where_time_is_left(run):
    lines: list[str] = []
    run = replace(run, log=lines.append)
    folder = run.run()
    model = load_model(folder)
    assert model.temporal is not None and model.im2im is not None
    frames, masks = np.zeros((2, 16, 16, 3), np.uint8), np.ones((2, 16, 16), bool)
    assert Inpainter.load(folder, "cpu").inpaint(frames, masks).shape == frames.shape
    for stage in ("im2im", "inpainter", "temporal"):
        assert any(line.startswith(f"{stage} 1 (") for line in lines)
        assert any(line.startswith(f"{stage}: saved") and "hole PSNR" in line for line in lines)

    lines.clear()
    replace(run, minutes={**run.minutes, "temporal": 0.01}).run()
    assert not any(line.startswith(("im2im ", "inpainter ")) for line in lines)
    steps = [line for line in lines if line.startswith("temporal ")]
    assert steps and not steps[0].startswith("temporal 1 ")


def test_steps_take_the_place_of_minutes(run):
    steps = {"im2im": 3, "inpainter": 4, "temporal": 2}
    replace(run, steps=steps).run()
    for stage, count in steps.items():
        state = json.loads((run.output / stage / STATE).read_text())
        assert state["steps"] == count
