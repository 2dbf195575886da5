"""Folders of numbered pictures used as videos."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

import cv2
import numpy as np

from cssta.video.errors import VideoError

LOSSLESS_PICTURES = (".png", ".tif", ".tiff", ".bmp")
PICTURES = (*LOSSLESS_PICTURES, ".jpg", ".jpeg", ".webp")
WRITTEN_NAME = re.compile(r"\d{5,}\.png")


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES


def is_lossless(path: Path) -> bool:
    return path.suffix.lower() in LOSSLESS_PICTURES


def picture_files(folder: Path) -> list[Path]:
    """The folder's pictures, 2.png before 10.png; raises VideoError where there are none."""
    found = [f for f in folder.iterdir() if is_picture(f) and not f.name.startswith(".")]
    if not found:
        raise VideoError(
            folder,
            "no-frames",
            "the folder holds no pictures (.png, .jpg, .tif, ...)",
            "Give a folder of frames",
        )
    return sorted(found, key=_natural)


def _natural(file: Path) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", file.name.lower())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def read_picture(file: Path, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """One picture as OpenCV decodes it (BGR); raises VideoError where it is not one."""
    data = np.fromfile(file, np.uint8) if file.is_file() else None
    if data is None:
        raise VideoError(file, "missing", "no such picture", "Check the path")
    if data.size == 0:
        raise VideoError(file, "empty", "the file holds zero bytes", "Write it again")
    pixels = cv2.imdecode(data, flags)
    if pixels is None:
        raise VideoError(
            file, "unreadable", "not a picture that can be decoded", "Write it again as PNG"
        )
    return pixels


def read_pictures(files: Iterable[Path]) -> np.ndarray:
    """uint8 (T, H, W, 3) RGB; raises VideoError where the sizes differ."""
    frames: list[np.ndarray] = []
    for file in files:
        frame = cv2.cvtColor(read_picture(file), cv2.COLOR_BGR2RGB)
        if frames and frame.shape != frames[0].shape:
            (height, width), (h, w) = frames[0].shape[:2], frame.shape[:2]
            raise VideoError(
                file,
                "frame-size",
                f"{w}x{h} pixels, but the frames before it have {width}x{height}",
                "Bring all frames of the folder to one size",
            )
        frames.append(frame)
    return np.stack(frames)


def check_replaceable(folder: Path, overwrite: bool, names: Collection[str] = ()) -> None:
    """Raise VideoError if frames must not be written to `folder`.

    What it holds may be replaced only by `overwrite`, and only if nothing but numbered frames and
    files of these `names` is there.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise VideoError(folder, "exists", "a file has that name", "Give another output name")
    present = [entry.name for entry in folder.iterdir()]
    if present and not overwrite:
        raise VideoError(
            folder, "exists", "the folder is not empty", "Give another, or allow overwriting"
        )
    # Overwriting must never cost anybody a folder of photographs.
    names = set(names)
    other = [name for name in present if name not in names and not WRITTEN_NAME.fullmatch(name)]
    if other:
        raise VideoError(
            folder, "exists", f"it holds other files than frames ({other[0]})", "Give another"
        )


def write_picture(file: Path, pixels: np.ndarray) -> None:
    """Write RGB or RGBA (H, W, 3 or 4) as PNG of 8 (uint8) or 16 bits (uint16).

    Raises VideoError ("unwritable") where the disk is full or the folder missing.
    """
    order = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
    try:
        ok, data = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(pixels), order))
        if not ok:
            raise VideoError(file, "unwritable", "it cannot be encoded", "Report this")
        file.write_bytes(data.tobytes())
    except OSError as error:
        raise VideoError(
            file, "unwritable", f"writing failed ({error})", "Check folder, rights and space"
        ) from error


def write_frame_folder(
    folder: str | Path, frames: Iterable[np.ndarray], *, overwrite: bool = False
) -> Path:
    """Write frames, each as for `write_picture`, as 00000.png, 00001.png, ...

    Everything goes to `.<name>.partial` first, so that the folder appears whole or not at all.
    Raises VideoError if the folder holds anything but earlier output, or any without `overwrite`.
    """
    folder = Path(folder)
    check_replaceable(folder, overwrite)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for index, frame in enumerate(frames):
            write_picture(partial / f"{index:05d}.png", frame)
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
