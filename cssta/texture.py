"""Texture for what no frame sees, after the networks: sharp, and held still from frame to frame.

Networks trained for small errors paint what they cannot know as a blur. Here that blur only says
what belongs where: over it go patches of the same frame, found from coarse to fine. The next frame
takes over the shifts along optical flow, and so shows the same texture, moving with the scene,
from pixels of its own.

Shapes: H and W frame size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cssta.exemplar import RADIUS, SIDE, Exemplar, spread
from cssta.propagation import flow_between, smooth
from cssta.tracing import sample


@dataclass(frozen=True)
class Texture:
    """How much is searched.

    Attributes:
        coarse: hole pixels below which an image, halved again and again, is searched as a whole.
        fine: hole pixels above which shifts are not refined, only scaled up.
        trust: weight of the networks' blur in each of the first searches.
        gain: a shift from the frame before gives way only to one of less than so much of its cost.
        tone: what is wider than about so many pixels has the networks' colour, which is good near
            the hole's border: down to the first of `depths`, in pixels, and beyond the last no
            longer.
        flow_side: flow is estimated on frames scaled so that the longer side has at most as many
            pixels.
    """

    coarse: int = 300
    fine: int = 12000
    trust: tuple[float, ...] = (0.1, 0.3, 1.0, 1.0, 1.0, 1.0)
    gain: float = 0.7
    tone: float = 4.0
    depths: tuple[float, float] = (6.0, 20.0)
    flow_side: int = 640


class TexturePainter:
    """Paints one frame after the other of a scene.

    `path`: where an earlier painter was saved, whose work this one goes on with.
    """

    def __init__(self, settings: Texture, path: Path | None = None) -> None:
        self.settings = settings
        self.number = -1  # of the last frame
        self.before: _Painted | None = None
        if path is not None:
            self._load(path)

    def save(self, path: Path) -> None:
        """Keep in a file what the next frames need to know."""
        before = {} if self.before is None else vars(self.before)
        with path.open("wb") as file:
            np.savez(file, number=self.number, **before)

    def _load(self, path: Path) -> None:
        with np.load(path) as kept:
            self.number = int(kept["number"])
            if "frame" in kept:
                self.before = _Painted(**{name: kept[name] for name in kept if name != "number"})

    def paint(self, frame: np.ndarray, unseen: np.ndarray, number: int = 0) -> np.ndarray:
        """The frame with texture where `unseen`.

        Args:
            frame: uint8 or uint16 (H, W, 3), the networks' result in its hole.
            unseen: bool (H, W), what to paint; the rest is a source and stays as it is.
            number: of the frame, for the dice. One that has been painted already is left as it is.
        """
        if number <= self.number:
            return frame
        self.number = number
        if not unseen.any():
            self.before = None
            return frame
        unit = np.float32(1 if frame.dtype == np.uint8 else 257)
        image = frame / unit
        levels = self._pyramid(image, unseen)
        if not levels[-1].has_sources:
            self.before = None
            return frame
        rng = np.random.default_rng(number)
        fine = next(i for i, level in enumerate(levels) if self._is_fine(i, level, len(levels)))
        if self.before is not None:
            shifts, fresh = self._carried(frame, unseen, levels[fine])
            fresh |= np.isinf(levels[fine].cost(shifts))
            if fresh.any():
                shifts[fresh] = levels[fine].search(self.settings.trust[0], fresh)
            levels[fine].paint(shifts)
            shifts = levels[fine].improve(
                shifts, rng, rounds=1, radius=RADIUS + 1, gain=self.settings.gain
            )
            levels[fine].paint(shifts, levels[fine].cost(shifts))
        else:
            shifts = self._sought(levels, fine, rng)
        self.before = _Painted(frame, unseen, levels[fine].touches, shifts)
        for finer in range(fine - 1, -1, -1):
            shifts = _enlarged(levels[finer + 1], shifts, levels[finer])
            levels[finer].paint(shifts, alike=True)
        painted = levels[0].image + _seam(levels[0], shifts, image)
        painted += self._tone(image - painted, unseen)
        painted = np.clip(np.rint(painted * unit), 0, np.iinfo(frame.dtype).max)
        return np.where(unseen[..., None], painted.astype(frame.dtype), frame)

    def _tone(self, change: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        """The soft part of `change` (H, W, 3) from texture to the networks' result, by depth."""
        inside = unseen.astype(np.float32)
        soft = cv2.GaussianBlur(change * inside[..., None], (0, 0), self.settings.tone)
        soft /= np.maximum(cv2.GaussianBlur(inside, (0, 0), self.settings.tone), 1e-3)[..., None]
        depth = cv2.distanceTransform(unseen.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        first, last = self.settings.depths
        return soft * (inside * np.clip((last - depth) / (last - first), 0, 1))[..., None]

    def _pyramid(self, image: np.ndarray, hole: np.ndarray) -> list[Exemplar]:
        levels = [Exemplar(image, hole)]
        while (
            np.count_nonzero(levels[-1].hole) > self.settings.coarse
            and min(levels[-1].hole.shape) > 4 * SIDE
        ):
            smaller = Exemplar(*_halved(levels[-1].image, levels[-1].hole))
            if not smaller.has_sources:
                break
            levels.append(smaller)
        return levels

    def _is_fine(self, number: int, level: Exemplar, levels: int) -> bool:
        return np.count_nonzero(level.hole) <= self.settings.fine or number == levels - 1

    def _sought(self, levels: list[Exemplar], fine: int, rng: np.random.Generator) -> np.ndarray:
        """Shifts at level `fine`, from nothing."""
        level = levels[-1]
        for trust in self.settings.trust:
            shifts = level.search(trust)
            level.paint(shifts, level.cost(shifts))
        for number in range(len(levels) - 2, fine - 1, -1):
            coarser, level = level, levels[number]
            shifts = _enlarged(coarser, shifts, level)
            level.paint(shifts)
            for _ in range(4):
                shifts = level.improve(shifts, rng, rounds=2, radius=max(level.hole.shape) / 2)
                level.paint(shifts, level.cost(shifts))
        return shifts

    def _carried(
        self, frame: np.ndarray, unseen: np.ndarray, level: Exemplar
    ) -> tuple[np.ndarray, np.ndarray]:
        """The shifts of the frame before, brought along by flow; bool (n,), which had none."""
        before = self.before
        guessed = unseen | before.unseen
        flow = flow_between(frame, before.frame, guessed, self.settings.flow_side)
        height, width = level.hole.shape
        scale = np.float32([flow.shape[1] / width, flow.shape[0] / height])
        centres = np.stack([level.x, level.y], 1) + np.float32(0.5)
        moved = centres + sample(flow, *(centres * scale - 0.5).T) / scale
        # (The levels are of other sizes where the hole has outgrown its bounds.)
        earlier = before.touches.shape
        x = np.floor(moved[:, 0] * (earlier[1] / width)).astype(int).clip(0, earlier[1] - 1)
        y = np.floor(moved[:, 1] * (earlier[0] / height)).astype(int).clip(0, earlier[0] - 1)
        field = spread(before.shifts, before.touches)[y, x]
        shifts = np.rint(field * (height / earlier[0])).astype(np.int32)
        return shifts, ~before.touches[y, x]


@dataclass(frozen=True)
class _Painted:
    """What the next frame needs to know of this one: before it was painted, and the shifts of the
    patches of the level at which they were found."""

    frame: np.ndarray
    unseen: np.ndarray
    touches: np.ndarray
    shifts: np.ndarray


def _halved(image: np.ndarray, hole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image and hole at half the size; a pixel is hole where any of its four is."""
    height, width = hole.shape[0] // 2, hole.shape[1] // 2
    image, hole = image[: height * 2, : width * 2], hole[: height * 2, : width * 2]
    smaller = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return smaller, hole.reshape(height, 2, width, 2).any(axis=(1, 3))


def _enlarged(coarser: Exemplar, shifts: np.ndarray, finer: Exemplar) -> np.ndarray:
    """Shifts of one level at the next, of twice its size or a pixel more."""
    y = (finer.y // 2).clip(0, coarser.hole.shape[0] - 1)
    x = (finer.x // 2).clip(0, coarser.hole.shape[1] - 1)
    return spread(shifts, coarser.touches)[y, x] * 2


def _seam(level: Exemplar, shifts: np.ndarray, image: np.ndarray) -> np.ndarray:
    """What takes the step out of the hole's border: copies of the ring beside it are known to be
    wrong by so much, and that is diffused inwards. Float32 (H, W, 3)."""
    ring = level.touches & ~level.hole
    y, x = ring.nonzero()
    field = level.field(shifts)[y, x]
    from_y, from_x = y + field[:, 0], x + field[:, 1]
    height, width = level.hole.shape
    inside = (from_y >= 0) & (from_y < height) & (from_x >= 0) & (from_x < width)
    inside[inside] = ~level.hole[from_y[inside], from_x[inside]]
    y, x, from_y, from_x = (part[inside] for part in (y, x, from_y, from_x))
    error = np.zeros(image.shape, np.float32)
    if not len(y):
        return error
    error[y, x] = image[y, x] - image[from_y, from_x]
    unknown = np.ones(level.hole.shape, bool)
    unknown[y, x] = False
    return smooth(error, unknown)
