"""What is in a video file: how many frames, when they are shown, where decoding can start.

Packets tell it where they can be trusted; else the whole file is decoded once.
"""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cssta.video.container import DEFAULT_FPS, decode_frames, open_video, to_rgb8
from cssta.video.errors import VideoError

# Codecs in which one packet is one shown frame, whatever the container.
ONE_FRAME_PER_PACKET = {"h264", "hevc", "av1", "libdav1d", "vp9", "mpeg4", "mjpeg", "ffv1", "png"}

UNTOLD = -(2**63)  # a time that is not there, as ffmpeg has it

REMEMBERED = 4  # files: a video and its mask, in two threads
_remembered: OrderedDict[tuple[Path, int, int], Scan] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class Scan:
    """What the packets of a file say, or its frames where those cannot be trusted.

    Attributes:
        frames: number of frames that decode.
        declared: number that the container claims; 0 where it claims none.
        sound: claims and packets agree, so that random access is safe.
        times: presentation time of every frame in order, in the stream's time base, strictly
            increasing: missing and repeated ones are replaced (see `_increasing`).
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
    times: array[int]
    repaired: int
    seekable: bool
    keys: array[int]
    size: int
    height: int
    width: int
    fps: Fraction


def scan(path: Path, progress: Callable[[], None] = lambda: None) -> Scan:
    """Look through a file; that of the last few files is remembered until they change.

    `progress` is called at every packet that is read or decoded: a long file of some kinds has to
    be decoded to its end. Raises VideoError.
    """
    if not path.is_file():
        with open_video(path):  # says what is wrong with it
            pass
    status = path.stat()
    key = (path, status.st_mtime_ns, status.st_size)
    with _lock:
        found = _remembered.get(key)
    if found is None:
        found = _scan(path, progress)
    with _lock:
        _remembered[key] = found
        _remembered.move_to_end(key)
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
    return found


class _Pictures:
    """Time, time of decoding, and whether it is a key frame, of packets or frames: 17 bytes each.

    (Hours of video have a million of them.)
    """

    def __init__(self) -> None:
        self.pts, self.dts, self.keys = array("q"), array("q"), bytearray()

    def add(self, pts: int | None, dts: int | None, is_key: bool) -> None:
        self.pts.append(UNTOLD if pts is None else pts)
        self.dts.append(UNTOLD if dts is None else dts)
        self.keys.append(is_key)

    def __len__(self) -> int:
        return len(self.pts)


def _scan(path: Path, progress: Callable[[], None]) -> Scan:
    packets, size, damaged = _Pictures(), 0, False
    with open_video(path) as (container, stream):
        declared = stream.frames
        fps = stream.average_rate or stream.guessed_rate or DEFAULT_FPS
        codec = stream.codec_context.name
        transport = "mpegts" in container.format.name
        # AVI has no presentation times: those given for reordered frames are made up.
        invented = container.format.name == "avi" and stream.codec_context.has_b_frames
        program = container.format.name == "mpeg"
        try:
            for packet in container.demux(stream):
                progress()
                if packet.size:
                    packets.add(packet.pts, packet.dts, packet.is_keyframe)
                    damaged = damaged or packet.is_corrupt or packet.is_discard
                    size += packet.size
        except av.FFmpegError:
            packets.add(None, None, False)
            damaged = True
    times = np.array(packets.pts)
    order = np.argsort(times, kind="stable")
    steps = np.diff(times[order])
    timed = UNTOLD not in times
    whole = len(packets) > 0 and packets.keys[0] and not damaged and timed and bool(steps.all())
    # What is shown before the first key frame refers to frames cut off, and may not decode.
    whole = whole and order[0] == 0 and not (invented and (np.diff(times) >= 0).all())
    counted = declared == len(packets) or (
        declared == 0 and codec in ONE_FRAME_PER_PACKET and not transport
    )
    sound = bool(whole and counted)
    first, decoded = None, _Pictures()
    for frame in decode_frames(path, progress=progress):
        first = first or to_rgb8(frame).shape
        if sound:
            break
        decoded.add(frame.pts, frame.dts, frame.key_frame)
    if first is None:
        short = declared > len(packets)
        raise VideoError(
            path,
            "truncated" if short else "no-frames",
            "no frame can be decoded" + (f" of the {declared} it should hold" if short else ""),
            "Copy it again whole, or re-encode the original",
        )
    if sound:
        shown, repaired = array("q", times[order].tobytes()), 0
        is_key = np.frombuffer(packets.keys, np.uint8)[order]
    else:
        shown, repaired = _increasing(decoded.pts, decoded.dts)
        is_key = np.frombuffer(decoded.keys, np.uint8)
    return Scan(
        frames=len(shown),
        declared=declared,
        sound=sound,
        times=shown,
        repaired=repaired,
        seekable=bool(timed and not repaired and not program),
        keys=array("q", np.flatnonzero(is_key).astype(np.int64).tobytes()),
        size=size,
        height=first[0],
        width=first[1],
        fps=Fraction(fps),
    )


def _increasing(pts: array[int], dts: array[int]) -> tuple[array[int], int]:
    """Times that strictly increase, and how many had to be replaced for it.

    Where a frame has no time of its own, or one that is not later than the one before, decoding
    times, which are in order by nature, take over if they need less repair, moved to start as the
    presentation times do; else such a frame is put one tick after the one before.
    """
    times, repaired = _ticking(pts)
    if repaired and dts[0] != UNTOLD:
        start = times[0] - dts[0]
        moved = array("q", (time if time == UNTOLD else time + start for time in dts))
        others, other_repairs = _ticking(moved)
        if other_repairs < repaired:
            times = others
    return times, repaired


def _ticking(times: array[int]) -> tuple[array[int], int]:
    result, repaired = array("q"), 0
    for time in times:
        least = result[-1] + 1 if result else None
        if time == UNTOLD or (least is not None and time < least):
            time, repaired = least or 0, repaired + 1
        result.append(time)
    return result, repaired
