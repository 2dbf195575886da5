from __future__ import annotations

import itertools
import re
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cssta.video import Composer, SourceFrame, to_rgb
from cssta.video.container import rotated
from cssta.video.planes import bit_depth, planar, planes
from tests.cssta.media import clip

CHROMA = {"20": (2, 2), "22": (1, 2), "11": (1, 4)}  # rows and columns that share a sample
FORMATS = ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p12le", "yuv411p"]
FORMATS += ["yuv444p10le", "nv12", "p010le", "gray", "gray10le", "gbrp", "gbrp10le", "rgb24"]
FORMATS += ["bgra", "rgb48le", "yuva420p", "yuyv422", "ya8"]


def noise(height: int, width: int, name: str, seed: int = 0) -> av.VideoFrame:
    rng = np.random.default_rng(seed)
    frame = av.VideoFrame(width, height, planar(av.VideoFrame(width, height, name)).format.name)
    for plane in planes(frame):
        plane[:] = rng.integers(0, 2 ** bit_depth(frame.format), plane.shape)
    frame.colorspace, frame.color_range = 1, 1
    return frame if frame.format.name == name else frame.reformat(format=name)


def completed_like(frame: SourceFrame, seed: int = 1) -> np.ndarray:
    pixels = frame.rgb()
    top = np.iinfo(pixels.dtype).max
    return np.random.default_rng(seed).integers(0, top, pixels.shape).astype(pixels.dtype)


@st.composite
def cases(draw):
    height, width = draw(st.integers(1, 19)), draw(st.integers(1, 21))
    rotation = draw(st.sampled_from([0, 90, 180, 270]))
    native = noise(height, width, draw(st.sampled_from(FORMATS)), draw(st.integers(0, 9)))
    upright = (width, height) if rotation % 180 else (height, width)
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits).reshape(upright)
    if draw(st.booleans()):  # a box: noise hardly ever covers a whole chroma sample
        mask = np.zeros(upright, bool)
        top, left = draw(st.integers(0, upright[0])), draw(st.integers(0, upright[1]))
        mask[top : top + draw(st.integers(0, 19)), left : left + draw(st.integers(0, 21))] = True
    return SourceFrame(0, native, rotation), mask, draw(st.integers(0, 5))


def unused(mask: np.ndarray, shape: tuple[int, int], name: str) -> np.ndarray:
    """Which samples of a component no visible pixel uses, pixel by pixel."""
    down = across = 1
    if shape != mask.shape:
        down, across = CHROMA[re.search(r"4(20|22|11|44)", name)[1]]
    free = np.ones(shape, bool)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            free[y // down, x // across] &= mask[y, x]
    return free


@settings(max_examples=60, deadline=None)
@given(cases())
def test_no_sample_that_a_visible_pixel_uses_changes_and_the_others_do(case):
    frame, mask, feather = case
    info = SimpleNamespace(rotation=frame.rotation)
    before = [plane.copy() for plane in planes(planar(frame.native))]
    completed = completed_like(frame)
    merged = Composer(info, feather).merge(frame, completed, mask)
    stored = rotated(mask, -frame.rotation)
    for number, (plane, old) in enumerate(zip(planes(merged), before, strict=True)):
        free = unused(stored, old.shape, merged.format.name)
        is_alpha = merged.format.components[number].is_alpha
        np.testing.assert_array_equal(plane[~free], old[~free])
        if is_alpha:
            np.testing.assert_array_equal(plane, old)
        elif free.sum() > 20 and not feather:
            assert (plane[free] != old[free]).mean() > 0.5
    for plane, old in zip(planes(planar(frame.native)), before, strict=True):
        np.testing.assert_array_equal(plane, old)  # the decoder still needs it
    composite = Composer(info, feather).rgb(frame, completed, mask)[..., :3]
    np.testing.assert_array_equal(composite[~mask], frame.rgb()[~mask])
    if not feather:
        np.testing.assert_array_equal(composite[mask], completed[mask])


@pytest.mark.parametrize(("name", "rotation"), zip(FORMATS, itertools.cycle((0, 90, 180, 270))))
def test_the_hole_shows_the_completed_colours(name, rotation):
    source = clip(1, 48, 64, seed=3)[0]
    native = noise(48, 64, name)
    frame = SourceFrame(0, native, rotation)
    wanted = rotated(source, rotation).astype(frame.rgb().dtype)
    if wanted.dtype == np.uint16:
        wanted = wanted * np.uint16(257)
    if planar(native).format.name.startswith("gray"):
        wanted[:] = wanted.mean(-1, keepdims=True).astype(wanted.dtype)
    mask = np.ones(wanted.shape[:2], bool)
    merged = Composer(SimpleNamespace(rotation=rotation)).merge(frame, wanted, mask)
    shown = rotated(to_rgb(merged), rotation).astype(float)
    unit = np.iinfo(wanted.dtype).max / 255
    halved = any(p.shape != planes(merged)[0].shape for p in planes(merged))
    error = np.abs(shown - wanted) / unit
    assert np.median(error) < 1.01 and (halved or error.max() < 2.1)


def test_feathering_fades_from_the_edge_inwards():
    native = av.VideoFrame(32, 32, "yuv444p")
    for plane in planes(native):
        plane[:] = 128
    frame, mask = SourceFrame(0, native), np.zeros((32, 32), bool)
    mask[4:28, 4:28] = True
    white = np.full((32, 32, 3), 255, np.uint8)
    luma = planes(Composer(SimpleNamespace(rotation=0), 3).merge(frame, white, mask))[0]
    row = luma[16].astype(int)
    assert (np.diff(row[3:8]) > 0).all() and (row[7:25] == row[16]).all()
    assert row[3] == 128 and row[4] < row[5] < row[6] < 235 == row[7]
    sharp = planes(Composer(SimpleNamespace(rotation=0)).merge(frame, white, mask))[0][16]
    assert sharp[3] == 128 and sharp[4] == 235
    # The picture's own border is no edge of the hole.
    mask[:] = True
    assert (
        planes(Composer(SimpleNamespace(rotation=0), 3).merge(frame, white, mask))[0] > 230
    ).all()


def test_a_frame_without_hole_goes_through_as_it_is():
    native = noise(8, 8, "yuv420p10le")
    frame = SourceFrame(0, native)
    composer = Composer(SimpleNamespace(rotation=0), 2)
    assert composer.merge(frame, None, np.ones((8, 8), bool)) is native
    assert composer.merge(frame, completed_like(frame), np.zeros((8, 8), bool)) is native
    np.testing.assert_array_equal(composer.rgb(frame, None, np.ones((8, 8), bool)), frame.rgb())


def test_pictures_keep_their_alpha():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 4)).astype(np.uint8)
    frame, mask = SourceFrame(0, pixels), np.zeros((6, 8), bool)
    mask[2:4] = True
    completed = np.full((6, 8, 3), 7, np.uint8)
    composer = Composer(SimpleNamespace(rotation=0))
    picture = composer.rgb(frame, completed, mask)
    assert (picture[2:4, :, :3] == 7).all()
    np.testing.assert_array_equal(picture[..., 3], pixels[..., 3])
    np.testing.assert_array_equal(picture[~mask], pixels[~mask])
    red, _, _, opacity = planes(composer.merge(frame, completed, mask))
    assert (red[2:4] == 7).all()
    np.testing.assert_array_equal(opacity, pixels[..., 3])


def test_fields_of_interlaced_frames_share_no_chroma_with_a_visible_row():
    options = {"flags": "+ildct+ilme"}
    encoder = av.CodecContext.create("mpeg2video", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.framerate, encoder.options = 25, options
    encoder.time_base = 1 / encoder.framerate
    flat = noise(48, 64, "yuv420p")
    packets = encoder.encode(flat) + encoder.encode(None)
    decoder = av.CodecContext.create("mpeg2video", "r")
    frame = next(f for p in [*packets, None] for f in decoder.decode(p))
    assert frame.interlaced_frame
    mask = np.zeros((48, 64), bool)
    mask[10:24] = True  # rows 10 and 11 are in a group of four whose first two are visible
    source = SourceFrame(0, frame)
    merged = Composer(SimpleNamespace(rotation=0)).merge(source, completed_like(source), mask)
    changed = (planes(merged)[1] != planes(frame)[1]).any(axis=1)
    assert not changed[:6].any() and changed[6:12].all() and not changed[12:].any()
