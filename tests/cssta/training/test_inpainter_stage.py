from __future__ import annotations

import numpy as np
import pytest
import torch

from cssta.losses import LossWeights
from cssta.metrics import psnr


def test_overfits_one_batch(build, batch):
    stage = build("inpainter")
    reports = [stage.step(batch) for _ in range(30)]
    for key in ("loss_coarse", "loss_reconstruction"):
        values = [report[key] for report in reports]
        assert np.mean(values[-5:]) < 0.8 * np.mean(values[:3]), key
    assert stage.optimiser.skipped == 0


def test_learns_a_clip_by_heart(build, batch):
    """The capacity is there: the first of the two clips, to more than 35 dB in its hole."""
    clip = {key: value[:1] for key, value in batch.items()}
    losses = LossWeights(lambda_f=0, lambda_g=0)
    stage = build("inpainter", adversarial=False, losses=losses, learning_rate=4e-3, ema=0.9)

    def hole_psnr() -> float:
        result, truth = stage.complete(clip)
        return psnr(result, truth, clip["masks"][0]).mean()

    before = hole_psnr()
    for _ in range(120):
        stage.step(clip)
    assert before < 25 and hole_psnr() > 35


def test_feature_loss_falls_where_it_is_asked_for(build, batch):
    losses = LossWeights(lambda_r=0, lambda_f=1)
    stage = build("inpainter", learning_rate=5e-3, losses=losses, adversarial=False)
    values = [stage.step(batch)["loss_feature"] for _ in range(15)]
    assert np.mean(values[-3:]) < 0.8 * values[0]


def test_discriminator_tells_real_from_fake(build, batch):
    masks = np.ones_like(batch["masks"])  # (all of it fake: quickly learned)
    stage = build("inpainter", learning_rate=5e-3, losses=LossWeights(lambda_r=0, lambda_g=0))
    for _ in range(15):
        report = stage.step({**batch, "masks": masks})
    assert report["score_real"] > report["score_fake"] + 0.1


def test_the_total_is_eq_7(build, batch):
    losses = LossWeights(lambda_r=2.0, lambda_f=0.3, lambda_g=0.7, delta=10.0)
    report = build("inpainter", losses=losses).step(batch)
    expected = (
        2.0 * (report["loss_coarse"] + report["loss_reconstruction"])
        + 0.3 * report["loss_feature"]
        + 0.7 * report["loss_generator"]
    )
    assert report["loss"] == pytest.approx(expected, rel=1e-4)


def test_the_teacher_stays_as_it_was(build, batch):
    stage = build("inpainter")
    before = {key: value.clone() for key, value in stage.teacher.state_dict().items()}
    stage.step(batch)
    assert not any(p.requires_grad or p.grad is not None for p in stage.teacher.parameters())
    for key, value in stage.teacher.state_dict().items():
        assert torch.equal(value, before[key])


def test_the_temperature_learns(build, batch):
    stage = build("inpainter")
    scales = [stage.step(batch)["attention_scale"] for _ in range(3)]
    assert len(set(scales)) == 3


@pytest.mark.parametrize("fill", [False, True])
def test_clips_without_a_hole_and_all_hole(build, batch, fill):
    stage = build("inpainter")
    report = stage.step({**batch, "masks": np.full_like(batch["masks"], fill)})
    assert all(np.isfinite(value) for value in report.values())
    assert stage.optimiser.skipped == 0


def test_fewer_targets_do_not_shift_the_balance(build, batch):
    # With one frame three times over, any choice of targets sees the same.
    same = {key: np.repeat(value[:, :1], 3, axis=1) for key, value in batch.items()}
    stages = [build("inpainter", targets=n, adversarial=False) for n in (1, 2, None, 9)]
    reports = [stage.step(same) for stage in stages]
    for report in reports[1:]:
        assert report["loss"] == pytest.approx(reports[0]["loss"], rel=1e-4)
        assert report["loss_coarse"] == pytest.approx(reports[0]["loss_coarse"], rel=1e-4)


def test_unfolded_patches_train_alike(build, batch):
    reports = []
    for unfold in (False, True):
        stage = build("inpainter", unfold=unfold)
        reports.append([stage.step(batch) for _ in range(2)])
    for one, two in zip(*reports, strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-3)


def test_a_clip_of_one_frame(build, batch):
    single = {key: value[:, :1] for key, value in batch.items()}
    assert np.isfinite(build("inpainter").step(single)["loss"])


def test_now_and_then_references_are_missing(build, batch):
    stage = build("inpainter", reference_dropout=0.5, targets=2)
    seen = []
    stage.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[3]))
    for _ in range(16):
        assert np.isfinite(stage.step(batch)["loss"])
    dropped = [allowed for allowed in seen if allowed is not None]
    assert 3 <= len(dropped) <= 13
    assert all(a.shape == (2, 3) and a.dtype == torch.bool for a in dropped)
    assert {bool(a.any()) for a in dropped} == {False, True}
    assert build("inpainter")._references(2, 3) is None


@pytest.mark.parametrize("unfold", [False, True])
def test_the_attentions_entropy_is_logged_now_and_then(build, batch, unfold):
    stage = build("inpainter", entropy_every=2, unfold=unfold)
    reports = [stage.step(batch) for _ in range(4)]
    assert ["attention_entropy" in report for report in reports] == [True, False, True, False]
    keys = 2 * 8 * 8  # of two references, seen or not
    assert 0 < reports[0]["attention_entropy"] < np.log(keys)
    assert not stage.network.refinement.attention.track_entropy
    assert "attention_entropy" not in build("inpainter", entropy_every=0).step(batch)
    nothing = {**batch, "masks": batch["masks"] & False}
    assert "attention_entropy" not in build("inpainter").step(nothing)


def test_checkpointing_changes_nothing_but_memory(build, batch):
    weights, remembered = [], []
    for checkpointing in (False, True):
        stage = build("inpainter", checkpointing=checkpointing)
        sizes = {}
        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: (sizes.update({t.data_ptr(): t.nbytes}), t)[1], lambda t: t
        ):
            report = stage.step(batch)
        weights.append([report["loss"], *(p.detach() for p in stage.network.parameters())])
        remembered.append(sum(sizes.values()))
    for plain, again in zip(*weights, strict=True):
        assert np.allclose(plain, again, atol=1e-6)
    assert remembered[1] < remembered[0]
