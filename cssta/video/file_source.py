"""Frames of a video file in its own samples, decoded by PyAV."""

from __future__ import annotations

import bisect
import itertools
import logging
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
from av.sidedata.sidedata import Type

from cssta.video.colour import Colour
from cssta.video.container import decode_frames, open_video
from cssta.video.errors import VideoError
from cssta.video.planes import bit_depth, has_alpha, planar
from cssta.video.scan import scan
from cssta.video.source import SourceFrame, SourceInfo, VideoSource

log = logging.getLogger(__name__)

KEYS_TRIED = 3  # key frames to seek to before giving up on seeking


class FileSource(VideoSource):
    """A video file. Raises VideoError where it cannot be read or displayed as it is stored.

    `progress` is called whenever a packet is read or decoded, now and later, in whichever thread
    does it: also for the frames on the way to those asked for, which may be all of a long file.
    """

    def __init__(self, path: Path, progress: Callable[[], None] = lambda: None) -> None:
        self._progress = progress
        self._scan = scan(path, progress)
        self.info = self._describe(path)
        self._seekable = self._scan.seekable
        self._report()

    def _describe(self, path: Path) -> SourceInfo:
        found = self._scan
        with closing(decode_frames(path)) as frames:
            first = next(frames)
        with open_video(path) as (container, stream):
            others = tuple(
                (s.index, s.type, s.codec_context.name if s.codec_context else "")
                for s in container.streams
                if s.index != stream.index
            )
            native = _native(path, first)
            rotation = _rotation(path, first)
            height, width = first.height, first.width
            upright = (width, height) if rotation % 180 else (height, width)
            fps = _rate(found.fps, found.times, stream.time_base)
            return SourceInfo(
                path=path,
                frames=found.frames,
                height=upright[0],
                width=upright[1],
                stored_height=height,
                stored_width=width,
                rotation=rotation,
                pts=found.times,
                time_base=stream.time_base,
                fps=fps,
                codec=stream.codec_context.name,
                pix_fmt=native.format.name,
                bit_depth=bit_depth(native.format),
                sar=stream.sample_aspect_ratio or Fraction(1),
                colour=Colour.of(first),
                container=container.format.name,
                bit_rate=round(8 * found.size * fps / found.frames),
                is_folder=False,
                has_alpha=has_alpha(native.format),
                stream=stream.index,
                other_streams=others,
            )

    def _report(self) -> None:
        info, found = self.info, self._scan
        log.info(
            "%s: read with PyAV (%s, %s), which gives the stored samples unchanged",
            info.path,
            info.codec,
            info.pix_fmt,
        )
        if found.declared > found.frames:
            log.warning(
                "%s is truncated or its header is wrong: %d of %d frames can be read",
                info.path,
                found.frames,
                found.declared,
            )
        if found.repaired:
            log.warning(
                "%s: %d of %d frames have no time of their own; they are put in between by the "
                "order in which they decode",
                info.path,
                found.repaired,
                found.frames,
            )

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[SourceFrame]:
        stop = self.info.frames if stop is None else stop
        self.check_range(start, stop)
        if start == stop:
            return
        expected = start
        with closing(self._decoded_from(start)) as decoded:
            for index, frame in decoded:
                if index < start:
                    continue
                if index != expected:
                    break
                self._check_time(index, frame)
                yield self._wrap(index, frame)
                expected += 1
                if expected == stop:
                    self._check_end(stop, decoded)
                    return
        if self._seekable and self._keys_up_to(start)[-1] > 0:
            # After a seek, the times of frames are not what they were.
            log.info("%s: read without seeking from now on", self.info.path)
            self._seekable = False
            yield from self.frames(expected, stop)
            return
        raise VideoError(
            self.info.path,
            "truncated",
            f"frame {expected} of {self.info.frames} cannot be decoded",
            "Copy it again whole, or repair it with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4",
        )

    def pick(self, indices: Iterable[int]) -> dict[int, SourceFrame]:
        wanted = sorted(set(indices))
        picked: dict[int, SourceFrame] = {}
        while wanted:
            run = self._run(wanted)
            for frame in self.frames(run[0], run[-1] + 1):
                if frame.index in run:
                    picked[frame.index] = frame
            wanted = wanted[len(run) :]
        return picked

    def _run(self, wanted: list[int]) -> list[int]:
        """The first of the wanted frames, as many as are best decoded in one go."""
        for count, (earlier, later) in enumerate(itertools.pairwise(wanted), start=1):
            key = self._keys_up_to(later)[-1]
            if self._seekable and key > earlier:
                return wanted[:count]
        return wanted

    def _keys_up_to(self, index: int) -> list[int]:
        """The nearest frames up to `index` from which decoding can start, in order."""
        place = bisect.bisect_right(self._scan.keys, index)
        return list(self._scan.keys[max(0, place - KEYS_TRIED) : place]) or [0]

    def _decoded_from(self, index: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Numbered frames from the last key frame up to `index` on, or from the start.

        A container without an index may seek too far: then an earlier key frame is asked for. What
        decodes after a seek counts only if it begins at the key frame: before the next one there
        may be frames that refer to what was passed over.
        """
        keys = self._keys_up_to(index)
        for key in reversed(keys if self._seekable else []):
            if key == 0:
                break
            decoded = self._sought(self.info.pts[key])
            first = next(decoded, None)
            if first is not None and first[0] <= keys[-1]:
                with closing(decoded):
                    yield first
                    yield from decoded
                return
            decoded.close()
        if self._seekable and keys[-1] > 0:
            log.info("%s: frame %d is decoded to from the start", self.info.path, index)
        yield from enumerate(decode_frames(self.info.path, progress=self._progress))

    def _sought(self, time: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames after a seek, numbered by their times, as long as those are known ones."""
        for frame in decode_frames(self.info.path, time, self._progress):
            shown = _time(frame)
            place = -1 if shown is None else bisect.bisect_left(self.info.pts, shown)
            if place < 0 or place == self.info.frames or self.info.pts[place] != shown:
                return
            yield place, frame

    def _check_time(self, index: int, frame: av.VideoFrame) -> None:
        """Raise VideoError if a frame is not the one that the container has at its place."""
        if not self._scan.repaired and _time(frame) != self.info.pts[index]:
            raise VideoError(
                self.info.path,
                "corrupt",
                f"what decodes as frame {index} is not the one that its container lists there",
                "Repair it with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4",
            )

    def _check_end(self, stop: int, decoded: Iterator[tuple[int, av.VideoFrame]]) -> None:
        """Raise VideoError if there are more frames than the container lists."""
        if stop == self.info.frames and next(decoded, None) is not None:
            raise VideoError(
                self.info.path,
                "corrupt",
                f"more frames decode than the {stop} that its container lists",
                "Repair it with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4",
            )

    def _wrap(self, index: int, frame: av.VideoFrame) -> SourceFrame:
        info = self.info
        native = planar(frame)
        size = (native.height, native.width)
        if size != (info.stored_height, info.stored_width):
            raise VideoError(
                info.path,
                "frame-size",
                f"the picture size changes from {info.stored_width}x{info.stored_height} to "
                f"{native.width}x{native.height} at frame {index}",
                "Re-encode it to one size with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4",
            )
        if native.format.name != info.pix_fmt:
            raise VideoError(
                info.path,
                "format",
                f"the pixel format changes from {info.pix_fmt} to {native.format.name} "
                f"at frame {index}",
                "Re-encode it to one format with: ffmpeg -i INPUT -c:v libx264 OUTPUT.mp4",
            )
        return SourceFrame(index, native, info.rotation)


def _time(frame: av.VideoFrame) -> int | None:
    return frame.dts if frame.pts is None else frame.pts


def _native(path: Path, frame: av.VideoFrame) -> av.VideoFrame:
    """The frame in planes. Raises VideoError for samples that are no whole numbers of 8 to 16."""
    if bit_depth(frame.format) > 16 or "f16" in frame.format.name:
        raise VideoError(
            path,
            "format",
            f"its samples are floating-point numbers ({frame.format.name})",
            "Convert it to 16 bits with: ffmpeg -i INPUT -c:v ffv1 -pix_fmt gbrp16 OUTPUT.mkv",
        )
    return planar(frame)


def _rotation(path: Path, frame: av.VideoFrame) -> int:
    """Degrees counter-clockwise, 0 to 270. Raises VideoError if it is not only turned by 90s."""
    turned = round(frame.rotation / 90) * 90
    matrix = next(
        (bytes(data) for data in frame.side_data if data.type == Type.DISPLAYMATRIX), None
    )
    mirrored = False
    if matrix is not None:
        a, b, _, c, d = struct.unpack("=5i", matrix[:20])
        mirrored = a * d - b * c < 0
    if mirrored or abs(frame.rotation - turned) > 1:
        how = "mirrored" if mirrored else f"turned by {frame.rotation} degrees"
        raise VideoError(
            path,
            "format",
            f"its container has it shown {how}",
            "Turn the picture itself with: ffmpeg -i INPUT -c:v libx264 -crf 12 OUTPUT.mp4",
        )
    return turned % 360


def _rate(stated: Fraction, times: array[int], time_base: Fraction) -> Fraction:
    """The stated frame rate where the times bear it out to 1 % or a frame, else their average."""
    if len(times) < 2:
        return stated
    seconds = (times[-1] - times[0]) * time_base
    expected = (len(times) - 1) / stated
    if abs(expected - seconds) <= max(seconds / 100, 1 / stated):
        return stated
    return ((len(times) - 1) / seconds).limit_denominator(1001)
