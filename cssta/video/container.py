"""Video files as PyAV sees them: opening, decoding in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cssta.video.errors import VideoError

DEFAULT_FPS = Fraction(24)

# SWS_BILINEAR | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT. Without the last two, 4:2:0 video comes
# out a whole grey level too dark on average, and would lose another each time it is written.
UNBIASED = 2 | 0x40000 | 0x2000


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file and its video stream; raises VideoError where there is none."""
    if not path.exists():
        raise VideoError(path, "missing", "no such file or folder", "Check the path")
    if path.stat().st_size == 0:
        raise VideoError(path, "empty", "the file holds zero bytes", "Copy or record it again")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise _unopened(path, error) from error
    with container:
        streams = [s for s in container.streams.video if not _is_cover_picture(s)]
        if not streams:
            raise VideoError(
                path,
                "no-video",
                "it holds no video stream (sound only?)",
                "Give a file with pictures",
            )
        yield container, streams[0]


def _unopened(path: Path, error: Exception) -> VideoError:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":  # MP4 or MOV whose index, at the end, was never written or copied
        return VideoError(
            path, "truncated", "an MP4 without its index: the end is missing", "Copy it again whole"
        )
    return VideoError(
        path,
        "unreadable",
        f"not a video that can be opened ({type(error).__name__})",
        "Give a video file, or convert it with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4",
    )


def _is_cover_picture(stream: av.VideoStream) -> bool:
    return "attached_pic" in str(getattr(stream, "disposition", ""))


def rotated(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Turn (H, W, ...) counter-clockwise by the container's display rotation (multiples of 90)."""
    turns = round(degrees / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def to_rgb8(frame: av.VideoFrame) -> np.ndarray:
    """One decoded frame as uint8 (H, W, 3) RGB, upright, by swscale.

    Fast, for what is not written back: `colour.to_rgb` keeps all bits and the mean of each channel.
    """
    pixels = frame.reformat(format="rgb24", interpolation=UNBIASED).to_ndarray()
    return rotated(pixels, getattr(frame, "rotation", 0))


def decode_frames(
    path: Path, start: int | None = None, progress: Callable[[], None] = lambda: None
) -> Iterator[av.VideoFrame]:
    """Frames in order of presentation, from the last key frame at or before pts `start`.

    `progress` is called at every packet, before it is decoded and after.

    A broken last packet ends the video there, as in any truncated file. A broken packet before
    that raises VideoError ("corrupt"): going on would shift every later frame against its mask.
    """
    with open_video(path) as (container, stream):
        if start is not None:
            container.seek(start, stream=stream)
        decoder = _decoder(stream)
        done = 0
        try:
            for packet, is_last in _packets(container, stream):
                progress()
                if is_last and packet.is_corrupt:
                    continue
                try:
                    frames = decoder.decode(packet)
                    progress()
                except av.InvalidDataError:
                    if not is_last:
                        raise
                    continue
                yield from frames
                done += len(frames)
        except av.FFmpegError as error:
            raise VideoError(
                path,
                "corrupt",
                f"the data is damaged after frame {done}",
                "Copy it again, or repair it with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4",
            ) from error


def _decoder(stream: av.VideoStream) -> av.VideoCodecContext:
    """The stream's own, or for VP8 and VP9 with alpha libvpx: ffmpeg's own ones leave alpha out."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return stream.codec_context
    decoder = av.CodecContext.create(name, "r")
    decoder.extradata = stream.codec_context.extradata
    return decoder


def _packets(container, stream) -> Iterator[tuple[av.Packet, bool]]:
    """Packets, and whether each is the last that carries data; the empty flush packet follows."""
    held = None
    for packet in container.demux(stream):
        if held is not None:
            yield held, packet.size == 0
        held = packet
    if held is not None:
        yield held, False
