"""Encoding a run of frames to a file of its own, later joined to others packet by packet."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av

from cssta.video.colour import Colour, from_rgb, to_rgb
from cssta.video.errors import VideoError
from cssta.video.planes import UNSCALED, planar, planar_format, planes
from cssta.video.properties import MasteringDisplay

if TYPE_CHECKING:
    from cssta.video.source import SourceInfo

# Matroska keeps almost every codec's packets and headers; the times in it are frame numbers.
SEGMENT_FORMAT, QUICKTIME_ONLY = "matroska", ("png", "qtrle")
TICK = Fraction(1, 1000)  # the unit of time: frame n of a segment is at n ticks

LONGEST_DELAY = 64  # more frames than any encoder holds back to show later


@dataclass(frozen=True)
class Encoding:
    """How an output is written, decided before any work (see `choose_encoding`).

    Attributes:
        codec, encoder: ffmpeg's names, e.g. "hevc" and "libx265".
        pix_fmt: what the encoder is given.
        options: of the encoder.
        threads: of ffmpeg's own for it.
        container: ffmpeg's name of the output's format, e.g. "mp4".
        rate: frames per second that the encoder is told.
        lossless: every sample outside the holes must come out as it went in.
        tag: four letters for the codec in the container; "" for the usual ones.
        colour, sar, matrix, mastering, light: what the output says of itself (see
            `VideoProperties`).
        dropped: numbers of the source's streams that are left out, as the user wanted.
        changed: ways in which the copy may differ, as the user wanted (see `differences`).
    """

    codec: str
    encoder: str
    pix_fmt: str
    container: str
    rate: Fraction
    colour: Colour
    sar: Fraction = Fraction(1)
    matrix: tuple[int, ...] | None = None
    mastering: MasteringDisplay | None = None
    light: tuple[int, int] | None = None
    options: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    lossless: bool = False
    tag: str = ""
    dropped: tuple[int, ...] = ()
    changed: tuple[str, ...] = ()

    def __str__(self) -> str:
        quality = f" crf {self.options['crf']}" if "crf" in self.options else ""
        kind = " without loss" if self.lossless else quality
        return f"{self.codec}{kind}, {self.pix_fmt}, in {self.container}"


class SegmentWriter:
    """Context manager that encodes frames to `path`, which appears whole or not at all.

    The first frame is a key frame, and none refers to another segment.
    """

    def __init__(self, path: str | Path, encoding: Encoding, info: SourceInfo) -> None:
        self.path = Path(path)
        self.encoding, self.info = encoding, info
        self.frames = self._packets = 0
        self.partial = self.path.with_name(f".{self.path.name}.partial")
        self._container: av.container.OutputContainer | None = None
        self._delay = 0 if encoding.codec in QUICKTIME_ONLY else LONGEST_DELAY

    def __enter__(self) -> SegmentWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.encoding.codec in QUICKTIME_ONLY:
                kind, options = "mov", {"video_track_timescale": str(TICK.denominator)}
            else:
                kind, options = SEGMENT_FORMAT, {}
            self._container = av.open(str(self.partial), "w", format=kind, options=options)
        except (av.FFmpegError, OSError) as error:
            raise self._unwritable(error) from error
        try:
            self._open_stream()
        except BaseException:
            self._discard()
            raise
        return self

    def _open_stream(self) -> None:
        encoding, info = self.encoding, self.info
        os.environ.setdefault("SVT_LOG", "1")  # errors only; it prints by itself
        stream = self._container.add_stream(
            encoding.encoder, rate=encoding.rate, options=dict(encoding.options)
        )
        stream.width, stream.height = info.stored_width, info.stored_height
        stream.pix_fmt = encoding.pix_fmt
        context = stream.codec_context
        context.time_base = 1 / encoding.rate
        context.thread_count = encoding.threads
        context.sample_aspect_ratio = encoding.sar
        tag(context, encoding.colour)
        self._stream = stream

    def write(self, frame: av.VideoFrame) -> None:
        """Append a frame of the stored size, as `Composer.merge` gives it. Raises VideoError."""
        frame = as_format(frame, self.encoding.pix_fmt, self.encoding.colour)
        tag(frame, self.encoding.colour)
        frame.pts, frame.time_base = self.frames, 1 / self.encoding.rate
        frame.pict_type = 0  # the source's choice of key frames is not ours
        self._mux(frame)
        self.frames += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        try:
            for packet in self._stream.encode(frame):
                packet.pts = round(packet.pts * packet.time_base * self.encoding.rate)
                # x265 gives no times of decoding that could be used where there are few frames.
                packet.dts, packet.time_base = self._packets - self._delay, TICK
                self._container.mux(packet)
                self._packets += 1
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> VideoError:
        return VideoError(
            self.path, "unwritable", f"writing failed ({error})", "Check folder, rights and space"
        )

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if kind is None:
                if self.frames == 0:
                    raise VideoError(
                        self.path, "no-frames", "no frame was given", "Write at least one"
                    )
                self._mux(None)
                self._close()
                os.replace(self.partial, self.path)
        finally:
            self._discard()

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


def tag(target: av.VideoFrame | av.VideoCodecContext, colour: Colour) -> None:
    """Set a frame's or a codec's colour tags."""
    target.color_primaries, target.color_trc = colour.primaries, colour.transfer
    target.colorspace, target.color_range = colour.matrix, colour.range


def as_format(frame: av.VideoFrame, name: str, colour: Colour) -> av.VideoFrame:
    """The frame in another pixel format: the same samples where that can be, else converted.

    `colour` is what the converted samples mean.
    """
    if frame.format.name == name:
        return frame
    if planar_format(av.VideoFormat(name)) == planar_format(frame.format):
        # Repacked, on one thread as in `planar`.
        return frame.reformat(format=name, interpolation=UNSCALED, threads=1)
    target = av.VideoFrame(frame.width, frame.height, name)
    target.pts = frame.pts
    if _same_samples(frame.format, target.format):
        for old, new in zip(planes(planar(frame)), planes(target), strict=True):
            new[:] = old
        return target
    tag(target, colour)
    pixels = to_rgb(frame)
    return as_format(from_rgb(pixels, target), name, colour)


def _same_samples(one: av.VideoFormat, other: av.VideoFormat) -> bool:
    """Planar formats that differ in name (yuvj420p, yuv420p) and perhaps in range only."""
    return one.name.replace("yuvj", "yuv") == other.name.replace("yuvj", "yuv")
