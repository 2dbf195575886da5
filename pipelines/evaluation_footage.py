"""Evaluation footage wherever it is: listed once, each sequence fetched to where it is scored.

The layouts are those of `cssta.evaluation.sequences`, in a local folder or in a bucket.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pyarrow import fs as pafs

from cssta.evaluation.sequences import (
    PARTS,
    PICTURES,
    SIZES,
    VIDEOS,
    Footage,
    find_sequences,
    mask_donor,
)
from cssta.evaluation.sequences import Sequence as Clip
from cssta.video import VideoError
from pipelines import storage

# How a sequence's masks or results are called in their folder.
KINDS = ("", ".png", ".mp4", ".mkv", ".avi")


class FootageError(ValueError):
    """Footage that cannot be found or fetched; the message names it."""


@dataclass(frozen=True)
class Bucket:
    """Sequences by name, and where each one's frames and masks are: URIs or local paths.

    `footage` has placeholders for paths; `at` puts a sequence's files where it can be read.
    """

    footage: Footage
    frames: dict[str, str]
    annotations: dict[str, str]
    endpoint: str | None = None

    @contextmanager
    def at(self, number: int, *, objects: bool) -> Iterator[Footage]:
        """Footage whose sequence of that number can be read, and its masks' donor if `objects`.

        What is not local is removed afterwards. Raises StorageError.
        """
        sequence = self.footage.sequences[number]
        donor = mask_donor(self.footage, sequence) if objects else None
        with ExitStack() as stack:

            def fetch(uri: str) -> Path:
                return stack.enter_context(storage.local_copy(uri, s3_endpoint=self.endpoint))

            found = {sequence.name: replace(sequence, frames=fetch(self.frames[sequence.name]))}
            if donor is not None:
                masks = fetch(self.annotations[donor.name])
                found[donor.name] = replace(donor, annotations=masks)
            sequences, donors = (
                tuple(found.get(clip.name, clip) for clip in clips)
                for clips in (self.footage.sequences, self.footage.donors)
            )
            yield replace(self.footage, sequences=sequences, donors=donors)


def find_footage(uri: str, endpoint: str | None = None) -> Bucket:
    """The sequences of a data set. Raises FootageError where there is none."""
    if "://" not in uri:
        try:
            footage = find_sequences(uri)
        except VideoError as error:
            raise FootageError(str(error)) from error
        return Bucket(
            footage,
            {clip.name: str(clip.frames) for clip in footage.sequences},
            {c.name: str(c.annotations) for c in footage.sequences if c.annotations},
            endpoint,
        )
    for part in ("", *PARTS):
        root = storage.join(uri, part) if part else uri
        for size in ("", *SIZES):
            below = (size,) if size else ()
            clips = _entries(storage.join(root, "JPEGImages", *below), endpoint, pictures=True)
            if clips:
                masks = _entries(storage.join(root, "Annotations", *below), endpoint)
                return _bucket("davis" if size else "youtube-vos", clips, masks, endpoint)
    clips = _entries(uri, endpoint, pictures=True)
    if not clips:
        raise FootageError(
            f"{uri}: holds no sequences: neither JPEGImages/ nor videos nor folders of pictures; "
            "name the folder that holds them"
        )
    return _bucket("folder", clips, {}, endpoint)


@contextmanager
def named_files(folder: str | None, name: str, endpoint: str | None) -> Iterator[Path | None]:
    """A local folder with what a folder or bucket holds for a sequence: NAME/, NAME.png, NAME.mp4.

    Local folders are used as they are; None stays None. Raises StorageError.
    """
    if folder is None or "://" not in folder:
        yield None if folder is None else Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="cssta-named-") as scratch, ExitStack() as stack:
        for kind in KINDS:
            uri = storage.join(folder, name + kind)
            if storage.exists(uri, endpoint):
                copy = stack.enter_context(storage.local_copy(uri, s3_endpoint=endpoint))
                (Path(scratch) / copy.name).symlink_to(copy)
        yield Path(scratch)


def _bucket(
    layout: str, clips: dict[str, str], masks: dict[str, str], endpoint: str | None
) -> Bucket:
    sequences = tuple(
        Clip(name, Path(name), Path(name) if name in masks else None) for name in sorted(clips)
    )
    return Bucket(Footage(layout, sequences), clips, masks, endpoint)


def _entries(uri: str, endpoint: str | None, pictures: bool = False) -> dict[str, str]:
    """URIs by sequence name: folders (with `pictures`, only of pictures) and videos; {} if none."""
    if not storage.exists(uri, endpoint):
        return {}
    system, path = storage.filesystem(uri, endpoint)
    found: dict[str, str] = {}
    for info in system.get_file_info(pafs.FileSelector(path)):
        name = PurePosixPath(info.path).name
        if name.startswith("."):
            continue
        if info.type == pafs.FileType.Directory:
            if not pictures or _holds_pictures(system, info.path):
                found[name] = storage.join(uri, name)
        elif PurePosixPath(name).suffix.lower() in VIDEOS:
            found[PurePosixPath(name).stem] = storage.join(uri, name)
    return found


def _holds_pictures(system: pafs.FileSystem, path: str) -> bool:
    infos: Sequence[pafs.FileInfo] = system.get_file_info(pafs.FileSelector(path))
    return any(PurePosixPath(info.path).suffix.lower() in PICTURES for info in infos)
