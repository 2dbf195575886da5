"""What a completed video becomes: a file like its source, or a folder of PNG frames."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from cssta.complete_segment import CompletedFrame
from cssta.video import (
    Composer,
    Encoding,
    MaskSource,
    SegmentWriter,
    VideoError,
    VideoSource,
    assemble,
    check_replaceable,
    verify,
    write_picture,
)
from cssta.work_folder import WorkFolder


class Output(Protocol):
    """Takes segments in any order of finishing and publishes them whole."""

    description: str

    def write(self, work: WorkFolder, number: int, frames: Iterable[CompletedFrame]) -> None:
        """Store one segment; atomic only together with the work folder's mark."""

    def publish(self, work: WorkFolder, masks: MaskSource, segments: int) -> None:
        """Assemble, verify, and give the result its name. Raises VideoError."""


def check_output(output: Path, inputs: Iterable[Path | str | None], overwrite: bool) -> None:
    """Raise VideoError if the output is an input, or exists and must not be replaced."""
    if any(path is not None and output.resolve() == Path(path).resolve() for path in inputs):
        raise VideoError(output, "exists", "the output is an input", "Give another output name")
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
    """PNG frames, equal to the source's RGB bit for bit outside the hole.

    Pictures keep the names of the source's where it is a folder; else they count from 00000.png.
    """

    description = "PNG frames"

    def __init__(self, path: Path, source: VideoSource, feather: int, overwrite: bool) -> None:
        self.path, self.info, self.overwrite = path, source.info, overwrite
        self.composer = Composer(source.info, feather)

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
        if self.path.exists():
            shutil.rmtree(self.path)
        work.frames.rename(self.path)
