"""Small data sets in the layouts that the readers know."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

SIZE = (48, 64)


def panning(frames: int, shift: int = 2, seed: int = 0) -> np.ndarray:
    """A textured scene that a camera pans over by whole pixels: uint8 (T, 48, 64, 3)."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(0, 256, (SIZE[0], SIZE[1] + shift * frames, 3), np.uint8)
    wide = cv2.GaussianBlur(wide, (0, 0), 1.5)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([wide[:, shift * t : shift * t + SIZE[1]] for t in range(frames)])


def write_pictures(folder: Path, frames: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        picture = frame[..., ::-1] if frame.ndim == 3 else frame
        assert cv2.imwrite(str(folder / f"{index:05d}.png"), np.ascontiguousarray(picture))


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Sequences a, b and c in DAVIS' layout, 5, 4 and 3 frames; labels 1 and 2 as grey values."""
    root = tmp_path / "davis"
    for number, name in enumerate("abc"):
        frames = panning(5 - number, seed=number)
        write_pictures(root / "JPEGImages" / "480p" / name, frames)
        labels = np.zeros(frames.shape[:3], np.uint8)
        for t in range(len(frames)):
            labels[t, 10 : 20 + 4 * number, 10 + t : 20 + t] = 1
            labels[t, 30:34, 40:44] = 2
        write_pictures(root / "Annotations" / "480p" / name, labels)
    return root
