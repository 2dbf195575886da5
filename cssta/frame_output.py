"""A folder of PNG frames as output: what they are called, written, held against their source."""

from __future__ import annotations

import hashlib
import itertools
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from cssta.complete_segment import CompletedFrame
from cssta.progress import Progress
from cssta.video import (
    Composer,
    MaskSource,
    SourceInfo,
    VideoError,
    VideoSource,
    check_replaceable,
    write_picture,
)
from cssta.video.colour import HDR_TRANSFERS
from cssta.video.folder_source import NUMBER, read_rgb, sequence_files
from cssta.video.rehearsal import CONTAINERS
from cssta.work_folder import WorkFolder, flush

log = logging.getLogger(__name__)


def frame_target(output: Path, as_frames: bool = False) -> tuple[Path, str | None] | None:
    """The folder, and the pattern of names, that an output of PNG frames goes to; None: a video.

    Frames are asked for by a name without ending, by a pattern such as `shot.%04d.png`, by
    `as_frames`, and, unless the ending is a video's, by a folder of that name.
    """
    if output.suffix.lower() == ".png" and NUMBER.search(output.name):
        return output.parent, output.name
    if not output.suffix:
        return output, None
    if as_frames or (output.suffix.lower() not in CONTAINERS and output.is_dir()):
        return output, None
    return None


class FolderOutput:
    """PNG frames, equal to the source's RGB outside the hole.

    They have the names of a source's own pictures; else they are 00000.png, 00001.png, ...

    Raises VideoError where the folder holds what must not be replaced.
    """

    description = "PNG frames"

    def __init__(
        self,
        path: Path,
        source: VideoSource,
        feather: int = 0,
        *,
        pattern: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self.source, self.overwrite = path, source, overwrite
        self.names = frame_names(source.info, pattern)
        self.composer = Composer(source.info, feather)
        check_replaceable(path, overwrite, self.names)
        if lost := _lost_in_pictures(source.info):
            log.warning("%s: PNG frames cannot hold %s", path, ", ".join(lost))

    def write(self, work: WorkFolder, number: int, frames: Iterable[CompletedFrame]) -> None:
        work.frames.mkdir(exist_ok=True)
        written = []
        for frame in frames:
            picture = self.composer.rgb(frame.source, frame.result, frame.mask)
            written.append(work.frames / self.names[frame.source.index])
            write_picture(written[-1], picture)
        flush(*written)

    def publish(
        self, work: WorkFolder, masks: MaskSource, segments: int, progress: Progress
    ) -> None:
        progress.phase("verify", self.source.info.frames)
        self.verify(work.frames, masks, progress.advance)
        check_replaceable(self.path, self.overwrite, self.names)
        earlier = work.path / "earlier"
        if self.path.exists():
            self.path.rename(earlier)  # removed with the work folder, once its successor is there
        work.frames.rename(self.path)

    def verify(
        self, folder: Path, masks: MaskSource, advance: Callable[[], None] = lambda: None
    ) -> str:
        """Read every picture and compare it with the source outside the hole.

        Returns the SHA-256 digest, which both share, of all pixels there. Raises VideoError
        ("unverified") where a picture is missing, surplus, damaged or different.
        """
        present = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
        if odd := sorted(present ^ set(self.names)):
            word = "surplus" if odd[0] in present else "missing"
            raise self._unverified(f"{odd[0]} is {word}, and {len(odd) - 1} others do not fit")
        info, digest = self.source.info, hashlib.sha256()
        with closing(self.source.frames()) as frames:
            for frame, mask in zip(frames, masks.masks(0, info.frames), strict=True):
                name = self.names[frame.index]
                try:
                    picture = read_rgb(folder / name)
                except VideoError as error:
                    raise self._unverified(f"{name} cannot be read back ({error})") from error
                ours, theirs = picture[..., :3][~mask], frame.rgb()[~mask]
                alpha = frame.alpha()
                if (
                    picture.shape[:2] != mask.shape
                    or ours.dtype != theirs.dtype
                    or not np.array_equal(ours, theirs)
                    or not (alpha is None or np.array_equal(picture[..., 3], alpha))
                ):
                    raise self._unverified(f"{name} differs from the source outside its hole")
                digest.update(theirs.tobytes())
                advance()
        log.info("%s: outside the holes all pixels are the source's, SHA-256 %s", self.path,
                 digest.hexdigest())  # fmt: skip
        return digest.hexdigest()

    def _unverified(self, problem: str) -> VideoError:
        return VideoError(
            self.path, "unverified", f"the output is not sound: {problem}", "Report this"
        )


def frame_names(info: SourceInfo, pattern: str | None = None) -> list[str]:
    """What the frames are called, in order.

    A pattern counts from the source's first number, if that is numbered without gaps, else from 0.
    """
    files = sequence_files(info.path) if info.is_folder else None
    if pattern is not None:
        first = _first_number(files or [])
        return [_numbered(pattern, number) for number in range(first, first + info.frames)]
    names = [f"{file.stem}.png" for file in files or ()]
    # (a.jpg and a.png, or A.png, beside each other must not become one)
    if names and len({name.lower() for name in names}) == info.frames:
        return names
    return [f"{number:05d}.png" for number in range(info.frames)]


def _numbered(pattern: str, number: int) -> str:
    return NUMBER.sub(lambda found: f"{number:{found[1]}{found[2]}d}", pattern, count=1)


def _first_number(files: Sequence[Path]) -> int:
    digits = [re.findall(r"\d+", file.stem)[-1:] for file in files]
    numbers = [int(found[0]) for found in digits if found]
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(files))):
        return 0
    return numbers[0]


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
