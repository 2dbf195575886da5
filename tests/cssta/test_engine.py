from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cssta import Inpainter, stream
from cssta.bank import Bank
from cssta.checkpoint import CheckpointError, Model
from cssta.config import ModelConfig
from cssta.inpainting import InpaintingNetwork
from cssta.propagation import Propagation
from cssta.references import ReferencePlan
from cssta.temporal import TemporalNetwork

CONFIG = ModelConfig(width=6, coarse_width=4, dilations=(2,), temporal_width=4)


def inpainter(*, temporal=False, plan=None, batch=1, exact=True) -> Inpainter:
    """As if trained; `exact` switches off what a CPU's matrix unit would round."""
    torch.manual_seed(0)
    networks = [InpaintingNetwork(CONFIG), TemporalNetwork(CONFIG) if temporal else None]
    with torch.no_grad():
        for network in filter(None, networks):
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
    made = Inpainter(Model(CONFIG, *networks), torch.device("cpu"), plan)
    made.batch = batch
    if exact:
        made.mixed_precision = made.network.refinement.attention.unfold = False
    return made


def clip(length=6, height=22, width=30, seed=0, hole=0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (length, height, width, 3), np.uint8)
    masks = np.zeros((length, height, width), bool)
    masks[:, height // 4 : height // 4 + height // 2, width // 3 : width // 3 + width // 3] = True
    masks[:, 0, 0] = rng.random(length) < hole
    return frames, masks


def check(frames, masks, result) -> None:
    assert result.shape == frames.shape and result.dtype == np.uint8
    assert np.array_equal(result[~masks], frames[~masks])


@pytest.mark.parametrize("temporal", [False, True])
@settings(max_examples=25, deadline=None)
@given(
    length=st.integers(1, 4),
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    hole=st.sampled_from([0.02, 0.5, 1.0]),
    exact=st.booleans(),
    seed=st.integers(0, 1000),
)
@example(length=1, height=1, width=1, hole=1.0, exact=True, seed=0)
@example(length=1, height=1, width=1, hole=1.0, exact=False, seed=0)
@example(length=3, height=1, width=19, hole=1.0, exact=False, seed=0)
def test_any_length_and_size(temporal, length, height, width, hole, exact, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (length, height, width, 3), np.uint8)
    masks = rng.random((length, height, width)) < hole
    given_frames = frames.copy()
    result = inpainter(temporal=temporal, exact=exact).inpaint(frames, masks)
    check(frames, masks, result)
    assert np.array_equal(frames, given_frames), "the input was written to"


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("temporal", [False, True])
def test_what_is_under_the_hole_is_ignored(batch, temporal):
    frames, masks = clip()
    other = np.where(masks[..., None], 255 - frames, frames)
    made = inpainter(batch=batch, temporal=temporal)
    result = made.inpaint(frames, masks)
    check(frames, masks, result)
    assert np.array_equal(made.inpaint(other, masks), result)
    assert (result[masks] != frames[masks]).mean() > 0.9


def test_a_clip_without_a_hole_comes_back_as_a_copy():
    frames, masks = clip()
    calls = []
    result = inpainter().inpaint(frames, masks & False, lambda *call: calls.append(call))
    assert np.array_equal(result, frames)
    assert not np.shares_memory(result, frames)
    assert calls == []


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("unfold", [False, True])
def test_frames_that_are_all_hole(length, unfold):
    frames, masks = clip(length)
    made = inpainter()
    made.network.refinement.attention.unfold = unfold
    result = made.inpaint(frames, masks | True)
    assert np.array_equal(result, made.inpaint(255 - frames, masks | True))


def test_references_change_the_result():
    frames, masks = clip(4)
    masks[2:] = False
    other = frames.copy()
    other[3] = 255 - other[3]
    made = inpainter(plan=ReferencePlan(far=4, near=()))
    one, two = made.inpaint(frames, masks), made.inpaint(other, masks)
    assert not np.array_equal(one[:2], two[:2])


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize("plan", [ReferencePlan(far=3, near=()), ReferencePlan(2, (1, 3))])
def test_batches_change_nothing(plan, temporal):
    frames, masks = clip(9)
    masks[2] = False
    results = [
        inpainter(plan=plan, batch=batch, temporal=temporal).inpaint(frames, masks).astype(int)
        for batch in (1, 4)
    ]
    assert np.abs(results[0] - results[1]).max() <= 1


def test_unfolded_patches_and_mixed_precision_give_nearly_the_same():
    frames, masks = clip(5)
    expected = inpainter().inpaint(frames, masks).astype(int)
    unfolding, rounding = inpainter(), inpainter(exact=False)
    unfolding.network.refinement.attention.unfold = True
    rounding.mixed_precision = True
    assert np.abs(unfolding.inpaint(frames, masks) - expected).max() <= 1
    assert np.abs(rounding.inpaint(frames, masks) - expected)[masks].mean() < 3


def test_an_untrained_temporal_network_changes_nothing():
    frames, masks = clip(5)
    plain, temporal = inpainter(), inpainter(temporal=True)
    temporal.network = plain.network
    torch.nn.init.zeros_(temporal.temporal.residual.weight)
    torch.nn.init.zeros_(temporal.temporal.residual.bias)
    assert np.array_equal(plain.inpaint(frames, masks), temporal.inpaint(frames, masks))


@pytest.mark.parametrize(
    "use, asked, expected",
    [(True, None, True), (False, None, False), (False, True, True), (True, False, False)],
)
def test_the_temporal_network_runs_where_asked_or_recommended(use, asked, expected):
    model = Model(CONFIG, InpaintingNetwork(CONFIG), TemporalNetwork(CONFIG), use_temporal=use)
    made = Inpainter(model, torch.device("cpu"), temporal=asked)
    assert (made.temporal is not None) is expected


def test_a_temporal_network_that_is_not_there_cannot_be_asked_for():
    model = Model(CONFIG, InpaintingNetwork(CONFIG))
    assert Inpainter(model, torch.device("cpu")).temporal is None
    with pytest.raises(ValueError, match="no temporal network"):
        Inpainter(model, torch.device("cpu"), temporal=True)


def test_a_frame_without_a_hole_is_its_own_past():
    frames, masks = clip(4)
    masks[1] = False
    made = inpainter(temporal=True, plan=ReferencePlan(far=0, near=()))
    seen = []
    made.temporal.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    made.inpaint(frames, masks)
    # What the network remembers ends at the gap, as the previous frame does.
    assert [hidden is None for *_, hidden in seen] == [True, True, False]
    previous = seen[1][1][0, :, :22, :30].permute(1, 2, 0).add(1).mul(127.5).round().numpy()
    assert np.array_equal(previous, frames[1])


@pytest.mark.parametrize("batch", [1, 4])
def test_progress_is_reported_as_frames_are_done(batch):
    frames, masks = clip(7)
    masks[3] = False
    calls = []
    inpainter(batch=batch).inpaint(frames, masks, lambda *call: calls.append(call))
    assert calls == [(count, 6) for count in range(1, 7)]


@pytest.mark.parametrize("batch", [1, 4])
def test_every_frame_is_encoded_once_and_few_are_kept(batch, monkeypatch):
    kept = []

    class Watched(Bank):
        def encode(self, numbers, batch):
            super().encode(numbers, batch)
            kept.append(len(self.frames))

    monkeypatch.setattr(stream, "Bank", Watched)
    frames, masks = clip(40, height=8, width=8)
    made = inpainter(batch=batch)
    encoded = []
    plain = made.network.encode
    made.network.encode = lambda f, m: encoded.append(len(f)) or plain(f, m)
    made.inpaint(frames, masks)
    assert sum(encoded) == 40
    assert max(kept) <= made.plan.far + 2 * max(made.plan.near) + 2 * batch


class FillsOnePixel(Propagation):
    """As if other frames saw a pixel of every hole."""

    def run(self, pairs):
        for frame, mask in pairs:
            if mask.any():
                frame, mask = frame.copy(), mask.copy()
                seen = tuple(np.argwhere(mask)[0])
                frame[seen], mask[seen] = 0, False
            yield frame, mask


@pytest.mark.parametrize("holes", [range(40), [18], [5, 6, 7, 22]])
def test_by_default_only_far_references_with_a_hole_are_encoded_twice(holes):
    frames, masks = clip(40, height=8, width=8)
    masks[sorted(set(range(40)) - set(holes))] = False
    made = inpainter(batch=4)
    made.propagation = FillsOnePixel()
    encoded = []
    plain = made.network.encode
    made.network.encode = lambda f, m: encoded.append(len(f)) or plain(f, m)
    check(frames, masks, made.inpaint(frames, masks))
    far = {5, 15, 25, 35}
    assert far == set(made.plan.spread(40))
    needed = {n for hole in holes for n in (hole - 3, hole, hole + 3) if 0 <= n < 40} | far
    assert sum(encoded) <= len(needed) + len(far & set(holes))


def test_frames_that_nobody_asks_for_are_not_encoded():
    frames, masks = clip(40, height=8, width=8)
    masks[:20] = masks[21:] = False
    made = inpainter()
    encoded = []
    plain = made.network.encode
    made.network.encode = lambda f, m: encoded.append(len(f)) or plain(f, m)
    made.inpaint(frames, masks)
    assert sum(encoded) == 1 + 4 + 2  # itself, the far ones, the near ones


@pytest.mark.parametrize("kind", ["flipped", "bgr", "read-only", "transposed"])
def test_views_of_other_arrays(kind):
    frames, masks = clip(3)
    expected = inpainter().inpaint(frames, masks)
    if kind == "flipped":
        frames, masks = (a[:, ::-1].copy()[:, ::-1] for a in (frames, masks))
    elif kind == "bgr":
        frames = frames[..., ::-1].copy()[..., ::-1]
    elif kind == "transposed":
        frames = frames.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1)
    else:
        frames.flags.writeable = masks.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = inpainter().inpaint(frames, masks)
    assert np.array_equal(result, expected)
    assert result.flags.writeable


GOOD = {"frames": np.zeros((2, 8, 9, 3), np.uint8), "masks": np.ones((2, 8, 9), bool)}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"frames": GOOD["frames"].astype(np.float32)}, "uint8 or uint16 array, not float32"),
        ({"frames": GOOD["frames"].tolist()}, "uint16 array, not .*list"),
        ({"frames": torch.zeros(2, 8, 9, 3, dtype=torch.uint8)}, "uint16 array"),
        ({"frames": GOOD["frames"][0]}, r"\(T, H, W, 3\)"),
        ({"frames": GOOD["frames"][..., :1]}, r"\(T, H, W, 3\)"),
        ({"frames": GOOD["frames"][:0], "masks": GOOD["masks"][:0]}, "T, H, W >= 1"),
        ({"frames": GOOD["frames"][:, :0], "masks": GOOD["masks"][:, :0]}, "T, H, W >= 1"),
        ({"masks": GOOD["masks"].astype(np.uint8)}, "bool array, not uint8"),
        ({"masks": GOOD["masks"][:1]}, r"\(2, 8, 9\).*not \(1, 8, 9\)"),
        ({"masks": GOOD["masks"].transpose(0, 2, 1)}, r"not \(2, 9, 8\)"),
        ({"masks": GOOD["masks"][..., None]}, r"not \(2, 8, 9, 1\)"),
    ],
)
def test_wrong_types_and_shapes_are_told(changed, message):
    with pytest.raises(ValueError, match=message):
        inpainter().inpaint(**{**GOOD, **changed})


def test_loads_a_model_folder(tiny_model):
    made = Inpainter.load(tiny_model, "cpu")
    frames, masks = clip(2)
    check(frames, masks, made.inpaint(frames, masks))


def test_a_folder_that_is_no_model_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        Inpainter.load(tmp_path)
