"""Photographic sample clips, made from photographs that scikit-learn and scikit-image carry.

A camera pans, zooms and rolls a little over one photograph while something cut out of another
moves in front of it. Nothing is downloaded.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cssta.masks import dilate, freeform_masks
from cssta.video import probe, write_frame_folder, write_video

ROOM = 1.35  # how much wider than the view a photograph is, for the camera to move in
NAME = re.compile(r"sample-(\d+)-(\d+)")


class SamplesUnavailable(RuntimeError):
    """The packages that carry the photographs are not installed."""


@dataclass(frozen=True)
class Cutout:
    """Something to cut out of a photograph: a box around it, and ellipses surely inside it.

    All in the photograph's pixels: box (x, y, width, height), ellipses (x, y, radius x, radius y).
    """

    photo: str
    box: tuple[int, int, int, int]
    inside: tuple[tuple[int, int, int, int], ...]


CUTOUTS = {
    "astronaut": Cutout(
        "astronaut",
        (18, 8, 345, 504),
        ((222, 85, 55, 62), (205, 205, 75, 45), (190, 390, 130, 150), (52, 345, 22, 50)),
    ),
    "dahlia": Cutout("flower", (160, 78, 294, 290), ((308, 222, 125, 125),)),
    "coffee": Cutout("coffee", (70, 8, 420, 385), ((278, 230, 185, 140), (295, 110, 100, 85))),
    "shuttle": Cutout("astronaut", (350, 0, 130, 284), ((424, 90, 18, 85), (400, 200, 14, 60))),
}


@dataclass(frozen=True)
class Scene:
    """A background, an object, and how the object moves.

    Attributes:
        height: of the object, as a share of the frame's height.
        start, end: its centre in the first and last frame, as shares of the frame (x, y).
        roll: degrees that it turns on the way.
        shadow: darkness of the shadow that it casts close behind itself, 0 to 1.
    """

    photo: str
    cutout: str
    height: float
    start: tuple[float, float]
    end: tuple[float, float]
    roll: float = 0.0
    shadow: float = 0.0


SCENES = (
    Scene("china", "astronaut", 0.95, (0.16, 0.62), (0.80, 0.60), 2),
    Scene("motorcycle", "shuttle", 0.55, (0.80, 0.62), (0.30, 0.36), -14, 0.25),
    Scene("coffee", "dahlia", 0.46, (0.14, 0.66), (0.82, 0.40), 70, 0.5),
    Scene("rocket", "astronaut", 0.85, (0.84, 0.66), (0.22, 0.64), -3),
    Scene("chelsea", "dahlia", 0.40, (0.86, 0.30), (0.18, 0.62), -60, 0.35),
    Scene("flower", "coffee", 0.52, (0.20, 0.36), (0.78, 0.66), 12, 0.3),
    Scene("china", "shuttle", 0.60, (0.46, 0.75), (0.78, 0.32), 12),
    Scene("motorcycle", "astronaut", 0.90, (0.85, 0.62), (0.25, 0.64), 2, 0.3),
)


def write_samples(
    folder: str | Path,
    count: int = 6,
    seconds: float = 2.0,
    fps: int = 24,
    size: tuple[int, int] = (240, 432),
    seed: int = 0,
) -> list[Path]:
    """Write `count` clips of `size` (height, width) as sample-SEED-00.mp4, ... and return them.

    Clips that are there already are kept. Raises SamplesUnavailable without the photographs.
    """
    frames = max(1, round(seconds * fps))
    paths = []
    for index in range(count):
        path = Path(folder) / f"sample-{seed}-{index:02d}.mp4"
        if not path.exists():
            write_video(path, render(index, seed, frames, size)[0], fps)
        paths.append(path)
    return paths


def write_sample_masks(folder: str | Path, videos: Sequence[Path], seed: int = 0) -> list[Path]:
    """Write a folder of PNG masks for each video, named by its stem, and return the folders.

    Clips of `write_samples` get their moving object (to be removed), other videos drifting
    free-form holes drawn from `seed`. Folders that are there already are kept.
    """
    targets = []
    for number, video in enumerate(map(Path, videos)):
        target = Path(folder) / video.stem
        targets.append(target)
        if target.exists():
            continue
        info = probe(video)
        name = NAME.fullmatch(video.stem)
        if name:
            size = (info.height, info.width)
            masks = dilate(render(int(name[2]), int(name[1]), info.frames, size)[1], 3)
        else:
            rng = np.random.default_rng([seed, number])
            masks = freeform_masks(rng, info.frames, info.height, info.width)
        pictures = (np.repeat(mask[..., None], 3, -1).astype(np.uint8) * 255 for mask in masks)
        write_frame_folder(target, pictures)
    return targets


def render(
    index: int, seed: int, frames: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Clip number `index`: uint8 (T, H, W, 3), and its object's mask, bool (T, H, W)."""
    scene = SCENES[index % len(SCENES)]
    rng = np.random.default_rng([seed, index])
    time = np.linspace(0, 1, frames) if frames > 1 else np.zeros(1)
    background = camera_move(photograph(scene.photo), time, size, rng)
    sprite = _in_the_light_of(background, cut_out(scene.cutout))
    pictures, masks = [], []
    for picture, move in zip(
        background, _object_moves(scene, sprite, time, size, rng), strict=True
    ):
        layer = cv2.warpAffine(sprite, move, size[::-1], flags=cv2.INTER_LINEAR)
        alpha = layer[..., 3:]
        if scene.shadow:
            shift = size[0] / 30
            shade = cv2.warpAffine(
                cv2.GaussianBlur(alpha, (0, 0), shift / 1.5),
                np.array([[1, 0, shift * 0.7], [0, 1, shift]]),
                size[::-1],
            )
            picture = picture * (1 - scene.shadow * shade[..., None])
        mixed = picture * (1 - alpha) + layer[..., :3]  # (the sprite is premultiplied)
        pictures.append(np.clip(np.rint(mixed), 0, 255).astype(np.uint8))
        masks.append(alpha[..., 0] > 0.05)
    return np.stack(pictures), np.stack(masks)


@functools.cache
def photograph(name: str) -> np.ndarray:
    """One of the installed photographs, uint8 (H, W, 3) RGB."""
    try:
        from skimage import data
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise SamplesUnavailable(
            f"sample clips need scikit-learn and scikit-image ({error}): pip install 'cssta[demo]'"
        ) from error
    if name in ("china", "flower"):
        return load_sample_image(f"{name}.jpg")
    if name == "motorcycle":
        return data.stereo_motorcycle()[0]
    return getattr(data, name)()


def _glide(time: np.ndarray) -> np.ndarray:
    """From 0 to 1 at a pace that picks up and slows down a little, never standing still."""
    return 0.7 * time + 0.3 * time * time * (3 - 2 * time)


def camera_move(
    photo: np.ndarray, time: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """A view gliding over a photograph, float32 (T, H, W, 3), never leaving it."""
    height, width = size
    scale = ROOM * max(width / photo.shape[1], height / photo.shape[0])
    # Shrinking is done once and well; the warps below then stay close to 1:1 and do not alias.
    shape = (round(photo.shape[1] * scale), round(photo.shape[0] * scale))
    photo = cv2.resize(photo, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)

    towards = rng.uniform(0.55, 0.9, 2) * rng.choice([-1, 1], 2)
    shake = np.sin(2 * np.pi * (np.outer(time, [1.3, 1.7]) + rng.random(2))) * 0.04
    path = (2 * _glide(time)[:, None] - 1) * towards + shake  # (T, 2) within -1 .. 1
    zoom = 1.0 + rng.uniform(0.04, 0.16) * (
        _glide(time) if rng.random() < 0.5 else 1 - _glide(time)
    )
    angle = np.radians(rng.uniform(0.5, 1.5)) * np.sin(np.pi * (1.2 * time + rng.random()))

    half = np.array([width, height]) / 2
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    reach = np.stack([half[0] * cos + half[1] * abs(sin), half[1] * cos + half[0] * abs(sin)], 1)
    free = np.maximum(np.array(shape) / 2 - reach.max(0) - 1, 0)
    centre = np.array(shape) / 2 + path * free

    views = np.empty((len(time), height, width, 3), np.float32)
    for view, c, s, (x, y) in zip(views, cos, sin, centre, strict=True):
        to_photo = np.array(
            [
                [c, -s, x - c * half[0] + s * half[1]],
                [s, c, y - s * half[0] - c * half[1]],
            ]
        )
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        view[:] = cv2.warpAffine(photo, to_photo, (width, height), flags=flags, borderMode=2)
    return views


@functools.cache
def cut_out(name: str) -> np.ndarray:
    """An object with a soft edge: float32 (h, w, 4), RGB premultiplied with alpha in 0 .. 1."""
    cutout = CUTOUTS[name]
    photo = np.array(photograph(cutout.photo))
    x, y, width, height = cutout.box
    labels = np.full(photo.shape[:2], cv2.GC_BGD, np.uint8)
    labels[y : y + height, x : x + width] = cv2.GC_PR_BGD
    for ex, ey, rx, ry in cutout.inside:
        cv2.ellipse(labels, (ex, ey), (rx, ry), 0, 0, 360, cv2.GC_FGD, -1)
    cv2.setRNGSeed(0)  # GrabCut clusters colours by k-means
    cv2.grabCut(photo, labels, None, np.zeros((1, 65)), np.zeros((1, 65)), 6, cv2.GC_INIT_WITH_MASK)
    solid = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    solid = cv2.morphologyEx(solid, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    outlines, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    whole = cv2.drawContours(
        np.zeros_like(solid), [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED
    )
    # One pixel in, so that no rim of the old background comes along.
    alpha = cv2.GaussianBlur(cv2.erode(whole, np.ones((3, 3))).astype(np.float32), (0, 0), 1.0)
    sprite = np.dstack([photo * alpha[..., None], alpha]).astype(np.float32)
    return sprite[y : y + height, x : x + width]


def _in_the_light_of(background: np.ndarray, sprite: np.ndarray) -> np.ndarray:
    """Shift the object's brightness some way, and its tint a little, towards the background's."""
    own = sprite[..., :3].sum((0, 1)) / sprite[..., 3].sum()
    there = background[0].mean((0, 1))
    gain = (there.mean() / own.mean()) ** 0.2 * (there / own) ** 0.06
    return np.concatenate([np.clip(sprite[..., :3] * gain, 0, 255), sprite[..., 3:]], -1)


def _object_moves(
    scene: Scene,
    sprite: np.ndarray,
    time: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> list[np.ndarray]:
    """The 2x3 matrices that put the sprite into each frame."""
    height, width = size
    zoom = scene.height * height / sprite.shape[0] * (1 + 0.08 * np.sin(2.2 * time + rng.random()))
    way = np.outer(1 - _glide(time), scene.start) + np.outer(_glide(time), scene.end)
    way[:, 1] += 0.012 * np.sin(2 * np.pi * (2 * time + rng.random()))  # a slight bob
    moves = []
    for scale, turn, (x, y) in zip(zoom, scene.roll * (time - 0.5), way, strict=True):
        centre = (sprite.shape[1] / 2, sprite.shape[0] / 2)
        move = cv2.getRotationMatrix2D(centre, turn, scale)
        move[:, 2] += x * width - centre[0], y * height - centre[1]
        moves.append(move)
    return moves
