from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from cssta import planner, stream
from cssta.planner import Limits
from cssta.references import ReferencePlan
from cssta.region import crop_region, hole_box
from tests.cssta.test_engine import clip, inpainter


def run(made, frames, masks, **options) -> np.ndarray:
    return np.stack(list(made.stream(zip(frames, masks, strict=True), **options)))


def warnings(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "cssta.stream"]


def given(frames, masks, numbers) -> list[tuple[int, np.ndarray, np.ndarray]]:
    return [(n, frames[n], masks[n]) for n in numbers]


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_with_given_references_it_is_exactly_what_inpaint_does(temporal, batch):
    frames, masks = clip(11)
    masks[4:7] = False
    made = inpainter(temporal=temporal, batch=batch)
    references = given(frames, masks, made.plan.spread(11))
    assert np.array_equal(
        run(made, frames, masks, references=references), made.inpaint(frames, masks)
    )


def test_also_in_a_crop():
    frames, _ = clip(3, height=300, width=340)
    masks = np.zeros(frames.shape[:3], bool)
    masks[:, 40:60, 50:70] = True
    made = inpainter()
    region = crop_region(hole_box(masks), 300, 340)
    references = given(frames, masks, made.plan.spread(3))
    result = run(made, frames, masks, references=references, region=region)
    assert np.array_equal(result, made.inpaint(frames, masks))
    assert np.array_equal(result[~masks], frames[~masks])
    # Nothing beyond the region takes part.
    y0, y1, x0, x1 = region
    other = 255 - frames
    other[:, y0:y1, x0:x1] = frames[:, y0:y1, x0:x1]
    assert np.array_equal(made.inpaint(other, masks)[masks], result[masks])


def test_a_part_of_a_longer_clip_goes_by_the_clips_numbers():
    frames, masks = clip(12)
    plan = ReferencePlan(far=4, near=(2,))
    made = inpainter(plan=plan)
    references = given(frames, masks, plan.spread(12))
    part = run(made, frames[3:], masks[3:], references=references, start=3)
    assert np.array_equal(part[2:], made.inpaint(frames, masks)[5:])


def test_a_target_is_not_its_own_reference():
    frames, masks = clip(1)
    made = inpainter(plan=ReferencePlan(near=()))
    itself = [(7, frames[0], masks[0])]
    alone = run(made, frames, masks, references=[])
    assert np.array_equal(run(made, frames, masks, references=itself, start=7), alone)
    assert not np.array_equal(run(made, frames, masks, references=itself, start=8), alone)


def test_a_reference_under_a_targets_number_that_shows_something_else():
    frames, masks = clip(4)
    made = inpainter()
    references = [(2, 255 - frames[2], masks[2])]
    result = run(made, frames, masks, references=references)
    assert np.array_equal(result[~masks], frames[~masks])


@pytest.mark.parametrize("temporal", [False, True])
def test_in_one_pass_batches_change_nothing(temporal):
    frames, masks = clip(40, height=8, width=12)
    masks[[0, 1, 13, 14, 15, 30]] = False
    plan = ReferencePlan(far=4, near=(2,), ahead=6)
    one, more = (
        run(inpainter(plan=plan, batch=batch, temporal=temporal), frames, masks).astype(int)
        for batch in (1, 5)
    )
    assert np.array_equal(one[~masks], frames[~masks])
    assert np.abs(one - more).max() <= 1


def test_in_one_pass_the_whole_past_and_what_comes_are_borrowed_from(monkeypatch):
    seen = {}

    class Watched(stream.Stream):
        def _attend(self, target, references):
            seen[target] = references
            return super()._attend(target, references)

    monkeypatch.setattr("cssta.completion.Stream", Watched)
    frames, masks = clip(50, height=4, width=4)
    run(inpainter(plan=ReferencePlan(far=6, near=(3,), ahead=8)), frames, masks, start=100)
    assert seen[140] == [100, 116, 132, 137, 143, 144, 148]
    assert seen[149] == [100, 116, 132, 146, 148]
    assert seen[100] == [103, 104, 108]


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("every", [1, 7, 40])
def test_little_is_read_ahead_and_little_is_kept(batch, every, monkeypatch):
    read, kept, streams = [], [], []

    class Watched(stream.Stream):
        def __init__(self, *args):
            super().__init__(*args)
            streams.append(self)

    monkeypatch.setattr("cssta.completion.Stream", Watched)
    frames, masks = clip(100, height=4, width=4)
    masks[np.arange(100) % every > 0] = False
    made = inpainter(batch=batch)

    def pairs():
        for number in range(100):
            read.append(number)
            yield frames[number], masks[number]

    for given_back, _ in enumerate(made.stream(pairs()), 1):
        assert len(read) - given_back <= made.plan.ahead + 2 * batch + 1
        kept.append(len(streams[0].bank.frames))
    assert given_back == 100
    assert max(kept) <= made.plan.far + made.plan.ahead + max(made.plan.near) + 3 * batch + 1


def test_without_a_hole_nothing_is_encoded_nor_references_read():
    frames, masks = clip(30, height=4, width=4)
    made = inpainter()
    made.network.encode = None
    references = iter(given(frames, masks, [3]))
    result = run(made, frames, masks & False, references=references)
    assert np.array_equal(result, frames) and not np.shares_memory(result, frames)
    assert len(list(references)) == 1
    assert list(made.stream([])) == []


def test_frames_of_16_bits():
    frames, masks = clip(5)
    made = inpainter()
    fine = frames.astype(np.uint16) * 257
    result = made.inpaint(fine, masks)
    assert result.dtype == np.uint16
    assert np.array_equal(result[~masks], fine[~masks])
    coarse = made.inpaint(frames, masks)
    assert np.abs(result / 257 - coarse).max() <= 0.51
    assert (result % 257 > 0)[masks].mean() > 0.9, "finer than 8 bits"


def out_of_memory(kind: str) -> RuntimeError:
    if kind == "cuda":
        return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    return RuntimeError("[enforce fail at alloc_cpu.cpp:130] DefaultCPUAllocator: can't allocate")


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
@pytest.mark.parametrize("where", ["coarse.encoder", "refinement.attention", "refinement.decoder"])
@pytest.mark.parametrize("given_references", [False, True])
def test_out_of_memory_it_shrinks_and_goes_on(kind, where, given_references, caplog):
    frames, masks = clip(9)
    made = inpainter(temporal=True, batch=4)
    options = {"references": given(frames, masks, made.plan.spread(9))} if given_references else {}
    expected = run(made, frames, masks, **options).astype(int)
    failures = [2, 4]  # calls that fail

    def fail(*_):
        failures[:] = [n - 1 for n in failures]
        if 0 in failures:
            raise out_of_memory(kind)

    hook = made.network.get_submodule(where).register_forward_pre_hook(fail)
    with caplog.at_level(logging.WARNING, "cssta"):
        result = run(made, frames, masks, **options)
    hook.remove()
    assert np.abs(result - expected).max() <= 1
    first, second = warnings(caplog)
    assert "batch=4" in first and "batch=2" in second


def test_a_size_that_fits_is_found(caplog):
    frames, masks = clip(6)
    made = inpainter(batch=4)
    expected = made.inpaint(frames, masks).astype(int)

    def too_large(_, inputs):
        if len(inputs[0]) > 1:
            raise out_of_memory("cuda")

    made.network.refinement.decoder.register_forward_pre_hook(too_large)
    assert np.abs(made.inpaint(frames, masks) - expected).max() <= 1


@pytest.mark.parametrize("error", [out_of_memory("cuda"), RuntimeError("a bug"), ValueError("bug")])
def test_what_does_not_help_is_not_tried_for_ever(error, caplog):
    frames, masks = clip(3)
    made = inpainter(batch=4)
    calls = []

    def fail(*_):
        calls.append(1)
        raise error

    made.network.refinement.decoder.register_forward_pre_hook(fail)
    with pytest.raises(type(error), match=str(error)[:5]):
        made.inpaint(frames, masks)
    assert len(calls) == (1 if "bug" in str(error) else len(warnings(caplog)) + 1)


@pytest.mark.parametrize("given_references", [False, True])
def test_every_attempt_is_smaller_than_the_one_before(given_references, caplog):
    frames, masks = clip(12, height=16, width=16)
    made = inpainter(batch=1)
    options = {"references": given(frames, masks, made.plan.spread(12))} if given_references else {}

    def many_references(_, inputs):
        if len(inputs[1]) > 3:
            raise out_of_memory("cuda")

    made.network.refinement.attention.register_forward_pre_hook(many_references)
    result = run(made, frames, masks, **options)
    assert np.array_equal(result[~masks], frames[~masks])
    # Scores by quarters from 128 MiB to 1, then references from 4 to 2 to 1.
    assert 4 < len(warnings(caplog)) <= 4 + 2


def test_too_many_references_for_the_memory_are_thinned_evenly(monkeypatch):
    seen = []

    class Watched(stream.Stream):
        def _attend(self, target, references):
            seen.append(references)
            assert len(self.bank.frames) <= 4 + 2
            return super()._attend(target, references)

    monkeypatch.setattr("cssta.completion.Stream", Watched)
    monkeypatch.setattr(stream, "plan", lambda *_: Limits(1, 4, 8, 2**20))
    frames, masks = clip(100, height=4, width=4)
    made = inpainter(plan=ReferencePlan(near=()))
    references = iter(given(frames, masks, range(0, 100, 5)))
    run(made, frames[:1], masks[:1], references=references, start=1000)
    assert seen == [[0, 40, 80]]


BAD = np.zeros((8, 9, 3), np.uint8), np.ones((8, 9), bool)


@pytest.mark.parametrize(
    "second, message",
    [
        ((BAD[0].astype(np.float32), BAD[1]), "frame 6 must be .* not float32"),
        ((BAD[0].astype(np.uint16), BAD[1]), "frame 6 is uint16"),
        ((BAD[0][:4], BAD[1][:4]), r"frame 6 is uint8 \(4, 9, 3\)"),
        ((BAD[0][..., 0], BAD[1]), r"frame 6 must be \(H, W, 3\)"),
        ((BAD[0], BAD[1].astype(np.uint8)), "mask of frame 6 must be a bool"),
        ((BAD[0], BAD[1].T), r"mask of frame 6 must be \(8, 9\)"),
    ],
)
def test_wrong_frames_are_told_by_number(second, message):
    with pytest.raises(ValueError, match=message):
        list(inpainter().stream([BAD, second], start=5))


@pytest.mark.parametrize("region, message", [((0, 4, 0, 9), "outside"), ((0, 9, 0, 9), "8x9")])
def test_wrong_regions_are_told(region, message):
    with pytest.raises(ValueError, match=message):
        list(inpainter().stream([BAD], region=region))


def test_memory_is_asked_for_what_fits(monkeypatch):
    monkeypatch.setattr(planner, "free_memory", lambda device: 2**20)
    frames, masks = clip(6)
    expected = inpainter().inpaint(frames, masks).astype(int)
    made = inpainter()
    made.batch = None
    assert np.abs(made.inpaint(frames, masks) - expected).max() <= 1
