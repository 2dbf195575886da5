from __future__ import annotations

import numpy as np
import pytest
import torch


def test_overfits_one_batch(build, batch):
    stage = build("temporal", learning_rate=5e-3)
    losses = [stage.step(batch)["loss"] for _ in range(25)]
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_teacher_and_inpainter_stay_as_they_were(build, batch):
    stage = build("temporal")
    frozen = [stage.inpainter, stage.teacher]
    before = [{k: v.clone() for k, v in network.state_dict().items()} for network in frozen]
    stage.step(batch)
    for network, values in zip(frozen, before, strict=True):
        assert not any(p.requires_grad for p in network.parameters())
        for key, value in network.state_dict().items():
            assert torch.equal(value, values[key])


def test_untrained_it_ships_the_inpainters_frames(build, batch):
    stage = build("temporal")
    result, _ = stage.complete(batch)
    frames, masks = stage.network_inputs(batch)
    completed = stage._completed(frames, masks).flatten(0, 1)
    expected = ((completed + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(result, expected)


def test_stability_counts_only_what_moves_within_the_hole(build, batch):
    report = build("temporal").step(batch)
    assert report["loss_stability"] > 0
    nothing = {**batch, "masks": batch["masks"] & False}
    report = build("temporal").step(nothing)
    assert report["loss_stability"] == 0
    assert report["loss_perceptual"] == 0
    assert report["loss_reconstruction"] == pytest.approx(0, abs=1e-6)


def test_a_clip_of_one_frame_has_nothing_to_be_stable_against(build, batch):
    report = build("temporal").step({key: value[:, :1] for key, value in batch.items()})
    assert report["loss_stability"] == 0
    assert np.isfinite(report["loss"])


def test_tensors_and_arrays_alike(build, batch):
    tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
    assert build("temporal").step(tensors) == build("temporal").step(batch)
