from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from cssta.checkpoint import CheckpointError
from cssta.training import DivergedError, Settings

STAGES = ["im2im", "inpainter", "temporal"]


def weights(stage) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, network in stage._networks().items()
        for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("name", STAGES)
def test_going_on_from_a_save_changes_nothing(name, build, batch, tmp_path):
    straight = build(name)
    for step in range(6):
        straight.step(batch)
        if step == 1:
            straight.end_epoch()
        if step == 2:
            straight.save(tmp_path)
    resumed = build(name)
    for _ in range(2):  # whatever it held before is overwritten
        resumed.step({**batch, "frames": 255 - batch["frames"]})
    torch.manual_seed(99)
    resumed.restore(tmp_path)
    assert resumed.steps == 3
    reports = [resumed.step(batch) for _ in range(3)]
    assert resumed.steps == straight.steps == 6
    assert all(math.isfinite(value) for report in reports for value in report.values())
    expected = weights(straight)
    for key, value in weights(resumed).items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("name", STAGES)
def test_a_save_is_tensors_and_plain_text(name, build, batch, tmp_path):
    stage = build(name)
    stage.step(batch)
    stage.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["steps"] == state["averaged"] == 1
    assert state["optimisers"]["network"]["adam"][0]["lr"] == 2e-3


def test_moments_keep_their_layout(build, batch, tmp_path):
    stage = build("im2im")
    stage.step(batch)
    stage.save(tmp_path)
    resumed = build("im2im")
    resumed.restore(tmp_path)
    for parameter, values in resumed.optimiser.adam.state.items():
        assert values["exp_avg"].stride() == parameter.stride()


@pytest.mark.parametrize("missing", ["network", "discriminator", "average", "state"])
def test_a_save_that_is_not_whole_is_told(build, batch, tmp_path, missing):
    stage = build("im2im")
    stage.save(tmp_path)
    (tmp_path / f"{missing}.safetensors").unlink()
    with pytest.raises(CheckpointError, match=missing):
        build("im2im").restore(tmp_path)


@pytest.mark.parametrize("damage", ["gone", "cut", "list", "optimiser", "parameters"])
def test_a_state_that_does_not_fit_is_told(build, batch, tmp_path, damage):
    stage = build("im2im")
    stage.step(batch)
    stage.save(tmp_path)
    path = tmp_path / "state.json"
    state = json.loads(path.read_text())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_text(path.read_text()[:-20])
    else:
        if damage == "list":
            state = [state]
        elif damage == "optimiser":
            del state["optimisers"]["discriminator"]
        else:
            state["optimisers"]["network"]["adam"][0]["params"].pop()
        path.write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"state\.json: not this stage's state"):
        build("im2im").restore(tmp_path)


@pytest.mark.parametrize("name", STAGES)
def test_a_bad_batch_is_skipped_and_counted(name, build, batch):
    stage = build(name, max_bad_steps=2)
    stage.step(batch)
    before = weights(stage)
    inputs = stage.network_inputs
    stage.network_inputs = lambda b: (inputs(b)[0] * float("nan"), inputs(b)[1])
    report = stage.step(batch)
    assert math.isnan(report["loss"])
    assert stage.optimiser.skipped == 1
    assert stage.skipped == (1 if stage.discriminator is None else 2)
    for key, value in weights(stage).items():
        if not key.endswith(("._u", "._v")):  # spectral norm's power iteration goes on
            assert torch.equal(value, before[key]), key
    with pytest.raises(DivergedError):
        for _ in range(2):
            stage.step(batch)
    stage.network_inputs = inputs
    assert math.isfinite(stage.step(batch)["loss"])


def test_an_epoch_ends_for_both_networks(build, batch):
    stage = build("im2im", decay=0.5, decay_every_epochs=2)
    for _ in range(2):
        stage.step(batch)
        stage.end_epoch()
    assert stage.optimiser.learning_rate == stage.discriminator_optimiser.learning_rate == 1e-3


def test_the_average_is_what_is_shipped(build, batch):
    stage = build("im2im")
    assert stage.exported is stage.average.module
    for _ in range(3):
        stage.step(batch)
    shipped, trained = stage.exported.state_dict(), stage.network.state_dict()
    assert any(not torch.equal(shipped[key], trained[key]) for key in trained)
    plain = build("im2im", ema=0)
    assert plain.exported is plain.network


@pytest.mark.parametrize("name", STAGES)
def test_completes_for_validation(name, build, batch):
    result, truth = build(name).complete(batch)
    assert result.shape == truth.shape == (6, 32, 32, 3)
    assert result.dtype == truth.dtype == np.uint8
    assert np.array_equal(truth, batch["frames"].reshape(truth.shape))
    if name != "im2im":
        outside = ~batch["masks"].reshape(truth.shape[:3])
        assert np.array_equal(result[outside], truth[outside])


@pytest.mark.parametrize("name", STAGES)
def test_mixed_precision_trains(name, build, batch):
    stage = build(name, mixed_precision=True)
    reports = [stage.step(batch) for _ in range(2)]
    assert all(math.isfinite(report["loss"]) for report in reports)
    assert stage.optimiser.skipped == 0
    assert all(p.dtype == torch.float32 for p in stage.network.parameters())


@pytest.mark.parametrize("name", ["im2im", "inpainter"])
def test_without_a_discriminator(name, build, batch):
    stage = build(name, adversarial=False)
    report = stage.step(batch)
    assert not {"loss_generator", "loss_discriminator"} & set(report)
    assert stage.discriminator is None


def test_each_trained_network_is_wrapped_once(build, batch):
    from cssta.im2im import Im2Im
    from cssta.losses import LossWeights
    from cssta.training import Im2ImStage

    example = build("im2im")
    wrapped = []
    Im2ImStage(
        example.config,
        Im2Im(example.config),
        Settings(),
        LossWeights(),
        torch.device("cpu"),
        wrap=lambda network: wrapped.append(type(network).__name__) or network,
    ).step(batch)
    assert wrapped == ["Im2Im", "Discriminator"]
