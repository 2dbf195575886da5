"""Files of a batch as listings tell them, and which mask belongs to which video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow.fs

from pipelines.batch_record import digest
from pipelines.mask_rules import ALLOWED, filled_in, place_of
from pipelines.storage import PICTURE_SUFFIXES, VIDEO_SUFFIXES, filesystem, join
from pipelines.storage_errors import named
from pipelines.storage_listing import path_of
from pipelines.storage_names import location

Stamp = dict[str, Any]


class BatchError(ValueError):
    """A batch that cannot start as configured; the message names the key and the remedy."""


class ChangedInputError(Exception):
    """A video or mask that is another than when the batch began."""

    def __init__(self, uri: str) -> None:
        super().__init__(f"{uri}: was changed while the batch ran; run the batch again")


class Listing:
    """Every file below a URI, with what tells it from a changed one: bytes and time.

    A byte of a name that is not UTF-8 is a lone surrogate in it.
    """

    def __init__(self, uri: str, endpoint: str | None) -> None:
        fs, root = filesystem(uri, endpoint)
        self.files: dict[str, Stamp] = {}
        self._folders: dict[str, dict[str, Stamp]] = defaultdict(dict)
        with named(uri, "check the address and the credentials"):
            info = fs.get_file_info(root)
            self.is_file = info.is_file
            if info.is_file:
                infos = [info]
            else:
                selector = pyarrow.fs.FileSelector(root, recursive=True, allow_not_found=True)
                infos = fs.get_file_info(selector)
        for info in infos:
            if info.is_file:
                name = relative(path_of(info), root) or PurePosixPath(root).name
                stamp = {"bytes": info.size, "modified": info.mtime_ns or 0}
                self.files[name] = stamp
                self._folders[str(PurePosixPath(name).parent)][name] = stamp

    def of(self, names: Iterable[str]) -> dict[str, Stamp]:
        """Stamps of those files that are there."""
        return {name: self.files[name] for name in names if name in self.files}

    def has_folder(self, name: str) -> bool:
        """Whether files lie directly in it."""
        return name in self._folders

    def inside(self, name: str) -> list[str]:
        """Files directly in a folder."""
        return list(self._folders.get(name, ()))

    def picture_folders(self) -> list[str]:
        """Folders below the root that hold pictures and no videos (whose posters those were)."""

        def kinds(inside: Iterable[str]) -> set[str]:
            return {PurePosixPath(name).suffix.lower() for name in inside}

        return [
            folder
            for folder, inside in self._folders.items()
            if kinds(inside) & set(PICTURE_SUFFIXES)
            and not kinds(inside) & set(VIDEO_SUFFIXES)
            and not any(part.startswith(".") for part in PurePosixPath(folder).parts)
            and folder != "."
        ]

    def stamp(self, name: str) -> Stamp:
        """What a file, or a folder of pictures, looked like; {} for what is not there."""
        if name in self.files:
            return self.files[name]
        inside = self._folders.get(name)
        if inside is None:
            return {}
        # (By their own names: the same from wherever the folder is looked at.)
        inside = {PurePosixPath(path).name: stamp for path, stamp in inside.items()}
        total = sum(stamp["bytes"] for stamp in inside.values())
        return {"pictures": len(inside), "digest": digest(inside), "bytes": total}


def stamp_of(uri: str, endpoint: str | None) -> Stamp:
    """The same of a single file or folder, wherever it is."""
    root = filesystem(uri, endpoint)[1]
    listing = Listing(uri, endpoint)
    return listing.stamp(PurePosixPath(root).name if listing.is_file else ".")


@dataclass(frozen=True)
class FoundMask:
    """A mask's URI and what it looked like when it was found."""

    uri: str
    stamp: Stamp


class MaskFolder:
    """Where a video's mask is: for `a/b.mov` video `a/b.mp4`, folder `a/b/` or picture `a/b.png`.

    A location that is itself one file is the mask of every video.
    """

    def __init__(self, uri: str, endpoint: str | None) -> None:
        self._uri = uri.rstrip("/")
        self._listing = Listing(uri, endpoint)
        if not self._listing.files:
            hint = f"; {ALLOWED}" if "{" in uri else ""
            raise BatchError(f"inference.masks {uri}: is empty or does not exist{hint}")

    def find(self, name: str) -> FoundMask:
        """Mask of the video with this relative name; FileNotFoundError says what is expected."""
        listing = self._listing
        if listing.is_file:
            return FoundMask(self._uri, next(iter(listing.files.values())))
        path = PurePosixPath(name)
        stem = str(path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path)
        candidates = [stem + end for end in VIDEO_SUFFIXES if stem + end in listing.files]
        candidates += [stem] if listing.has_folder(stem) else []
        candidates += [stem + end for end in PICTURE_SUFFIXES if stem + end in listing.files]
        if candidates:
            return FoundMask(join(self._uri, candidates[0]), listing.stamp(candidates[0]))
        raise FileNotFoundError(
            f"{name}: no mask; expected {stem}.mp4, {stem}.png or a folder {stem}/ in {self._uri}"
        )


class MaskPattern:
    """Where a video's mask is by a pattern (see `pipelines.mask_rules`): a file, or a folder."""

    def __init__(self, pattern: str, endpoint: str | None) -> None:
        self._pattern, self._place = pattern, place_of(pattern)
        self._listing = Listing(self._place, endpoint)
        if not self._listing.files:
            raise BatchError(f"inference.masks {pattern}: {self._place} is empty or does not exist")

    def find(self, name: str) -> FoundMask:
        """Mask of the video with this relative name; FileNotFoundError says what is expected."""
        mask = filled_in(self._pattern, name)
        uri, stamp = join(self._place, mask), self._listing.stamp(mask)
        if stamp:
            return FoundMask(uri, stamp)
        raise FileNotFoundError(
            f"{name}: no mask; by the rule {self._pattern} it is {uri}, which is not there"
        )

    def among(self, names: Iterable[str], folder: str) -> Iterator[str]:
        """The masks of these videos that are below a folder, and the folders that hold them."""
        place, outer = location(self._place), location(folder)
        for name in names:
            mask = filled_in(self._pattern, name)
            own = relative(join(place, mask), outer) if self._listing.stamp(mask) else ""
            if own:
                yield own
                holder = str(PurePosixPath(own).parent)
                if holder != name:  # (a folder of frames stays a video)
                    yield holder


def relative(path: str, base: str) -> str:
    """Path below `base`, or "" where it is not below it."""
    prefix = base.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else ""
