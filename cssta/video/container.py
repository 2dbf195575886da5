"""Video files as PyAV sees them: opening, looking through the packets, decoding in order."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cssta.video.errors import VideoError

DEFAULT_FPS = Fraction(24)

# SWS_BILINEAR | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT. Without the last two, 4:2:0 video comes
# out a whole grey level too dark on average, and would lose another each time it is written.
UNBIASED = 2 | 0x40000 | 0x2000

# Codecs in which one packet is one shown frame, whatever the container.
ONE_FRAME_PER_PACKET = {"h264", "hevc", "av1", "libdav1d", "vp9", "mpeg4", "mjpeg", "ffv1", "png"}


@dataclass(frozen=True)
class Scan:
    """What the packets of a file say, without decoding more than one frame.

    Attributes:
        frames: number of frames that decode.
        declared: number that the container claims; 0 where it claims none.
        sound: claims and packets agree, so that random access is safe.
        pts: presentation time of every frame in order, in the stream's time base; only if `sound`.
        times: the same for any file, strictly increasing: missing and repeated ones are replaced
            (see `_increasing`).
        repaired: how many times were replaced so.
        seekable: every packet and frame has a time of its own, which tells it after a seek;
            never so in MPEG program streams, where frames get others' times then.
        keys: numbers of the frames from which decoding can start, in order.
        size: bytes of all the packets.
        height, width: pixels, after the rotation that the container asks for.
    """

    frames: int
    declared: int
    sound: bool
    pts: tuple[int, ...]
    times: tuple[int, ...]
    repaired: int
    seekable: bool
    keys: tuple[int, ...]
    size: int
    height: int
    width: int
    fps: Fraction


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


def decode_frames(path: Path, start: int | None = None) -> Iterator[av.VideoFrame]:
    """Frames in order of presentation, from the last key frame at or before pts `start`.

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
                if is_last and packet.is_corrupt:
                    continue
                try:
                    frames = decoder.decode(packet)
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


def scan(path: Path) -> Scan:
    """Look through all packets; remembered until the file changes. Raises VideoError."""
    if not path.is_file():
        with open_video(path):  # says what is wrong with it
            pass
    status = path.stat()
    return _scan(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _scan(path: Path, _modified: int, _size: int) -> Scan:
    with open_video(path) as (container, stream):
        declared = stream.frames
        fps = stream.average_rate or stream.guessed_rate or DEFAULT_FPS
        codec = stream.codec_context.name
        transport = "mpegts" in container.format.name
        # AVI has no presentation times: those given for reordered frames are made up.
        invented = container.format.name == "avi" and stream.codec_context.has_b_frames
        program = container.format.name == "mpeg"
        packets, size = [], 0
        try:
            for packet in container.demux(stream):
                if packet.size:
                    damaged = packet.is_corrupt or packet.is_discard
                    packets.append((packet.pts, packet.is_keyframe, damaged))
                    size += packet.size
        except av.FFmpegError:
            packets.append((None, False, True))
    times = [pts for pts, _, _ in packets]
    timed = None not in times
    whole = bool(packets) and packets[0][1] and not any(damaged for _, _, damaged in packets)
    whole = whole and timed and len(set(times)) == len(times)
    # What is shown before the first key frame refers to frames cut off, and may not decode.
    whole = whole and min(times) == times[0] and not (invented and times == sorted(times))
    counted = declared == len(packets) or (
        declared == 0 and codec in ONE_FRAME_PER_PACKET and not transport
    )
    sound = whole and counted
    first, shown = None, []
    for frame in decode_frames(path):
        first = first or to_rgb8(frame).shape
        if sound:
            shown = sorted((pts, pts, is_key) for pts, is_key, _ in packets)
            break
        shown.append((frame.pts, frame.dts, frame.key_frame))
    if first is None:
        short = declared > len(packets)
        raise VideoError(
            path,
            "truncated" if short else "no-frames",
            "no frame can be decoded" + (f" of the {declared} it should hold" if short else ""),
            "Copy it again whole, or re-encode the original",
        )
    times, repaired = _increasing([pts for pts, _, _ in shown], [dts for _, dts, _ in shown])
    keys = tuple(number for number, (_, _, is_key) in enumerate(shown) if is_key)
    return Scan(
        frames=len(shown),
        declared=declared,
        sound=sound,
        pts=times if sound else (),
        times=times,
        repaired=repaired,
        seekable=timed and not repaired and not program,
        keys=keys,
        size=size,
        height=first[0],
        width=first[1],
        fps=Fraction(fps),
    )


def _increasing(pts: list[int | None], dts: list[int | None]) -> tuple[tuple[int, ...], int]:
    """Times that strictly increase, and how many had to be replaced for it.

    Where a frame has no time of its own, or one that is not later than the one before, decoding
    times, which are in order by nature, take over if they need less repair, moved to start as the
    presentation times do; else such a frame is put one tick after the one before.
    """
    times, repaired = _ticking(pts)
    if repaired and dts[0] is not None:
        start = times[0] - dts[0]
        others, other_repairs = _ticking([None if time is None else time + start for time in dts])
        if other_repairs < repaired:
            times = others
    return tuple(times), repaired


def _ticking(times: list[int | None]) -> tuple[list[int], int]:
    result: list[int] = []
    repaired = 0
    for time in times:
        least = result[-1] + 1 if result else None
        if time is None or (least is not None and time < least):
            time, repaired = least or 0, repaired + 1
        result.append(time)
    return result, repaired
