"""Joining segments to a video with the source's timing, tags and other streams.

Nothing is encoded here: packets of the segments take the source's times, all other packets go over
untouched.
"""

from __future__ import annotations

import errno
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av

from cssta.video.container import open_video
from cssta.video.errors import VideoError
from cssta.video.matroska import describe_track
from cssta.video.scan import UNTOLD
from cssta.video.segment_writer import TICK, Encoding
from cssta.video.streams import add_streams, track_number

if TYPE_CHECKING:
    from cssta.video.source import SourceInfo

# What has nothing to do with the container: no room, no right, a broken disk.
DISK = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES}
MOV = ("mp4", "mov")
MATROSKA = ("matroska", "webm")
LATE = 16  # units; a late start needs more than there are frames that wait
LARGEST_SCALE = 2**31 - 1
CLOCKS = ("mpegts", "mpeg")  # their times are of a running clock: only differences mean anything


@dataclass(frozen=True)
class Timeline:
    """When each frame is decoded and shown, in units of `time_base`.

    Attributes:
        shown: presentation times, one per frame in order.
        last: how long the last frame is shown.
        origin: seconds that were taken off every stream of the source.
    """

    shown: Sequence[int]
    time_base: Fraction
    last: int
    origin: Fraction = Fraction(0)

    def decoded(self, place: int, delay: int) -> int:
        """Time to decode packet number `place`, where up to `delay` frames wait to be shown."""
        if place >= delay:
            return self.shown[place - delay]
        first = self.shown[0]
        step = max(1, (self.shown[-1] - first) // max(1, len(self.shown) - 1))
        if 0 < first < delay * step:
            # Below 0, mp4 would put the late start where ffmpeg's reader does not see it.
            step = max(1, first // delay)
        return first - (delay - place) * step

    def finer(self, factor: int) -> Timeline:
        """The same in a `factor` times smaller unit."""
        shown = array("q", (time * factor for time in self.shown))
        return replace(
            self, shown=shown, time_base=self.time_base / factor, last=self.last * factor
        )

    def duration(self, frame: int) -> int:
        if frame + 1 == len(self.shown):
            return self.last
        return self.shown[frame + 1] - self.shown[frame]


def timeline(info: SourceInfo, progress: Callable[[], None] = lambda: None) -> Timeline:
    """The source's; `progress` is called at every packet. Raises VideoError."""
    usual = max(1, round(1 / (info.fps * info.time_base)))
    if info.is_folder:
        return Timeline(info.pts, info.time_base, usual)
    with open_video(info.path) as (container, stream):
        origin = Fraction(0)
        if container.format.name in CLOCKS and container.start_time is not None:
            origin = Fraction(container.start_time, av.time_base)
        last = 0
        if stream.duration and stream.start_time is not None:
            last = stream.start_time + stream.duration - info.pts[-1]
        if last <= 0:  # not told, or told wrong
            end = (UNTOLD, 0)
            for packet in container.demux(stream):
                progress()
                if packet.pts is not None:
                    end = max(end, (packet.pts, packet.duration))
            last = end[1] or usual
    shift = round(origin / info.time_base)
    pts = array("q", (time - shift for time in info.pts))
    return Timeline(pts, info.time_base, last, shift * info.time_base)


def assemble(
    partial: str | Path,
    segments: Sequence[Path],
    info: SourceInfo,
    encoding: Encoding,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write `partial`, whose caller verifies and renames it.

    Args:
        segments: files of `SegmentWriter`, which together hold every frame of the source.
        advance: called for every packet, as it is looked at first and as it is written.

    Raises:
        VideoError: a segment or the source cannot be read, frames are missing, or the container
            cannot hold a stream.
    """
    write_packets(Path(partial), segments, timeline(info, advance), info, encoding, advance=advance)


def write_packets(
    partial: Path,
    segments: Sequence[Path],
    times: Timeline,
    info: SourceInfo,
    encoding: Encoding,
    most: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """`assemble` for a given timeline; `most`: packets of each other stream (default: all)."""
    order = array("q")
    for frame, _ in _numbered(segments):
        order.append(frame)
        advance()
    if sorted(order) != list(range(len(times.shown))):
        raise VideoError(
            partial,
            "unverified",
            f"the segments hold {len(order)} frames of {len(times.shown)}",
            "Start over without --resume",
        )
    delay = max(place - frame for place, frame in enumerate(order))
    if 0 < times.shown[0] < LATE:
        times = times.finer(LATE)
    try:
        with ExitStack() as stack:
            source = None
            if not info.is_folder:
                source, _ = stack.enter_context(open_video(info.path))
            _, template = stack.enter_context(open_video(segments[0]))
            output = stack.enter_context(
                av.open(
                    str(partial),
                    "w",
                    format=encoding.container,
                    options=_muxer_options(times, encoding, source),
                )
            )
            video, copies = add_streams(output, source, template, info, encoding, times)
            ours = _video_packets(segments, times, delay, video, encoding.container)
            copied = _copied(source, copies, times, encoding.container, most) if copies else ()
            for packet in _interleaved(ours, copied):
                output.mux(packet)
                advance()
            place = track_number(output, video)
    except (av.FFmpegError, OSError, ValueError) as error:
        if getattr(error, "errno", None) in DISK:
            raise VideoError(
                partial, "unwritable", f"writing failed ({error})", "Make room on its disk"
            ) from error
        raise VideoError(
            partial,
            "format",
            f"{encoding.container} does not take what goes in ({error})",
            "Name the output .mkv",
        ) from error
    unsaid = (encoding.sar != 1, encoding.mastering, encoding.light)
    if encoding.container in MATROSKA and any(unsaid):
        describe_track(partial, place, encoding.sar, encoding.mastering, encoding.light)


def _muxer_options(times: Timeline, encoding: Encoding, source) -> dict[str, str]:
    options = {"fflags": "+bitexact"}  # no random numbers, so that a resumed job gives the same
    if encoding.container not in MOV:
        return options
    flags = ["faststart"]
    if source is not None and any(key.startswith("com.") for key in source.metadata):
        flags.append("use_metadata_tags")  # what phones and cameras say of themselves
    scale = times.time_base.denominator
    rates = {s.rate for s in source.streams.audio if s.rate} if source is not None else set()
    # Starts are kept in this unit: with the streams' own, none of them is rounded.
    whole = math.lcm(scale, *rates)
    return options | {
        "movflags": "+".join(flags),
        "video_track_timescale": str(scale),
        "movie_timescale": str(whole if whole <= LARGEST_SCALE else scale),
    }


def _numbered(segments: Sequence[Path]) -> Iterator[tuple[int, av.Packet]]:
    """(number of the frame, packet) in order of decoding. Raises VideoError."""
    base = 0
    for path in segments:
        with open_video(path) as (container, stream):
            count = 0
            for packet in container.demux(stream):
                if packet.size:
                    yield base + round(packet.pts * packet.time_base / TICK), packet
                    count += 1
        base += count


def _video_packets(
    segments: Sequence[Path],
    times: Timeline,
    delay: int,
    video: av.VideoStream,
    container: str,
) -> Iterator[av.Packet]:
    count = len(times.shown)
    for place, (frame, packet) in enumerate(_numbered(segments)):
        packet.stream, packet.time_base = video, times.time_base
        packet.pts, packet.dts = times.shown[frame], times.decoded(place, delay)
        packet.duration = times.duration(frame)
        if place + 1 == count and container in MOV:  # there, times of decoding make the length
            lead = times.shown[0] - times.decoded(0, delay)
            packet.duration = max(1, times.shown[-1] + times.last - packet.dts - lead)
        yield packet


def _interleaved(video: Iterator[av.Packet], others: Iterable[av.Packet]) -> Iterator[av.Packet]:
    """All packets, roughly by time, so that little waits in memory."""
    pending = next(video)
    for packet in others:
        moment = packet.dts * packet.time_base
        while pending is not None and pending.dts * pending.time_base <= moment:
            yield pending
            pending = next(video, None)
        yield packet
    if pending is not None:
        yield pending
    yield from video


def _copied(
    source: av.container.InputContainer,
    copies: dict[int, av.stream.Stream],
    times: Timeline,
    container: str,
    most: int | None,
) -> Iterator[av.Packet]:
    """Packets of the source's other streams, now of their copies; at most so many of each."""
    streams = [source.streams[index] for index in copies]
    taken = dict.fromkeys(copies, 0)
    for packet in source.demux(streams):
        index = packet.stream_index
        if packet.size == 0 or (most is not None and taken[index] >= most):
            continue
        taken[index] += 1
        shift = round(times.origin / packet.time_base)
        if packet.pts is None and packet.dts is None:
            packet.pts = shift  # a cover picture, which is at no time
        if container in MOV:  # whose reader takes a last packet of no length to be cut off
            packet.duration = packet.duration or 1
        packet.dts = (packet.pts if packet.dts is None else packet.dts) - shift
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.stream = copies[index]
        yield packet
