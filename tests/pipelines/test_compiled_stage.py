"""Compiled networks train as plain ones do. (By a backend that needs no compiler.)"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from cssta.config import ModelConfig
from cssta.losses import LossWeights
from cssta.training import Stage, seed_step
from pipelines.checkpoints import Checkpoints
from pipelines.compiled_stage import compile_stage
from pipelines.config import DataConfig, InpainterStageConfig, StageConfig
from pipelines.train_loop import StageTask, build_stage

CPU = torch.device("cpu")
PARTS = {"im2im": 3, "inpainter": 8, "temporal": 8}


def built(name: str, **section) -> Stage:
    cls = InpainterStageConfig if name == "inpainter" else StageConfig
    data = DataConfig(videos="/v", height=16, width=16, references=1)
    model, nowhere = ModelConfig.preset("tiny"), Checkpoints("/nowhere")
    stage = cls(learning_rate=1e-3, **section)
    task = StageTask(name, model, stage, LossWeights(), data, 0, 1, {}, (), nowhere)
    torch.manual_seed(0)
    return build_stage(task, CPU, lambda network: network)


def batch(hole: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    masks = np.zeros((1, 2, 16, 16), bool)
    masks[:, :, 4 : 4 + hole, 4:12] = True
    return {"frames": rng.integers(0, 256, (1, 2, 16, 16, 3), np.uint8), "masks": masks}


@pytest.fixture(autouse=True)
def own_compiler_cache():
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["im2im", "inpainter", "temporal"])
def test_every_network_is_compiled_when_it_is_first_run(name: str):
    assert compile_stage(built(name), backend="aot_eager") == PARTS[name]


def test_losses_and_weights_are_those_of_the_plain_stage(tmp_path: Path):
    plain, compiled = built("inpainter"), built("inpainter")
    compile_stage(compiled, backend="aot_eager")
    for step, hole in enumerate((4, 7)):  # (as the number of hole pixels varies)
        reports = []
        for stage in (plain, compiled):
            seed_step(0, step)
            reports.append(stage.step(batch(hole)))
        assert reports[0].keys() == reports[1].keys()
        for key, value in reports[0].items():
            assert reports[1][key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
        for (key, one), other in zip(
            plain.network.named_parameters(), compiled.network.parameters(), strict=True
        ):
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-5, msg=key)
    compiled.save(tmp_path)
    built("inpainter").restore(tmp_path)  # (files of the same form)
    compiled.restore(tmp_path)
    for ours, theirs in zip(plain.complete(batch(4)), compiled.complete(batch(4)), strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_on_a_cpu_nothing_is_compiled_and_that_is_said(caplog):
    with caplog.at_level(logging.WARNING, logger="pipelines.compiled_stage"):
        stage = built("im2im", compile=True)
    (record,) = [r for r in caplog.records if r.name == "pipelines.compiled_stage"]
    assert "compile is for CUDA; on a CPU it is left out" in record.getMessage()
    assert stage.network.encoder._compiled_call_impl is None
