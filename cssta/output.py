"""What a completed video becomes: here, a file like its source (see also `cssta.frame_output`)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from cssta.complete_segment import CompletedFrame
from cssta.progress import Progress
from cssta.video import (
    Composer,
    Encoding,
    MaskSource,
    SegmentWriter,
    VideoError,
    VideoSource,
    assemble,
    verify,
)
from cssta.work_folder import WorkFolder


class Output(Protocol):
    """Takes segments in any order of finishing and publishes them whole."""

    path: Path
    description: str

    def write(self, work: WorkFolder, number: int, frames: Iterable[CompletedFrame]) -> None:
        """Store one segment; atomic only together with the work folder's mark."""

    def publish(
        self, work: WorkFolder, masks: MaskSource, segments: int, progress: Progress
    ) -> None:
        """Assemble, verify, and give the result its name. Raises VideoError."""


def check_output(
    target: Path, inputs: Iterable[Path | str | None], overwrite: bool, *, is_folder: bool = False
) -> None:
    """Raise VideoError if the output touches an input, or is a file that must not be replaced."""
    resolved = target.resolve()
    for path in (Path(path).resolve() for path in inputs if path is not None):
        # A sequence or picture counts with its folder, which an output folder would replace.
        folder = path if path.is_dir() else path.parent
        if resolved in (path, *folder.parents) or (folder in resolved.parents and path.is_dir()):
            raise VideoError(
                target, "exists", f"it would touch the input {path}", "Give another output name"
            )
        if is_folder and resolved == folder:
            raise VideoError(
                target, "exists", f"the input {path} is in there", "Give another output name"
            )
    if is_folder:
        return  # what it holds is looked at when the frames' names are known
    if target.is_dir():
        raise VideoError(target, "exists", "a folder has that name", "Give another output name")
    if target.exists() and not overwrite:
        raise VideoError(target, "exists", "it exists already", "Add --overwrite to replace it")


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

    def publish(
        self, work: WorkFolder, masks: MaskSource, segments: int, progress: Progress
    ) -> None:
        partial = work.path / f"whole{self.path.suffix}"
        exact = masks if self.encoding.lossless else None
        finished = [work.segment(number) for number in range(segments)]
        try:
            assemble(partial, finished, self.source.info, self.encoding)
            progress.phase("verify", self.source.info.frames)
            verify(partial, self.source, self.encoding, exact, progress.advance)
        except VideoError as error:
            raise error.about(self.path) if error.path == partial else error from error
        os.replace(partial, self.path)
