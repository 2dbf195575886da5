"""Folders of pictures, up to millions of them: listed folder by folder, held as one block of names.

A name takes its own bytes and eight more, is not copied when the block is shared between the
processes of a node, and becomes a `VideoRow` only when it is asked for.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pyarrow as pa
from pyarrow import fs as pafs

from pipelines import storage
from pipelines.manifest import VideoRow
from pipelines.retries import with_retries
from pipelines.storage_errors import named
from pipelines.storage_listing import is_misnamed, path_of

log = logging.getLogger(__name__)

STILL_FPS = Fraction(24)
THREADS = 16  # folders listed at the same time


class Pictures(Sequence[VideoRow]):
    """The pictures under a folder, each a video of one frame, by folder and name.

    Attributes:
        folders: URIs of the folders that hold pictures themselves, sorted.
        digest: of the pictures' names and sizes, wherever they are; "" without any.
    """

    def __init__(
        self, root: str, names: pa.LargeStringArray, folders: Sequence[str], digest: str
    ) -> None:
        """`names`: paths below the URI `root`."""
        self._root, self._names = root, names
        self.folders, self.digest = tuple(folders), digest

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> VideoRow:
        uri = storage.join(self._root, self._names[index].as_py())
        return VideoRow(uri, 1, 0, 0, STILL_FPS)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, or of an object store."""
        return self._names.nbytes


def find_pictures(uri: str, s3_endpoint: str | None = None) -> Pictures:
    """All pictures under a URI without hidden files and folders; none of them is opened.

    Raises StorageError where a folder cannot be listed.
    """
    system, root = storage.filesystem(uri, s3_endpoint)

    def listed(folder: str) -> tuple[str, list[str], pa.Array, str]:
        """The folder, those in it, the names of its pictures below `root`, and their digest."""
        return with_retries(lambda: _listed(system, root, folder, uri))

    found, level = [], [root]
    with ThreadPoolExecutor(THREADS) as pool:
        while level:
            here, level = level, []
            for folder, inside, names, digest in pool.map(listed, here):
                level += inside
                if len(names):
                    found.append((folder, names, digest))
    found.sort(key=lambda one: one[0])
    scheme = "s3://" if uri.startswith("s3://") else ""
    whole = hashlib.sha256("".join(digest for _, _, digest in found).encode()).hexdigest()
    return Pictures(
        scheme + root,
        pa.concat_arrays([pa.array([], pa.large_string()), *(names for _, names, _ in found)]),
        [scheme + folder for folder, _, _ in found],
        whole[:16] if found else "",
    )


def _listed(
    system: pafs.FileSystem, root: str, folder: str, uri: str
) -> tuple[str, list[str], pa.Array, str]:
    with named(uri, "check the address and the credentials"):
        infos = system.get_file_info(pafs.FileSelector(folder))
        listed = {storage.name(path_of(info)): info for info in infos}
        for name in filter(is_misnamed, listed):
            log.warning("%s: %r is left out, as its name is not UTF-8; rename it", folder, name)
        shown = {
            name: info
            for name, info in listed.items()
            if not name.startswith(".") and not is_misnamed(name)
        }
        inside = [info.path for info in shown.values() if info.type == pafs.FileType.Directory]
        pictures = sorted(
            (name, info.size)
            for name, info in shown.items()
            if info.is_file and name.lower().endswith(storage.PICTURE_SUFFIXES)
        )
        below = folder[len(root) :].lstrip("/")
        below = f"{below}/" if below else ""
        names = pa.array([below + name for name, _ in pictures], pa.large_string())
        sizes = "".join(f"{below}{name} {size}\n" for name, size in pictures)
    return folder, inside, names, hashlib.sha256(sizes.encode()).hexdigest()
