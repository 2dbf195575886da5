"""Clips decoded once into one file of uint8 frames, where decoding would starve a GPU.

    frames.bin   every clip's frames one after another, uint8 (T, h, w, 3)
    index.json   name, group, offset and shape of each clip

Shapes: B clips of a batch, T frames of a clip, H and W training size.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from cssta.masks import freeform_masks


@dataclass(frozen=True)
class PackedClip:
    """One clip's place in frames.bin; `group` keeps clips of one scene on one side of a split."""

    name: str
    group: str
    offset: int
    frames: int
    height: int
    width: int


def pack(folder: Path, clips: Iterable[tuple[str, str, np.ndarray]]) -> int:
    """Write (name, group, frames uint8 (T, h, w, 3)) one by one; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    index: list[PackedClip] = []
    offset = 0
    with open(folder / "frames.bin", "wb") as file:
        for name, group, frames in clips:
            index.append(PackedClip(name, group, offset, *frames.shape[:3]))
            file.write(np.ascontiguousarray(frames).tobytes())
            offset += frames.size
    (folder / "index.json").write_text(json.dumps([asdict(clip) for clip in index]))
    return len(index)


class PackedClips:
    """Random training batches out of a packed folder."""

    def __init__(self, folder: Path) -> None:
        self.clips = [PackedClip(**row) for row in json.loads((folder / "index.json").read_text())]
        self.bytes = np.memmap(folder / "frames.bin", np.uint8, "r")

    def split(self, fraction: float, seed: int = 0) -> tuple[list[PackedClip], list[PackedClip]]:
        """(training, held out), whole groups held out; ValueError if none is left to train on."""
        groups = sorted({clip.group for clip in self.clips})
        np.random.default_rng(seed).shuffle(groups)
        held = set(groups[: max(1, round(fraction * len(groups)))])
        if len(held) == len(groups):
            raise ValueError(
                f"{fraction:g} of {len(groups)} scenes held out leaves none to train on; "
                f"pack clips of two scenes or more, or hold out fewer"
            )
        training = [clip for clip in self.clips if clip.group not in held]
        return training, [clip for clip in self.clips if clip.group in held]

    def frames(self, clip: PackedClip) -> np.ndarray:
        """A view of one clip's frames, uint8 (T, h, w, 3)."""
        size = clip.frames * clip.height * clip.width * 3
        flat = self.bytes[clip.offset : clip.offset + size]
        return flat.reshape(clip.frames, clip.height, clip.width, 3)

    def sample(
        self,
        clip: PackedClip,
        rng: np.random.Generator,
        *,
        frames: int,
        size: int,
        max_stride: int,
        ratio: tuple[float, float],
    ) -> tuple[np.ndarray, np.ndarray]:
        """One training clip: uint8 (T, H, W, 3) and bool (T, H, W), H = W = `size`.

        Frames are a random stride apart; scale, crop and flip are the clip's, never a frame's.
        """
        longest = max(1, min(max_stride, (clip.frames - 1) // max(1, frames - 1)))
        stride = int(rng.integers(1, longest + 1))
        start = int(rng.integers(0, clip.frames - (frames - 1) * stride))
        video = self.frames(clip)[start : start + (frames - 1) * stride + 1 : stride]
        shortest = min(clip.height, clip.width)
        side = round(size * shortest / int(rng.integers(size, max(size, shortest) + 1)))
        top = int(rng.integers(0, clip.height - side + 1))
        left = int(rng.integers(0, clip.width - side + 1))
        video = video[:, top : top + side, left : left + side]
        if rng.random() < 0.5:
            video = video[:, :, ::-1]
        if side != size:
            video = [cv2.resize(f, (size, size), interpolation=cv2.INTER_AREA) for f in video]
        return np.ascontiguousarray(video), freeform_masks(rng, frames, size, size, ratio=ratio)

    def batches(
        self, clips: list[PackedClip], *, batch: int, seed: int, frames: int, **how
    ) -> Iterator[dict[str, np.ndarray]]:
        """Endless batches `{"frames": (B, T, H, W, 3), "masks": (B, T, H, W)}`; see `sample`."""
        rng = np.random.default_rng(seed)
        usable = [clip for clip in clips if clip.frames >= frames]
        if not usable:
            raise ValueError(f"no clip has {frames} frames")
        while True:
            chosen = rng.integers(0, len(usable), batch)
            samples = [self.sample(usable[i], rng, frames=frames, **how) for i in chosen]
            yield {
                "frames": np.stack([video for video, _ in samples]),
                "masks": np.stack([masks for _, masks in samples]),
            }
