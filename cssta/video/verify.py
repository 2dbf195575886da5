"""Holding a finished output against its source before it gets its name."""

from __future__ import annotations

import hashlib
import itertools
import logging
from array import array
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np

from cssta.video.assemble import Timeline, timeline
from cssta.video.compose import as_frame, sample_weight, samplings
from cssta.video.container import decode_frames, open_video, rotated
from cssta.video.errors import VideoError
from cssta.video.planes import planar, planar_format, planes
from cssta.video.properties import canonical, differences, look
from cssta.video.segment_writer import Encoding
from cssta.video.streams import is_own_track, timecode

if TYPE_CHECKING:
    from cssta.video.mask_source import MaskSource
    from cssta.video.source import SourceInfo, VideoSource

log = logging.getLogger(__name__)

EMPTY_TEXT = b"\0\0"  # mp4 fills the gaps between subtitles with these
ADTS = 0xFFF0  # what AAC starts with in a transport stream; mp4 and mkv keep that apart


@dataclass
class Track:
    """A stream's content as packets tell it: a digest of all payloads, times in seconds."""

    kind: str
    codec: str
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size: int = 0
    start: Fraction | None = None
    times: array[int] = field(default_factory=lambda: array("q"))
    end: int | None = None
    time_base: Fraction = Fraction(1)


def verify(
    partial: str | Path,
    source: VideoSource,
    encoding: Encoding,
    masks: MaskSource | None = None,
    advance: Callable[[], None] = lambda: None,
    progress: Callable[[], None] = lambda: None,
) -> str | None:
    """Check that the file is the source but for what is in the holes.

    Every frame is decoded. Checked are: the number of frames, their times, the duration, picture
    size, pixel format, sample aspect, rotation, colour tags, HDR descriptions, and that each other
    stream has the source's bytes at the source's time.

    Args:
        masks: of a lossless output: every sample outside the holes must equal the source's.
        advance: called for every frame that has been decoded.
        progress: called at every packet that is looked at, before anything is decoded.

    Returns:
        With `masks`, the SHA-256 digest, which both share, of all samples outside the holes.

    Raises:
        VideoError ("unverified"): something differs; the message says what.
    """
    partial = Path(partial)
    info = source.info
    if not partial.exists() or partial.stat().st_size == 0:
        raise _unverified(partial, "nothing was written")
    try:
        copy, _ = look(partial)
        if copy.codec != encoding.codec:
            raise _unverified(partial, f"its codec is {copy.codec}, not {encoding.codec}")
        if copy.pix_fmt.replace("yuvj", "yuv") != _stored_format(encoding):
            raise _unverified(partial, f"its pixels are {copy.pix_fmt}, not {encoding.pix_fmt}")
        if not info.is_folder:
            found = [d for d in differences(look(info.path)[0], copy) if d not in encoding.changed]
            if found:
                raise _unverified(partial, "; ".join(found))
        times = timeline(info, progress)
        ours = _tracks(partial, progress)
        video = next(track for track in ours.values() if track.kind == "video")
        shift = _check_times(partial, video, times, 1 / info.fps)
        if not info.is_folder:
            _check_timecode(partial, info)
            theirs = _tracks(info.path, progress)
            _check_tracks(partial, ours, theirs, info, encoding, times, shift)
        if masks is None:
            _check_decoding(partial, info.frames, advance)
            return None
        return _check_samples(partial, source, masks, advance)
    except VideoError as error:
        if error.reason == "unverified":
            raise
        raise _unverified(partial, f"it cannot be read back ({error})") from error


def _unverified(path: Path, problem: str) -> VideoError:
    return VideoError(path, "unverified", f"the output is not sound: {problem}", "Report this")


def _stored_format(encoding: Encoding) -> str:
    return planar_format(av.VideoFormat(encoding.pix_fmt)).replace("yuvj", "yuv")


def _tracks(path: Path, progress: Callable[[], None]) -> dict[int, Track]:
    with open_video(path) as (container, video):
        tracks, last = {}, (-(2**62), 0)
        streams = [s for s in container.streams if not is_own_track(container, s)]
        for stream in streams:
            context = stream.codec_context
            name = canonical(context.name) if context else stream.type
            tracks[stream.index] = Track(stream.type, name, time_base=stream.time_base)
            if stream.type == "attachment":
                tracks[stream.index].digest.update(stream.data)
        for packet in container.demux([s for s in streams if s.type != "attachment"]):
            progress()
            track = tracks[packet.stream_index]
            if packet.size == 0:
                continue
            time = packet.pts if packet.pts is not None else packet.dts
            if packet.stream_index == video.index:
                if time is not None:
                    track.times.append(time)
                    last = max(last, (time, packet.duration or 0))
                continue
            payload = _payload(bytes(packet), track.codec)
            if payload and track.start is None and time is not None:
                track.start = time * packet.time_base
            track.digest.update(payload)
            track.size += len(payload)
        times = tracks[video.index].times
        tracks[video.index].times = array("q", np.sort(times).tobytes())
        if video.duration:  # mp4 and mov tell it; the packets there overlap
            tracks[video.index].end = video.start_time + video.duration
        elif last[1]:
            tracks[video.index].end = sum(last)
        # The video comes first in the order of iteration, whatever its number.
        return {video.index: tracks.pop(video.index)} | tracks


def _payload(data: bytes, codec: str) -> bytes:
    if codec == "mov_text" and data == EMPTY_TEXT:
        return b""
    if codec == "aac" and len(data) > 7 and int.from_bytes(data[:2], "big") & ADTS == ADTS:
        return data[7 if data[1] & 1 else 9 :]
    return data


def _check_times(path: Path, video: Track, times: Timeline, usual: Fraction) -> Fraction:
    """By how many seconds all of the output is later than the source."""
    if len(video.times) != len(times.shown):
        raise _unverified(path, f"it has {len(video.times)} frames, not {len(times.shown)}")
    shift = video.times[0] * video.time_base - times.shown[0] * times.time_base
    # What is before 0 cannot be said in some containers; all streams then start later together.
    # A container that counts in other units rounds each time to the nearest.
    exact = (times.time_base / video.time_base).denominator == 1
    slack = 0 if exact else video.time_base / 2
    if abs(shift) <= slack:
        shift = Fraction(0)
    for frame, (ours, theirs) in enumerate(zip(video.times, times.shown, strict=True)):
        off = ours * video.time_base - theirs * times.time_base - shift
        if abs(off) > (slack if shift == 0 else slack + video.time_base):
            raise _unverified(path, f"frame {frame} is shown {float(off):+.6f} s off its time")
    if video.end is not None:
        end = (times.shown[-1] + times.last) * times.time_base + shift
        late = video.end * video.time_base - end
        if abs(late) > usual + video.time_base:
            raise _unverified(path, f"it ends {float(late):+.3f} s off the source's end")
    return shift


def _check_timecode(path: Path, info: SourceInfo) -> None:
    with open_video(path) as (copy, _), open_video(info.path) as (source, _):
        ours, theirs = timecode(copy), timecode(source)
    if ours != theirs:
        raise _unverified(path, f"its timecode is {ours or 'none'}, not {theirs or 'none'}")


def _check_tracks(path, ours, theirs, info, encoding, times, shift) -> None:
    ours = list(ours.values())[1:]
    kept = [track for index, track in theirs.items() if index not in encoding.dropped]
    if len(ours) != len(kept) - 1:
        raise _unverified(path, f"it has {len(ours)} other streams, not {len(kept) - 1}")
    for number, (copy, track) in enumerate(zip(ours, kept[1:], strict=True)):
        name = f"{track.kind} stream {number} ({track.codec})"
        if (copy.kind, copy.codec) != (track.kind, track.codec):
            raise _unverified(path, f"{name} became {copy.kind} ({copy.codec})")
        if copy.digest.digest() != track.digest.digest():
            raise _unverified(path, f"{name} has {copy.size} bytes, not the same {track.size}")
        if track.start is not None and copy.start is not None:
            off = copy.start - (track.start - times.origin) - shift
            if abs(off) > copy.time_base + track.time_base:
                raise _unverified(path, f"{name} starts {float(off):+.6f} s off its time")
        if (
            shift
            and (track.start is None or track.start - times.origin >= 0)
            and not _early(kept, times)
        ):
            raise _unverified(path, f"everything starts {float(shift):+.6f} s off")


def _early(tracks: list[Track], times: Timeline) -> bool:
    return times.shown[0] < 0 or any(t.start is not None and t.start < times.origin for t in tracks)


def _check_decoding(path: Path, frames: int, advance: Callable[[], None]) -> None:
    last, count = None, 0
    with open_video(path) as (container, stream):
        stream.codec_context.options = {"err_detect": "explode"}  # nothing is to be concealed
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                if last is not None and frame.pts <= last:
                    raise _unverified(path, f"frame {count} is not after the one before")
                last, count = frame.pts, count + 1
                advance()
        except av.FFmpegError as error:
            raise _unverified(path, f"the data is damaged after frame {count}") from error
    if count != frames:
        raise _unverified(path, f"{count} frames can be decoded, not {frames}")


def _check_samples(
    path: Path, source: VideoSource, masks: MaskSource, advance: Callable[[], None]
) -> str:
    info, missing = source.info, object()
    digest = hashlib.sha256()
    pairs = zip(source.frames(), masks.masks(0, info.frames), strict=True)
    with closing(decode_frames(path)) as decoded:
        for number, (pair, copy) in enumerate(
            itertools.zip_longest(pairs, decoded, fillvalue=missing)
        ):
            if pair is missing or copy is missing:
                raise _unverified(path, f"it does not decode to {info.frames} frames")
            frame, mask = pair
            native = planar(as_frame(frame.native))
            hole = rotated(mask, -info.rotation).astype(np.float32)
            fields = native.interlaced_frame
            ours, theirs = (_outside(f, hole, fields) for f in (planar(copy), native))
            digest.update(theirs)
            if hashlib.sha256(ours).digest() != hashlib.sha256(theirs).digest():
                raise _unverified(path, f"frame {number} differs from the source outside its hole")
            advance()
    log.info("%s: outside the holes all samples are the source's, SHA-256 %s", path,
             digest.hexdigest())  # fmt: skip
    return digest.hexdigest()


def _outside(frame: av.VideoFrame, hole: np.ndarray, fields: bool) -> bytes:
    """The samples outside the hole, as Composer sees it; alpha is all outside."""
    parts = []
    for number, (plane, sampling) in enumerate(
        zip(planes(frame), samplings(frame.format), strict=True)
    ):
        if frame.format.components[number].is_alpha:
            parts.append(plane.tobytes())
        else:
            parts.append(plane[sample_weight(hole, *sampling, fields) == 0].tobytes())
    return b"".join(parts)
