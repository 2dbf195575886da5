from __future__ import annotations

import itertools
import threading
import time
from contextlib import closing

import numpy as np
import pytest
import torch

from cssta import Inpainter
from cssta.checkpoint import Model
from cssta.completion import crop
from cssta.config import ModelConfig
from cssta.inpainting import InpaintingNetwork
from cssta.propagation import Propagation
from cssta.texture import Texture, TexturePainter

CONFIG = ModelConfig(width=6, coarse_width=4, dilations=(2,))
PROPAGATION = Propagation(reach=3, passes=2)


@pytest.fixture(scope="module")
def inpainter() -> Inpainter:
    torch.manual_seed(0)
    model = Model(CONFIG, InpaintingNetwork(CONFIG).eval())
    return Inpainter(model, torch.device("cpu"), propagation=PROPAGATION)


def clip(frames: int = 16, height: int = 40, width: int = 56):
    """A still picture behind a wandering hole, and a corner that is never seen."""
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    video = np.repeat(still.repeat(4, 0).repeat(4, 1)[None], frames, axis=0)
    masks = np.zeros(video.shape[:3], bool)
    for t in range(frames):
        masks[t, 8:20, 6 + 3 * t : 12 + 3 * t] = True
    masks[:, 28:, :14] = True
    return video, masks


def test_what_others_see_is_theirs_and_only_the_rest_is_the_networks(inpainter):
    frames, masks = clip()
    result = inpainter.inpaint(np.where(masks[..., None], np.uint8(0), frames), masks)
    np.testing.assert_array_equal(result[~masks], frames[~masks])
    seen = masks.copy()
    seen[:, 26:, :16] = False
    error = np.abs(result.astype(int) - frames)
    assert error[seen].mean() < 3
    assert error[:, 30:, :12].mean() > 10  # an untrained network's


def test_the_network_is_not_asked_where_nothing_is_left(inpainter, monkeypatch):
    frames, masks = clip()
    masks[:, 28:] = False
    calls = []
    handle = inpainter.network.coarse.register_forward_pre_hook(lambda *_: calls.append(1))
    inpainter.inpaint(frames, masks)
    handle.remove()
    assert not calls


def test_streams_and_clips_agree(inpainter):
    frames, masks = clip()
    references = [(i, frames[i], masks[i]) for i in inpainter.plan.spread(len(frames))]
    streamed = inpainter.stream(zip(frames, masks, strict=True), references=references)
    np.testing.assert_array_equal(np.stack(list(streamed)), inpainter.inpaint(frames, masks))


def test_a_part_with_what_leads_to_it_comes_out_as_in_the_whole(inpainter):
    frames, masks = clip(24)
    references = [(i, frames[i], masks[i]) for i in inpainter.plan.spread(len(frames))]
    whole = list(inpainter.stream(zip(frames, masks, strict=True), references=references))
    start, stop, around, near = 10, 13, inpainter.lookahead, max(inpainter.plan.near)
    part = inpainter.stream(
        zip(frames[start - around : stop + around], masks[start - around :], strict=False),
        references=references,
        start=start - around,
        lead=around - near,
    )
    for index in range(start - near, stop):
        frame = next(part)
        if index >= start:  # those before lack references of their own
            np.testing.assert_array_equal(frame, whole[index])


@pytest.fixture
def reading_ahead(inpainter):
    inpainter.read_ahead = 2
    yield inpainter
    inpainter.read_ahead = 0


def others() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_reading_ahead_changes_nothing_and_is_bounded(inpainter, reading_ahead):
    frames, masks = clip(30)
    masks[:, 28:] = False  # what is left is seen: the networks wait for nothing
    read, from_threads = [], set()

    def pairs():
        for number, pair in enumerate(zip(frames, masks, strict=True)):
            read.append(number)
            from_threads.add(threading.get_ident())
            yield pair

    results = []
    for result in reading_ahead.stream(pairs()):
        results.append(result)
        if len(results) == 1:
            time.sleep(0.5)  # time enough to read too much
        # Two wait, one is offered, and one is being made.
        assert len(read) <= len(results) + PROPAGATION.latency + 2 + 1 + 1
    assert len(results) == 30 and len(from_threads) == 2, "the first is looked at before"
    assert not others()
    inpainter.read_ahead = 0
    taking_turns = inpainter.stream(zip(frames, masks, strict=True))
    np.testing.assert_array_equal(np.stack(results), np.stack(list(taking_turns)))


def test_an_error_of_the_source_arrives_from_the_thread(reading_ahead):
    frames, masks = clip()

    def pairs():
        yield from zip(frames[:8], masks[:8], strict=True)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(reading_ahead.stream(pairs()))
    assert not others()


def test_who_stops_early_ends_the_thread_and_the_source(reading_ahead):
    frames, masks = clip()
    closed = []

    def pairs():
        try:
            for number in itertools.count():
                yield frames[number % 16], masks[number % 16]
        finally:
            closed.append(True)

    with closing(reading_ahead.stream(pairs())) as results:
        next(results)
        assert others()
    assert closed and not others()


def test_on_a_cpu_propagation_takes_turns(inpainter):
    assert inpainter.read_ahead == 0


def test_a_crop_keeps_no_whole_frame():
    frames, masks = clip(1)
    masks[..., 48:] = False
    for part, whole in zip(
        crop(0, frames[0], masks[0], (0, 40, 0, 48)), (frames, masks), strict=True
    ):
        np.testing.assert_array_equal(part, whole[0, :, :48])
        assert part.base is None


def test_a_crop_is_completed_alone(inpainter):
    frames, masks = clip()
    region = (0, 40, 0, 48)
    masks[..., 48:] = False
    streamed = inpainter.stream(zip(frames, masks, strict=True), references=(), region=region)
    alone = inpainter.stream(zip(frames[:, :, :48], masks[:, :, :48], strict=True), references=())
    for frame, (whole, part) in zip(frames, zip(streamed, alone, strict=True), strict=True):
        np.testing.assert_array_equal(whole[:, :48], part)
        np.testing.assert_array_equal(whole[:, 48:], frame[:, 48:])


def test_nothing_comes_of_nothing(inpainter):
    assert list(inpainter.stream([])) == []
    frames, masks = clip(2)
    assert list(inpainter.stream(zip(frames, masks, strict=True), lead=5)) == []


def test_texture_is_laid_only_where_nobody_sees(inpainter):
    frames, masks = clip()
    given = np.where(masks[..., None], np.uint8(0), frames)
    plain = inpainter.inpaint(given, masks)
    inpainter.texture = Texture()
    try:
        result = inpainter.inpaint(given, masks)
    finally:
        inpainter.texture = None
    painter = TexturePainter(Texture())
    left = PROPAGATION.run(zip(given, masks, strict=True))
    for number, (_, unseen) in enumerate(left):
        assert unseen.any() and (masks[number] & ~unseen).any()
        expected = painter.paint(plain[number], unseen, number)
        np.testing.assert_array_equal(result[number], expected)
        assert (result[number] != plain[number]).any()
