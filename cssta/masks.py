"""Hole masks for training and evaluation: free-form ones (Sec. 3.1) and other videos' objects.

A mask sequence is bool (T, H, W), True = hole. Everything is drawn from the generator that is
passed in, so the same seed gives the same masks.

Free-form holes live on a torus: what drifts over one border comes in at the opposite one. Every
pixel is then equally likely to be a hole, at any aspect, and the hole keeps its size as it drifts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

STILL_SHARE = 0.5  # of the clips keep one mask for all frames, as a scratch or watermark does
CALIBRATION_SIDE = 512  # hole sizes are fitted on frames of at most this long side
CALIBRATION_FRAMES = 3
CALIBRATION_STEPS = 8
SUBPIXEL_BITS = 4  # cv2 takes fixed-point coordinates: shapes drift by fractions of a pixel
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@dataclass(frozen=True)
class Shape:
    """A drifting stroke or blob of V vertices. Lengths are in units of the frame's short side.

    `centres` (T, 2) and `outline` (T, V, 2, relative to the centre) are (x, y); `widths` (V - 1,)
    are a stroke's segment widths, None for a blob.
    """

    centres: np.ndarray
    outline: np.ndarray
    widths: np.ndarray | None


def freeform_masks(
    rng: np.random.Generator,
    frames: int,
    height: int,
    width: int,
    *,
    ratio: tuple[float, float] = (0.05, 0.35),
    moving: bool | None = None,
) -> np.ndarray:
    """Strokes and blobs that drift and deform: bool (frames, height, width).

    The clip's mean hole share is drawn uniformly from `ratio` = (low, high), 0 < low <= high < 1,
    and met to about 0.01 on frames of 64 pixels or more. `moving`: False repeats one mask, None
    does so for about half of the clips. Raises ValueError for an impossible size or ratio.
    """
    low, high = ratio
    if min(frames, height, width) < 1:
        raise ValueError(f"a mask of {frames} frames, {height}x{width}, has no pixels")
    if not 0 < low <= high < 1:
        raise ValueError(f"ratio must be (low, high) with 0 < low <= high < 1, not {ratio}")
    if moving is None:
        moving = bool(rng.random() >= STILL_SHARE)
    target = float(rng.uniform(low, high))
    drawn = frames if moving else 1
    shapes = draw_shapes(rng, drawn, width / min(height, width), height / min(height, width))
    size = fit_size(shapes, target, drawn, height, width)
    masks = np.empty((drawn, height, width), bool)  # (a list to be stacked would take twice that)
    for frame in range(drawn):
        masks[frame] = rasterise(shapes, frame, size, height, width)
    return masks if moving else np.repeat(masks, frames, axis=0)


def shuffled_object_masks(
    rng: np.random.Generator,
    source: np.ndarray,
    frames: int,
    height: int,
    width: int,
    *,
    grow: int = 2,
) -> np.ndarray:
    """Another video's object laid over this one: bool (frames, height, width).

    `source`: that object's mask sequence, bool (S, h, w). It is scaled to the frame (nearest),
    mirrored for half of the clips, dilated by `grow` pixels, and played from a random frame in
    which the object is seen, back and forth when it ends. Raises ValueError for a `source` that
    has no object in any frame.
    """
    source = np.asarray(source)
    if source.ndim != 3:
        raise ValueError(f"source must be (S, h, w), not of shape {source.shape}")
    seen = np.flatnonzero(source.any(axis=(1, 2)))
    if seen.size == 0:
        raise ValueError("the source masks have no object in any frame: choose another sequence")
    start, mirrored = int(rng.choice(seen)), bool(rng.random() < 0.5)
    period = max(1, 2 * (len(source) - 1))
    order = (start + np.arange(frames)) % period
    order = np.where(order < len(source), order, period - order)
    masks = np.empty((frames, height, width), bool)
    for row, index in enumerate(order):
        picture = source[index].astype(np.uint8)
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
        masks[row] = picture[:, ::-1] if mirrored else picture
    return dilate(masks, grow)


def dilate(masks: np.ndarray, pixels: int) -> np.ndarray:
    """Grow the holes of bool (T, H, W) by `pixels` steps of a 3x3 cross, as the field does.

    A hole grows by `pixels` along rows and columns, less along diagonals. Raises ValueError for a
    negative number.
    """
    if pixels < 0:
        raise ValueError(f"masks can only be grown by 0 pixels or more, not by {pixels}")
    if pixels == 0:
        return np.array(masks, bool)
    grown = [cv2.dilate(mask.astype(np.uint8), CROSS, iterations=pixels) for mask in masks]
    return np.stack(grown).astype(bool) if grown else np.array(masks, bool)


def draw_shapes(
    rng: np.random.Generator, frames: int, x_extent: float, y_extent: float
) -> list[Shape]:
    """Two to six strokes and blobs, centred anywhere in (x_extent, y_extent) short sides."""
    shapes = []
    for _ in range(int(rng.integers(2, 7))):
        if rng.random() < 0.5:
            points, widths = draw_stroke(rng)
        else:
            points, widths = draw_blob(rng), None
        start = rng.uniform(0, (x_extent, y_extent))
        outline = deform(rng, points, frames)
        if widths is None:
            outline = round_corners(round_corners(outline))
        shapes.append(Shape(start + drift(rng, frames), outline, widths))
    return shapes


def draw_stroke(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A brush whose head walks at random: vertices (V, 2) around 0 and segment widths (V - 1,)."""
    steps = int(rng.integers(4, 11))
    angles = rng.uniform(0, 2 * math.pi) + np.cumsum(rng.normal(0, 0.7, steps))
    lengths = rng.uniform(0.04, 0.14, steps)
    points = np.cumsum(lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), axis=0)
    points = np.concatenate([np.zeros((1, 2)), points])
    widths = rng.uniform(0.04, 0.14) * np.exp(np.cumsum(rng.normal(0, 0.15, steps)))
    return points - points.mean(axis=0), widths


def draw_blob(rng: np.random.Generator) -> np.ndarray:
    """The corners (V, 2) of a closed outline around 0."""
    corners = int(rng.integers(6, 12))
    angles = 2 * math.pi * (np.arange(corners) + rng.uniform(-0.3, 0.3, corners)) / corners
    radii = rng.uniform(0.06, 0.2) * rng.uniform(0.6, 1.3, corners)
    points = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    points[:, 1] *= rng.uniform(0.4, 1.0)
    return points @ rotation(rng.uniform(0, 2 * math.pi))


def round_corners(outline: np.ndarray) -> np.ndarray:
    """Chaikin's corner cutting of closed outlines: (T, V, 2) to (T, 2 V, 2)."""
    after = np.roll(outline, -1, axis=1)
    cut = np.stack([0.75 * outline + 0.25 * after, 0.25 * outline + 0.75 * after], axis=2)
    return cut.reshape(len(outline), -1, 2)


def drift(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Path (T, 2) from 0 of a shape with its own speed and heading, which wander."""
    heading = rng.uniform(0, 2 * math.pi)
    velocity = rng.uniform(0, 0.04) * np.array([math.cos(heading), math.sin(heading)])
    wander = np.cumsum(rng.normal(0, 0.003, (frames, 2)), axis=0)
    return np.cumsum(velocity + wander, axis=0) - velocity - wander[0]


def deform(rng: np.random.Generator, points: np.ndarray, frames: int) -> np.ndarray:
    """The outline (V, 2) turning slowly, every vertex jittering on its own: (T, V, 2)."""
    extent = float(np.abs(points).max())
    jitter = np.empty((frames, *points.shape))
    offset = np.zeros(points.shape)
    for frame in range(frames):
        jitter[frame] = offset  # correlated in time: the outline breathes rather than buzzes
        offset = 0.9 * offset + rng.normal(0, 0.05 * extent, points.shape)
    spin = rng.normal(0, 0.03)
    turned = np.stack([points @ rotation(spin * frame) for frame in range(frames)])
    return turned + jitter


def rotation(angle: float) -> np.ndarray:
    """Matrix that turns row vectors (V, 2) by `angle` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def fit_size(shapes: list[Shape], target: float, frames: int, height: int, width: int) -> float:
    """The factor on the shapes' sizes at which they cover `target` of the frame on average."""
    shrink = min(1.0, CALIBRATION_SIDE / max(height, width))
    height, width = max(1, round(height * shrink)), max(1, round(width * shrink))
    samples = np.unique(np.linspace(0, frames - 1, CALIBRATION_FRAMES).round().astype(int))
    size, best, least = 1.0, 1.0, math.inf
    for _ in range(CALIBRATION_STEPS):
        covered = np.mean([rasterise(shapes, t, size, height, width).mean() for t in samples])
        if abs(covered - target) < least:
            best, least = size, abs(covered - target)
        if least < 0.02 * target:
            break
        # Shapes of area a thrown at random leave exp(-a) uncovered, and area goes as size squared.
        covered = min(float(covered), 1 - 1e-3)
        size *= math.sqrt(math.log1p(-target) / math.log1p(-covered))
    return best


def rasterise(shapes: list[Shape], frame: int, size: float, height: int, width: int) -> np.ndarray:
    """One frame of the shapes, scaled by `size` about their centres: bool (height, width)."""
    canvas = np.zeros((height, width), np.uint8)
    short = min(height, width)
    for shape in shapes:
        points = short * (shape.centres[frame] + size * shape.outline[frame])
        widths = None if shape.widths is None else short * size * shape.widths
        draw_wrapped(canvas, points, widths)
    return canvas.astype(bool)


def draw_wrapped(canvas: np.ndarray, points: np.ndarray, widths: np.ndarray | None) -> None:
    """Draw a stroke, or a filled blob, and its copies that reach in over the borders."""
    height, width = canvas.shape
    margin = 1.0 if widths is None else float(widths.max()) / 2 + 1
    left, top = np.floor((points.min(axis=0) - margin) / (width, height)).astype(int)
    right, bottom = np.floor((points.max(axis=0) + margin) / (width, height)).astype(int)
    unit = 1 << SUBPIXEL_BITS
    for down in range(-bottom, -top + 1):
        for across in range(-right, -left + 1):
            fixed = np.rint((points + np.array([across * width, down * height])) * unit).astype(
                np.int32
            )
            if widths is None:
                cv2.fillPoly(canvas, [fixed], 1, cv2.LINE_8, SUBPIXEL_BITS)
                continue
            vertices = fixed.tolist()
            for start, end, thick in zip(vertices, vertices[1:], widths, strict=False):
                pixels = max(1, round(float(thick)))
                cv2.line(canvas, start, end, 1, pixels, cv2.LINE_8, SUBPIXEL_BITS)
