"""A video to be completed: what it is, and its frames in their own samples, in any order.

`open_source` takes a video file, a folder of pictures, a numbered sequence or a single picture.
Files are decoded by PyAV, which hands out the stored samples (planes of 8 to 16 bits) whatever the
codec. decord, which serves training with single frames, knows 8-bit RGB only and rounds it down.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from cssta.video import colour
from cssta.video.colour import Colour
from cssta.video.container import rotated
from cssta.video.errors import VideoError

AREA = 0x20  # SWS_AREA: means over areas


@dataclass(frozen=True)
class SourceInfo:
    """A video as it is stored, as far as a copy of it has to agree.

    Attributes:
        frames: number of frames that can be decoded.
        height, width: pixels as shown, after rotation; `stored_...` before it.
        rotation: degrees counter-clockwise by which the container has the stored picture turned
            for display: 0, 90, 180 or 270.
        pts: strictly increasing presentation time of each frame, in `time_base` seconds.
        fps: frames per second, the average where the rate varies.
        codec, container: ffmpeg's names, e.g. "hevc", "mov,mp4,m4a,3gp,3g2,mj2"; for pictures
            their suffix and "image2".
        pix_fmt: format of the frames' native planes, e.g. "yuv420p10le"; for pictures "rgb24",
            "rgba", "rgb48le" or "rgba64le".
        bit_depth: bits per component.
        sar: width of a pixel over its height.
        colour: tags of the first frame.
        bit_rate: of the video stream, bits per second; None where unknown.
        is_folder: pictures, not a container.
        has_alpha: frames carry an alpha channel.
        stream: number of the video stream within the container.
        other_streams: (index, type, codec) of each other stream: audio, subtitle, data,
            attachment, or video (a cover picture, a second view).
    """

    path: Path
    frames: int
    height: int
    width: int
    stored_height: int
    stored_width: int
    rotation: int
    pts: Sequence[int] = field(repr=False)
    time_base: Fraction
    fps: Fraction
    codec: str
    pix_fmt: str
    bit_depth: int
    sar: Fraction
    colour: Colour
    container: str
    bit_rate: int | None
    is_folder: bool
    has_alpha: bool
    stream: int = 0
    other_streams: tuple[tuple[int, str, str], ...] = ()

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last, if that is shown as the average."""
        return float((self.pts[-1] - self.pts[0]) * self.time_base + 1 / self.fps)

    def seconds(self, index: int) -> float:
        """When frame `index` is shown, from the first one on."""
        return float((self.pts[index] - self.pts[0]) * self.time_base)


@dataclass(frozen=True)
class SourceFrame:
    """Frame number `index`.

    `native` has the stored samples in stored orientation, one component per plane (see
    `planes.planar`); for pictures it is RGB(A) (H, W, 3 or 4) as read.
    """

    index: int
    native: av.VideoFrame | np.ndarray
    rotation: int = 0

    def rgb(self) -> np.ndarray:
        """Upright RGB (H, W, 3): uint8, or uint16 with 65535 as white if deeper than 8 bits."""
        if isinstance(self.native, np.ndarray):
            return np.ascontiguousarray(self.native[..., :3])
        return rotated(colour.to_rgb(self.native), self.rotation)

    def thumbnail(self, side: int) -> np.ndarray:
        """Upright RGB uint8 (h, w, 3), the longer side at most `side` pixels; for a quick look."""
        if isinstance(self.native, np.ndarray):
            pixels = self.native[..., :3]
            height, width = _within(side, *pixels.shape[:2])
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
            return pixels if pixels.dtype == np.uint8 else (pixels >> 8).astype(np.uint8)
        height, width = _within(side, self.native.height, self.native.width)
        frame = self.native.reformat(width, height, "rgb24", interpolation=AREA, threads=1)
        return rotated(frame.to_ndarray(), self.rotation)

    def alpha(self) -> np.ndarray | None:
        """Upright opacity (H, W), uint8 or uint16 whose maximum is opaque; None without alpha."""
        if isinstance(self.native, np.ndarray):
            return self.native[..., 3] if self.native.shape[2] == 4 else None
        stored = colour.alpha(self.native)
        return None if stored is None else rotated(stored, self.rotation)


def _within(side: int, height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


class VideoSource(ABC):
    """Frames of a video by number, each always the same samples however one gets there."""

    info: SourceInfo

    @abstractmethod
    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[SourceFrame]:
        """Frames start to stop - 1 (default: to the end) in order, one in memory at a time.

        Raises VideoError where the data is damaged, ends early, or changes size or format.
        """

    @abstractmethod
    def pick(self, indices: Iterable[int]) -> dict[int, SourceFrame]:
        """The frames of these numbers. Raises VideoError as `frames` does."""

    def check_range(self, start: int, stop: int) -> None:
        """Raise VideoError ("frame-index") unless 0 <= start <= stop <= the number of frames."""
        if not 0 <= start <= stop <= self.info.frames:
            raise VideoError(
                self.info.path,
                "frame-index",
                f"there are no frames {start} to {stop - 1}: it has {self.info.frames}",
                f"Ask for frames 0 to {self.info.frames - 1}",
            )


def open_source(
    path: str | Path,
    fps: Fraction | float | None = None,
    progress: Callable[[], None] = lambda: None,
) -> VideoSource:
    """Look at a video file, folder of pictures, sequence ("shot.%04d.png") or single picture.

    Args:
        fps: frames per second of pictures (default 24); a file states its own.
        progress: called at every packet of a file that is read or decoded, now and whenever
            frames are asked for, those that are passed over included.

    Raises VideoError where there is no video or it is of a kind that cannot be completed.
    """
    from cssta.video.file_source import FileSource
    from cssta.video.folder_source import FolderSource, sequence_files

    path = Path(path)
    files = sequence_files(path)
    return FileSource(path, progress) if files is None else FolderSource(path, files, fps)
