"""Trying an encoding on one frame: what the output would lose shows before any work."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av

from cssta.video.assemble import Timeline, write_packets
from cssta.video.container import open_video
from cssta.video.errors import VideoError
from cssta.video.planes import planar_format
from cssta.video.properties import VideoProperties, differences, look
from cssta.video.segment_writer import Encoding, SegmentWriter

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
    lost = misfits(info, encoding.container)
    if lost and not accept_loss:
        index, kind, codec = lost[0]
        raise VideoError(
            output,
            "format",
            f"{encoding.container} cannot hold stream {index} of {info.path.name}, "
            f"{kind}{' in ' if codec else ''}{codec}",
            f"{_other_name(info, encoding)}{ACCEPT}",
        )
    for index, kind, codec in lost:
        log.warning("%s: stream %d (%s %s) is left out, as accepted", output, index, kind, codec)
    encoding = replace(encoding, dropped=tuple(index for index, _, _ in lost))
    changes = () if info.is_folder else tuple(_changes(info, output, encoding))
    if info.is_folder:
        _one_frame(info, output, encoding, None)
    if changes and not accept_loss:
        raise VideoError(
            output,
            "format",
            f"{encoding.codec} in {encoding.container} does not keep everything: "
            + "; ".join(changes),
            f"Choose another ending or --codec, or {ACCEPT}",
        )
    for change in changes:
        log.warning("%s: %s, as accepted", output, change)
    return replace(encoding, changed=changes)


def misfits(info: SourceInfo, container: str) -> list[tuple[int, str, str]]:
    """(index, type, codec) of the source's other streams that the container cannot hold."""
    if info.is_folder or not info.other_streams:
        return []
    found = []
    with open_video(info.path) as (source, _), tempfile.TemporaryDirectory() as folder:
        for index, kind, codec in info.other_streams:
            try:
                with av.open(f"{folder}/{index}", "w", format=container) as trial:
                    copy = trial.add_stream_from_template(source.streams[index], opaque=True)
                    copy.metadata.update(source.streams[index].metadata)
                    trial.start_encoding()
            except (av.FFmpegError, ValueError):
                found.append((index, kind, codec))
    return found


def _other_name(info: SourceInfo, encoding: Encoding) -> str:
    """A beginning for the remedy: the endings under which everything fits."""
    fitting = [
        suffix
        for suffix, container in CONTAINERS.items()
        if container != encoding.container
        and holds(container, encoding.codec)
        and not misfits(info, container)
    ]
    return f"End the output's name in {fitting[0]}, or " if fitting else "Choose another, or "


def holds(container: str, codec: str) -> bool:
    """The container has a place for video of this codec."""
    with (
        tempfile.TemporaryDirectory() as folder,
        av.open(f"{folder}/x", "w", format=container) as trial,
    ):
        return codec in {av.codec.Codec(c, "w").canonical_name for c in trial.supported_codecs}


def _changes(info: SourceInfo, output: Path, encoding: Encoding) -> Iterable[str]:
    source, first = look(info.path)
    return differences(source, _one_frame(info, output, encoding, first))


def _one_frame(
    info: SourceInfo, output: Path, encoding: Encoding, frame: av.VideoFrame | None
) -> VideoProperties:
    """How a video of the source's first frame comes out."""
    if frame is None:
        name = planar_format(av.VideoFormat(info.pix_fmt))
        frame = av.VideoFrame(info.stored_width, info.stored_height, name)
    with tempfile.TemporaryDirectory() as folder:
        segment, whole = Path(folder, "segment"), Path(folder, "whole")
        try:
            with SegmentWriter(segment, encoding, info) as writer:
                writer.write(frame)
            times = Timeline(
                info.pts[:1],
                info.time_base,
                max(1, round(Fraction(1) / (info.fps * info.time_base))),
            )
            write_packets(whole, [segment], times, info, encoding, PACKETS)
        except VideoError as error:
            raise VideoError(
                output, "format", f"{encoding} does not work out: {error}", "Choose another"
            ) from error
        return look(whole)[0]
