"""What a completed video becomes: a file like its source, or a folder of PNG frames."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from cssta.complete_segment import CompletedFrame
from cssta.video import (
    Composer,
    Encoding,
    MaskSource,
    SegmentWriter,
    SourceInfo,
    VideoError,
    VideoSource,
    assemble,
    check_replaceable,
    verify,
    write_picture,
)
from cssta.work_folder import WorkFolder

log = logging.getLogger(__name__)

HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # as ffmpeg numbers them


class Output(Protocol):
    """Takes segments in any order of finishing and publishes them whole."""

    description: str

    def write(self, work: WorkFolder, number: int, frames: Iterable[CompletedFrame]) -> None:
        """Store one segment; atomic only together with the work folder's mark."""

    def publish(self, work: WorkFolder, masks: MaskSource, segments: int) -> None:
        """Assemble, verify, and give the result its name. Raises VideoError."""


def check_output(output: Path, inputs: Iterable[Path | str | None], overwrite: bool) -> None:
    """Raise VideoError if the output touches an input, or exists and must not be replaced."""
    target = output.resolve()
    for path in (Path(path).resolve() for path in inputs if path is not None):
        # A sequence or picture counts with its folder, which an output folder would replace.
        folder = path if path.is_dir() else path.parent
        if target in (path, *folder.parents) or (folder in target.parents and path.is_dir()):
            raise VideoError(
                output, "exists", f"it would touch the input {path}", "Give another output name"
            )
        if not output.suffix and target == folder:
            raise VideoError(
                output, "exists", f"the input {path} is in there", "Give another output name"
            )
    if not output.suffix:
        check_replaceable(output, overwrite)
    elif output.is_dir():
        raise VideoError(output, "exists", "a folder has that name", "Give another output name")
    elif output.exists() and not overwrite:
        raise VideoError(output, "exists", "it exists already", "Add --overwrite to replace it")


class FileOutput:
    """A video file with everything of the source but the holes' content."""

    def __init__(self, path: Path, source: VideoSource, encoding: Encoding, feather: int) -> None:
        self.path, self.source, self.encoding = path, source, encoding
        self.composer = Composer(source.info, feather)
        self.description = str(encoding)

    def write(self, work: WorkFolder, number: int, frames: Iterable[CompletedFrame]) -> None:
        with SegmentWriter(work.segment(number), self.encoding, self.source.info) as writer:
            for frame in frames:
                writer.write(self.composer.merge(frame.source, frame.result, frame.mask))

    def publish(self, work: WorkFolder, masks: MaskSource, segments: int) -> None:
        partial = work.path / f"whole{self.path.suffix}"
        assemble(
            partial, [work.segment(n) for n in range(segments)], self.source.info, self.encoding
        )
        verify(partial, self.source, self.encoding, masks if self.encoding.lossless else None)
        os.replace(partial, self.path)


class FolderOutput:
    """PNG frames 00000.png, 00001.png, ..., equal to the source's RGB outside the hole."""

    description = "PNG frames"

    def __init__(self, path: Path, source: VideoSource, feather: int, overwrite: bool) -> None:
        self.path, self.info, self.overwrite = path, source.info, overwrite
        self.composer = Composer(source.info, feather)
        if lost := _lost_in_pictures(source.info):
            log.warning("%s: PNG frames cannot hold %s", path, ", ".join(lost))

    def write(self, work: WorkFolder, number: int, frames: Iterable[CompletedFrame]) -> None:
        work.frames.mkdir(exist_ok=True)
        for frame in frames:
            picture = self.composer.rgb(frame.source, frame.result, frame.mask)
            write_picture(work.frames / f"{frame.source.index:05d}.png", picture)

    def publish(self, work: WorkFolder, masks: MaskSource, segments: int) -> None:
        written = len(list(work.frames.iterdir()))
        if written != self.info.frames:
            raise VideoError(
                self.path, "unverified", f"{written} of {self.info.frames} frames", "Report this"
            )
        check_replaceable(self.path, self.overwrite)
        earlier = work.path / "earlier"
        if self.path.exists():
            self.path.rename(earlier)  # removed with the work folder, once its successor is there
        work.frames.rename(self.path)


def _lost_in_pictures(info: SourceInfo) -> list[str]:
    """What the source has and a folder of PNG frames has no place for."""
    lost = [f"stream {index} ({kind} {codec})" for index, kind, codec in info.other_streams]
    steps = {later - earlier for earlier, later in itertools.pairwise(info.pts)}
    if not info.is_folder and len(steps) > 2:
        lost.append("the frames' uneven times")
    if info.sar != 1:
        lost.append(f"pixels of aspect {info.sar}")
    if info.colour.transfer in HDR_TRANSFERS:
        lost.append(f"the tag of its {HDR_TRANSFERS[info.colour.transfer]} colours")
    return lost
