"""Frames out of video files and frame folders.

Whole videos are decoded in order by PyAV, with exact rounding: what will be written again must
not lose brightness. Single frames by number come from decord, which seeks well; files that it
cannot read (AV1) or must not be trusted with (truncated ones, wrong headers: it can loop for ever)
go to PyAV. decord rounds down, so its frames are about one grey level darker.
"""

from __future__ import annotations

import bisect
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cssta.video.container import decode_frames, to_rgb8
from cssta.video.errors import VideoError
from cssta.video.frame_folder import picture_files, read_pictures
from cssta.video.scan import Scan, scan

log = logging.getLogger(__name__)

FRAMES_PER_SEEK = 4  # that could be decoded while a file is opened and sought in


def read_frames(path: str | Path, indices: Sequence[int] | None = None) -> np.ndarray:
    """Frames of a video file or frame folder, uint8 (T, H, W, 3) RGB.

    Args:
        indices: the frames wanted, in any order, repeats allowed; only these are converted, and
            no more decoded than the way there from a key frame. None: the whole video.

    Raises:
        VideoError: the file is not a video, is damaged, or has no frame of that number.
    """
    path = Path(path)
    if indices is None:
        return np.concatenate(list(iter_frames(path)))
    wanted = [int(index) for index in indices]
    files = picture_files(path) if path.is_dir() else None
    found = None if files else scan(path)
    length = len(files) if files else found.frames
    for index in wanted:
        if not 0 <= index < length:
            raise VideoError(
                path,
                "frame-index",
                f"there is no frame {index}: it has {length}",
                f"Ask for frames 0 to {length - 1}",
            )
    if not wanted:
        raise VideoError(path, "frame-index", "no frame was asked for", "Give at least one number")
    if files:
        return read_pictures(files[index] for index in wanted)
    frames = _by_decord(path, wanted, found)
    return _by_pyav(path, wanted, found) if frames is None else frames


def iter_frames(path: str | Path, chunk: int = 32) -> Iterator[np.ndarray]:
    """The whole video as uint8 (n, H, W, 3) RGB, n <= chunk, never more than that in memory."""
    path = Path(path)
    if path.is_dir():
        files = picture_files(path)
        for start in range(0, len(files), chunk):
            yield read_pictures(files[start : start + chunk])
        return
    found = scan(path)
    held: list[np.ndarray] = []
    for frame in decode_frames(path):
        pixels = to_rgb8(frame)
        if pixels.shape[:2] != (found.height, found.width):
            height, width = pixels.shape[:2]
            raise VideoError(
                path,
                "frame-size",
                f"the picture size changes from {found.width}x{found.height} to {width}x{height}",
                "Re-encode it to one size with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4",
            )
        held.append(pixels)
        if len(held) == chunk:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


def _decord():
    """The decord module, quiet; None where it is not installed (it has no ARM wheels)."""
    import torch  # noqa: F401  (first: decord brings an older OpenMP)

    try:
        import decord
    except (ImportError, OSError):
        return None
    decord.logging.set_level(decord.logging.QUIET)
    return decord


def _by_decord(path: Path, wanted: list[int], found: Scan) -> np.ndarray | None:
    """The frames, or None (and a line in the log) where decord cannot or should not read them."""
    decord = _decord()
    if decord is None:
        problem = "decord is not installed"
    elif not found.sound:
        problem = f"it declares {found.declared} frames and decodes {found.frames}"
    else:
        problem = ""
        reader = None
        try:
            reader = decord.VideoReader(str(path), num_threads=1)
            if len(reader) != found.frames:
                problem = f"decord counts {len(reader)} frames, its packets are {found.frames}"
            else:
                frames = reader.get_batch(wanted).asnumpy()
                if frames.shape[1:3] != (found.height, found.width):
                    problem = f"decord turns it to {frames.shape[2]}x{frames.shape[1]}"
        except (decord.DECORDError, RuntimeError) as error:
            problem = "decord: " + str(error).strip().splitlines()[0]
        finally:
            del reader  # it holds hundreds of megabytes of frames read ahead
    if problem:
        log.info("%s: read with PyAV (%s)", path, problem)
        return None
    log.debug("%s: read with decord", path)
    return frames


def _by_pyav(path: Path, wanted: list[int], found: Scan) -> np.ndarray:
    if found.sound:
        picked: dict[int, np.ndarray] = {}
        for run in _runs(sorted(set(wanted)), found.keys):
            picked |= _pick(path, set(run), found, found.times[run[0]])
        if len(picked) == len(set(wanted)):
            return np.stack([picked[index] for index in wanted])
    picked = _pick(path, set(wanted), found, None)
    missing = sorted(set(wanted) - set(picked))
    if missing:
        raise VideoError(
            path,
            "truncated",
            f"frame {missing[0]} cannot be decoded",
            "Copy the file again whole",
        )
    return np.stack([picked[index] for index in wanted])


def _runs(wanted: list[int], keys: Sequence[int]) -> Iterator[list[int]]:
    """Frames in order, cut where a seek to a key frame spares decoding what is not wanted."""
    run: list[int] = []
    for index in wanted:
        key = keys[max(bisect.bisect_right(keys, index) - 1, 0)]
        if run and key > run[-1] + FRAMES_PER_SEEK:
            yield run
            run = []
        run.append(index)
    yield run


def _pick(path: Path, wanted: set[int], found: Scan, start: int | None) -> dict[int, np.ndarray]:
    """Frames by number: told by their time after a seek to `start`, else by counting."""
    picked: dict[int, np.ndarray] = {}
    for count, frame in enumerate(decode_frames(path, start)):
        index = count if start is None else bisect.bisect_left(found.times, frame.pts)
        if index in wanted:
            picked[index] = to_rgb8(frame)
        if len(picked) == len(wanted) or index > max(wanted):
            break
    return picked
