"""Where evaluation footage comes from: DAVIS' layout, YouTube-VOS', or a plain folder.

DAVIS: `JPEGImages/480p/NAME/*.jpg` and `Annotations/480p/NAME/*.png`; YouTube-VOS the same without
the level of sizes, in `train/`, `valid/` or `test/` where there is one; else each video file and
each folder of pictures in the folder is a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence as Names
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cssta.evaluation.protocols import Protocol, freeform_holes, laid_over, scale_frames
from cssta.video import VideoError, probe, read_frames, read_masks

SIZES = ("480p", "Full-Resolution", "1080p")
PARTS = ("valid", "test", "train")
VIDEOS = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"}
PICTURES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Sequence:
    """A clip by name; `annotations`: a folder of object masks, where the data set has them."""

    name: str
    frames: Path
    annotations: Path | None = None


@dataclass(frozen=True)
class Footage:
    """Sequences in order of name; `layout` is "davis", "youtube-vos" or "folder".

    `donors`: those whose object masks the sequences are given; (): the sequences themselves.
    """

    layout: str
    sequences: tuple[Sequence, ...]
    donors: tuple[Sequence, ...] = ()

    def chosen(self, names: Names[str]) -> Footage:
        """Those of these names only, each with the holes that it has among all of them.

        Raises ValueError for a name that is not there.
        """
        known = {sequence.name: sequence for sequence in self.sequences}
        for name in names:
            if name not in known:
                raise ValueError(f"there is no sequence {name!r}; there are: {', '.join(known)}")
        chosen = tuple(known[name] for name in sorted(set(names)))
        return Footage(self.layout, chosen, self.donors or self.sequences)


def find_sequences(folder: str | Path) -> Footage:
    """The sequences of a data set. Raises VideoError where there is none."""
    folder = Path(folder)
    for root in (folder, *(folder / part for part in PARTS)):
        for size in ("", *SIZES):
            pictures = root / "JPEGImages" / size
            found = _clips(pictures)
            if found:
                masks = root / "Annotations" / size
                layout = "davis" if size else "youtube-vos"
                return Footage(layout, tuple(_sequence(clip, masks) for clip in found))
    found = _clips(folder)
    if not found:
        raise VideoError(
            folder,
            "no-sequences",
            "holds no sequences: neither JPEGImages/ nor videos nor folders of pictures",
            "Name the folder that holds them",
        )
    return Footage("folder", tuple(_sequence(clip, folder / "none") for clip in found))


def _clips(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _is_clip(path))


def _is_clip(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    if path.is_dir():
        return any(file.suffix.lower() in PICTURES for file in path.iterdir())
    return path.suffix.lower() in VIDEOS


def _sequence(clip: Path, masks: Path) -> Sequence:
    name = clip.name if clip.is_dir() else clip.stem
    return Sequence(name, clip, masks / name if (masks / name).is_dir() else None)


def read_sequence(sequence: Sequence, protocol: Protocol, longest: int | None) -> np.ndarray:
    """The first `longest` frames (None: all), uint8 (T, H, W, 3) of the protocol's size.

    Raises VideoError.
    """
    if longest is None:
        return scale_frames(read_frames(sequence.frames), protocol)
    length = min(longest, probe(sequence.frames).frames)
    return scale_frames(read_frames(sequence.frames, list(range(length))), protocol)


def holes_for(
    footage: Footage, sequence: Sequence, protocol: Protocol, frames: int, folder: Path | None
) -> np.ndarray:
    """A sequence's holes by the protocol: bool (T, H, W).

    `folder`: with NAME/*.png, NAME.png or NAME.mp4 for each sequence, for the holes "folder".
    Raises VideoError where masks are missing or are none.
    """
    if protocol.holes == "freeform":
        return freeform_holes(protocol, sequence.name, frames)
    if protocol.holes == "folder":
        return laid_over(protocol, _given_masks(folder, sequence), frames)
    donor = mask_donor(footage, sequence)
    if donor is None:
        raise VideoError(
            sequence.frames,
            "no-annotations",
            "no other sequence of the data set has object masks",
            "Use free-form holes, or a data set with Annotations/",
        )
    return laid_over(protocol, read_annotations(donor.annotations), frames)


def mask_donor(footage: Footage, sequence: Sequence) -> Sequence | None:
    """Whose object masks a sequence is given: the next one's by name that has any, cyclically."""
    annotated = [o for o in footage.donors or footage.sequences if o.annotations]
    later = [other for other in annotated if other.name > sequence.name]
    earlier = [other for other in annotated if other.name < sequence.name]
    return next(iter(later + earlier), None)


def read_annotations(folder: Path) -> np.ndarray:
    """A sequence's object masks, bool (S, h, w): every label above 0. Raises VideoError."""
    masks = []
    for file in sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES):
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is None:
            raise VideoError(file, "unreadable", "is no picture", "Replace it")
        masks.append((picture > (0 if file.suffix.lower() == ".png" else 127)).any(axis=2))
    if not masks or len({mask.shape for mask in masks}) != 1:
        raise VideoError(folder, "no-masks", "holds no masks, or of several sizes", "Replace it")
    return np.stack(masks)


def _given_masks(folder: Path | None, sequence: Sequence) -> np.ndarray:
    """Masks as they lie in the folder: bool (S, h, w)."""
    for name in (sequence.name, f"{sequence.name}.png", f"{sequence.name}.mp4"):
        if folder is not None and (path := folder / name).exists():
            if path.is_dir():
                return read_annotations(path)
            info = probe(path) if path.suffix == ".mp4" else None
            if info:
                return read_masks(path, info.frames, info.height, info.width)
            picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            if picture is not None:
                return picture[None] > 0
    raise VideoError(
        folder or sequence.frames,
        "mask-missing",
        f"there are no masks for {sequence.name}",
        f"Add {sequence.name}/, {sequence.name}.png or {sequence.name}.mp4",
    )
