"""Trying an encoding on one frame: what the output would lose shows before any work."""

from __future__ import annotations

import itertools
import logging
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av

from cssta.video.assemble import MATROSKA, Timeline, write_packets
from cssta.video.container import open_video
from cssta.video.errors import VideoError
from cssta.video.planes import planar_format
from cssta.video.properties import VideoProperties, differences, look
from cssta.video.segment_writer import Encoding, SegmentWriter
from cssta.video.streams import other_streams

if TYPE_CHECKING:
    from cssta.video.source import SourceInfo

log = logging.getLogger(__name__)

CONTAINERS = {
    ".mp4": "mp4",
    ".mkv": "matroska",
    ".mov": "mov",
    ".webm": "webm",
    ".m4v": "mp4",
}
PACKETS = 3  # copied of each other stream: enough for a container to look at them
ACCEPT = "accept the loss with --accept-loss"


def rehearsed(info: SourceInfo, output: Path, encoding: Encoding, accept_loss: bool) -> Encoding:
    """The encoding as it will be used. Raises VideoError ("format") where something gets lost.

    With `accept_loss` that is told in the log and noted in the encoding instead.
    """
    _check_clock(info, output, encoding)
    lost = misfits(info, encoding.container)
    if lost and not accept_loss:
        index, kind, codec = lost[0]
        raise VideoError(
            output,
            "format",
            f"{encoding.container} cannot hold stream {index} of {info.path.name}, "
            f"{kind}{' in ' if codec else ''}{codec}",
            _remedy(info, output, encoding),
        )
    for index, kind, codec in lost:
        log.warning("%s: stream %d (%s %s) is left out, as accepted", output, index, kind, codec)
    encoding = replace(encoding, dropped=tuple(index for index, _, _ in lost))
    try:
        changed = changes(info, output, encoding)
    except VideoError as error:
        problem = f"{encoding} does not go together ({error.__cause__ or error})"
        raise VideoError(output, "format", problem, _remedy(info, output, encoding)) from error
    if changed and not accept_loss:
        problem = f"{encoding.codec} in {encoding.container} does not keep everything: "
        raise VideoError(
            output, "format", problem + "; ".join(changed), _remedy(info, output, encoding)
        )
    for change in changed:
        log.warning("%s: %s, as accepted", output, change)
    return replace(encoding, changed=changed)


def _check_clock(info: SourceInfo, output: Path, encoding: Encoding) -> None:
    """Matroska counts milliseconds: no two frames may fall into one."""
    if encoding.container in MATROSKA:
        ticks = [round(time * info.time_base * 1000) for time in info.pts]
        for frame, (earlier, later) in enumerate(itertools.pairwise(ticks)):
            if earlier == later:
                raise VideoError(
                    output,
                    "format",
                    f"frames {frame} and {frame + 1} are less than a millisecond apart, which "
                    f"{encoding.container} cannot say",
                    "End the output's name in .mp4",
                )


def misfits(info: SourceInfo, container: str) -> list[tuple[int, str, str]]:
    """(index, type, codec) of the source's other streams that the container cannot hold."""
    if info.is_folder or not info.other_streams:
        return []
    found = []
    with open_video(info.path) as (source, _), tempfile.TemporaryDirectory() as folder:
        for stream in other_streams(source, info):
            try:
                with av.open(f"{folder}/{stream.index}", "w", format=container) as trial:
                    copy = trial.add_stream_from_template(stream, opaque=True)
                    copy.metadata.update(stream.metadata)
                    trial.start_encoding()
            except (av.FFmpegError, ValueError):
                codec = stream.codec_context.name if stream.codec_context else ""
                found.append((stream.index, stream.type, codec))
    return found


def _remedy(info: SourceInfo, output: Path, encoding: Encoding) -> str:
    """The ending under which everything fits, where there is one."""
    odd = info.stored_height % 2 or info.stored_width % 2
    if odd and "420" in encoding.pix_fmt and encoding.codec in ("h264", "hevc"):
        return "Its size is odd: choose --codec av1, or --pix-fmt yuv444p"
    usual = [".mkv"] if encoding.lossless else []
    for suffix in (*usual, *CONTAINERS):
        container = CONTAINERS[suffix]
        tag = encoding.tag if encoding.codec == "prores" else ""
        other = replace(encoding, container=container, tag=tag)
        try:
            fits = not misfits(info, container) and not changes(info, output, other)
        except VideoError:
            continue
        if fits:
            return f"End the output's name in {suffix}, or {ACCEPT}"
    return f"Choose another --codec or --pix-fmt, or {ACCEPT}"


def changes(info: SourceInfo, output: Path, encoding: Encoding) -> tuple[str, ...]:
    """What a player would take differently (see `differences`). Raises VideoError ("format")."""
    if info.is_folder:
        _one_frame(info, output, encoding, None)
        return ()
    source, first = look(info.path)
    return tuple(differences(source, _one_frame(info, output, encoding, first)))


def _one_frame(
    info: SourceInfo, output: Path, encoding: Encoding, frame: av.VideoFrame | None
) -> VideoProperties:
    """How a video of the source's first frame comes out."""
    if frame is None:
        name = planar_format(av.VideoFormat(info.pix_fmt))
        frame = av.VideoFrame(info.stored_width, info.stored_height, name)
    with tempfile.TemporaryDirectory() as folder:
        segment, whole = Path(folder, "segment"), Path(folder, "whole")
        with SegmentWriter(segment, encoding, info) as writer:
            writer.write(frame)
        times = Timeline(
            info.pts[:1],
            info.time_base,
            max(1, round(Fraction(1) / (info.fps * info.time_base))),
        )
        write_packets(whole, [segment], times, info, encoding, PACKETS)
        return look(whole)[0]
