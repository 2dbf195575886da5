"""Copies of videos and what they hold: facts read with PyAV alone, to be compared."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cssta.video import (
    Composer,
    SegmentWriter,
    SourceInfo,
    assemble,
    choose_encoding,
    open_source,
    verify,
)

SIDE_DATA = {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DISPLAYMATRIX"}
TAGS = {"language", "title", "name"}


def video_facts(path: Path) -> dict:
    """Of the first video stream: everything that a player goes by, times in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        times = sorted(p.pts * stream.time_base for p in container.demux(stream) if p.size)
        duration = stream.duration and stream.duration * stream.time_base
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        first, context = frames[0], stream.codec_context
        return {
            "codec": context.codec.canonical_name,
            "size": (first.width, first.height),
            "pix_fmt": first.format.name,
            "sar": stream.sample_aspect_ratio or context.sample_aspect_ratio or Fraction(1),
            "rotation": first.rotation,
            "interlaced": bool(first.interlaced_frame),
            "colour": (first.color_primaries, first.color_trc, first.colorspace),
            "full": first.color_range == 2,
            "hdr": {d.type.name: bytes(d) for d in first.side_data if d.type.name in SIDE_DATA},
            "times": times,
            "shown": [frame.pts * frame.time_base for frame in frames],
            "duration": duration,
        }


def other_facts(path: Path) -> list[dict]:
    """Of each stream but the first video and the chapters' own track, in order."""
    facts = []
    with av.open(str(path)) as container:
        video = container.streams.video[0].index
        told = bool(container.chapters())
        indices = [
            s.index
            for s in container.streams
            if s.index != video and not (told and s.type == "data")
        ]
    for index in indices:
        with av.open(str(path)) as container:
            copy = container.streams[index]
            digest, times = hashlib.sha256(), []
            if copy.type == "attachment":
                digest.update(copy.data)
            else:
                for packet in container.demux(copy):
                    if packet.size and not (copy.type == "subtitle" and bytes(packet) == b"\0\0"):
                        digest.update(bytes(packet))
                        times.append((packet.pts or 0) * packet.time_base)
            context = copy.codec_context
            facts.append(
                {
                    "type": copy.type,
                    "codec": context.codec.canonical_name if context else _said(copy.metadata),
                    "bytes": digest.hexdigest(),
                    "times": times,
                    "tags": {k: v for k, v in copy.metadata.items() if k in TAGS and v != "und"},
                }
            )
    return facts


def container_facts(path: Path) -> dict:
    with av.open(str(path)) as container:
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"].get("title"))
            for c in container.chapters()
        ]
        return {"chapters": chapters, "title": container.metadata.get("title")}


def rewritten(source: Path, output: Path, cuts=(5, 6), checked: bool = True, **choices) -> Path:
    """`source` written to `output` in segments, with every frame's hole made negative."""
    video = open_source(source)
    info = video.info
    encoding = choose_encoding(info, output, **choices)
    composer, segments = Composer(info), []
    edges = [0, *(cut for cut in cuts if cut < info.frames), info.frames]
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        segments.append(output.with_name(f"{output.stem}-{number}.segment"))
        with SegmentWriter(segments[-1], encoding, info) as writer:
            for frame in video.frames(start, stop):
                negative = np.iinfo(frame.rgb().dtype).max - frame.rgb()
                writer.write(composer.merge(frame, negative, hole(info)))
    assemble(output, segments, info, encoding)
    if checked:
        verify(output, video, encoding, Holes(info) if choices.get("lossless") else None)
    return output


def hole(info: SourceInfo) -> np.ndarray:
    """A box off the middle, its edges at odd pixels."""
    mask = np.zeros((info.height, info.width), bool)
    mask[info.height // 4 + 1 : info.height // 2, info.width // 4 + 1 : info.width // 2 + 4] = True
    return mask


class Holes:
    """A mask source of the same hole in all frames."""

    def __init__(self, info: SourceInfo) -> None:
        self.info = info

    def masks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        for _ in range(start, self.info.frames if stop is None else stop):
            yield hole(self.info)


def _said(metadata: dict[str, str]) -> dict[str, str]:
    """Without who wrote it."""
    return {key: value for key, value in metadata.items() if key != "handler_name"}
