"""Which videos and pictures a folder or bucket holds."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyarrow import fs as pafs

from pipelines.storage_errors import EmptyBucketError, StorageError, named
from pipelines.storage_systems import filesystem

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (
    *(".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm"),
    *(".3gp", ".asf", ".f4v", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts"),
    *(".mxf", ".ogv", ".ts", ".vob", ".wmv"),
)
PICTURE_SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class VideoFile:
    """A video file, or a folder of frames; `size` in bytes."""

    uri: str
    size: int


def list_videos(uri: str, s3_endpoint: str | None = None) -> list[VideoFile]:
    """All videos at or under a URI, sorted.

    A location without video files but with folders of pictures (as in DAVIS and YouTube-VOS)
    lists those folders, each being one video. Hidden files are left out.
    Files whose names are not UTF-8 are left out with a warning.
    Raises EmptyBucketError if there is neither, StorageError if the location cannot be listed.
    """
    infos = _list(uri, s3_endpoint)
    videos = [
        VideoFile(_uri_like(uri, info.path), info.size)
        for info in infos
        if info.extension and f".{info.extension.lower()}" in VIDEO_SUFFIXES
    ]
    if not videos:
        videos = _picture_folders(uri, infos)
    if not videos:
        kinds = " ".join(suffix[1:] for suffix in VIDEO_SUFFIXES)
        raise EmptyBucketError(
            f"{uri}: holds no videos ({len(infos)} other files); put some there ({kinds}, or "
            "one folder of numbered frames per video)"
        )
    return sorted(videos, key=lambda video: video.uri)


def list_picture_folders(uri: str, s3_endpoint: str | None = None) -> list[str]:
    """URIs of all folders under a URI that hold pictures themselves, sorted.

    Raises EmptyBucketError if there is none.
    """
    folders = _picture_folders(uri, _list(uri, s3_endpoint))
    if not folders:
        raise EmptyBucketError(f"{uri}: holds no folders of png or jpg pictures; put some there")
    return sorted(folder.uri for folder in folders)


def list_pictures(uri: str, s3_endpoint: str | None = None) -> list[str]:
    """URIs of the pictures directly in a folder, sorted by name."""
    pictures = [info for info in _list(uri, s3_endpoint, recursive=False) if _is_picture(info)]
    return sorted(_uri_like(uri, picture.path) for picture in pictures)


def _list(uri: str, s3_endpoint: str | None, recursive: bool = True) -> list[pafs.FileInfo]:
    """The files at or under a URI, without hidden ones."""
    system, root = filesystem(uri, s3_endpoint)
    with named(uri, "check the address and the credentials"):
        info = system.get_file_info(root)
        if info.type == pafs.FileType.NotFound:
            raise StorageError(
                f"{uri}: does not exist; give an existing folder or s3://bucket/folder"
            )
        if info.is_file:
            return [info]
        infos = system.get_file_info(pafs.FileSelector(root, recursive=recursive))
    found = [info for info in infos if info.is_file]
    for path in filter(is_misnamed, map(path_of, found)):
        log.warning("%r: is left out, as its name is not UTF-8; rename it", path)
    return [
        info
        for info, path in zip(found, map(path_of, found), strict=True)
        if not is_misnamed(path)
        and not any(part.startswith(".") for part in PurePosixPath(path[len(root) :]).parts)
    ]


def path_of(info: pafs.FileInfo) -> str:
    """Where a listed file is; a byte of its name that is not UTF-8 as a lone surrogate."""
    try:
        return info.path
    except UnicodeDecodeError as error:  # (a disk takes any name)
        return error.object.decode(errors="surrogateescape")


def is_misnamed(path: str) -> bool:
    """Whether a name has bytes that are not UTF-8, so that pyarrow cannot ask for the file."""
    return any("\ud800" <= character <= "\udfff" for character in path)


def _is_picture(info: pafs.FileInfo) -> bool:
    return bool(info.extension) and f".{info.extension.lower()}" in PICTURE_SUFFIXES


def _picture_folders(uri: str, infos: list[pafs.FileInfo]) -> list[VideoFile]:
    sizes: dict[str, int] = {}
    for info in filter(_is_picture, infos):
        folder = str(PurePosixPath(info.path).parent)
        sizes[folder] = sizes.get(folder, 0) + info.size
    return [VideoFile(_uri_like(uri, folder), size) for folder, size in sizes.items()]


def _uri_like(uri: str, path: str) -> str:
    return f"s3://{path}" if uri.startswith("s3://") else path
