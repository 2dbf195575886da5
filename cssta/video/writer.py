"""Writing H.264 MP4 files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cssta.video.errors import VideoError
from cssta.video.scan import scan

BT709 = 1
LIMITED_RANGE = 1
# SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP: every pixel counts in the halved chroma.
CHROMA_AVERAGE = 0x20 | 0x40000 | 0x4000


class VideoWriter:
    """Context manager that writes RGB frames to an MP4 file of exactly their size.

    Frames go to `.<name>.partial.mp4` beside the target. On leaving, the file is closed, opened
    again, checked for size and number of frames, and only then renamed. After any exception,
    an interrupt included, neither file is left and an older target is untouched.

    Colours are BT.709, limited range, and tagged so. A size with an odd side is stored as 4:4:4,
    which has no halved chroma to round for; most browsers do not play that.

    Args:
        path: target, ending in .mp4; its folder is made if need be.
        fps: frames per second, of any kind of number.
        height, width: pixels.
        crf: x264's constant rate factor, 0 (lossless) to 51; 16 looks like the source.
    """

    def __init__(
        self, path: str | Path, fps: Fraction | float, height: int, width: int, crf: float = 16
    ) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4":
            raise VideoError(path, "format", "only .mp4 can be written", "End the name in .mp4")
        self.fps = Fraction(fps).limit_denominator(1001)
        if self.fps <= 0:
            raise VideoError(path, "format", f"{fps} frames per second", "Give a rate above 0")
        self.height, self.width, self.crf = height, width, crf
        self.frames = 0
        self.partial = self.path.with_name(f".{self.path.name}.partial.mp4")
        self._container: av.container.OutputContainer | None = None

    def __enter__(self) -> VideoWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(
                str(self.partial), "w", format="mp4", options={"movflags": "faststart"}
            )
        except (av.FFmpegError, OSError) as error:
            raise VideoError(
                self.path, "unwritable", f"cannot be written ({error})", "Check folder and rights"
            ) from error
        try:
            self._open_stream()
        except BaseException:
            self._discard()
            raise
        return self

    def _open_stream(self) -> None:
        stream = self._container.add_stream("libx264", rate=self.fps)
        stream.height, stream.width = self.height, self.width
        odd = self.height % 2 or self.width % 2
        stream.pix_fmt = "yuv444p" if odd else "yuv420p"
        # swscale puts halved chroma between the pixels; untagged, H.264 means "on the left one".
        stream.options = {"crf": str(self.crf), "x264-params": "chromaloc=1"}
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE
        self._stream = stream

    def write(self, frames: np.ndarray) -> None:
        """Append one frame uint8 (H, W, 3) or several (n, H, W, 3), RGB."""
        for pixels in frames if frames.ndim == 4 else frames[None]:
            if pixels.shape != (self.height, self.width, 3) or pixels.dtype != np.uint8:
                raise VideoError(
                    self.path,
                    "frame-size",
                    f"frame {self.frames} is {pixels.dtype} {pixels.shape}",
                    f"Give uint8 ({self.height}, {self.width}, 3)",
                )
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(
                format=self._stream.pix_fmt,
                dst_colorspace="ITU709",
                dst_color_range="MPEG",
                interpolation=CHROMA_AVERAGE,
            )
            frame.colorspace, frame.color_range = BT709, LIMITED_RANGE
            frame.pts, frame.time_base = self.frames, 1 / self.fps
            self._mux(frame)
            self.frames += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise VideoError(
                self.path, "unwritable", f"writing failed ({error})", "Is the disk full?"
            ) from error

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None:
                self._publish()
        finally:
            self._discard()

    def _publish(self) -> None:
        if self.frames == 0:
            raise VideoError(self.path, "no-frames", "no frame was given", "Write at least one")
        self._mux(None)
        self._close()
        found = scan(self.partial)
        written = (found.frames, found.height, found.width)
        if written != (self.frames, self.height, self.width):
            raise VideoError(
                self.path,
                "unverified",
                f"frames, height, width came out as {written}, "
                f"not {(self.frames, self.height, self.width)}",
                "Report this",
            )
        os.replace(self.partial, self.path)

    def _close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.close()

    def _discard(self) -> None:
        try:
            self._close()
        except (av.FFmpegError, OSError):
            pass  # the file goes anyway
        finally:
            self.partial.unlink(missing_ok=True)


def write_video(
    path: str | Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: Fraction | float,
    *,
    crf: float = 16,
) -> Path:
    """Write uint8 (T, H, W, 3) RGB, or an iterable of (H, W, 3) or (n, H, W, 3); see VideoWriter.

    Raises VideoError; nothing is left under the target's name then.
    """
    pieces = iter(frames)
    first = next(pieces, None)
    if first is None:
        raise VideoError(path, "no-frames", "no frame was given", "Write at least one")
    height, width = first.shape[-3:-1]
    with VideoWriter(path, fps, height, width, crf) as writer:
        writer.write(first)
        for piece in pieces:
            writer.write(piece)
    return Path(path)
