"""The data sets that training knows by their folders, and how to come by them."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines import storage
from pipelines.data_config import DataConfig
from pipelines.manifest import Manifest
from pipelines.pictures import find_pictures
from pipelines.storage import PICTURE_SUFFIXES, EmptyBucketError, StorageError, VideoFile

SIZES = ("480p", "Full-Resolution", "1080p")
LAYOUTS = {
    "davis": (
        "DAVIS: take DAVIS-2017-trainval-480p.zip from davischallenge.org and unpack it; "
        "data.videos is the folder with JPEGImages/480p/SEQUENCE/00000.jpg and "
        "Annotations/480p/SEQUENCE/00000.png"
    ),
    "youtube-vos": (
        "YouTube-VOS: register at youtube-vos.org, take train.zip and unpack it; data.videos is "
        "the folder with train/JPEGImages/VIDEO/00000.jpg and train/Annotations/VIDEO/00000.png"
    ),
    "videos": (
        "a bucket of videos: any video files, in folders or not; or one folder of numbered "
        "pictures per video"
    ),
    "images": (
        "Places2: take train_large_places365standard.tar from places2.csail.mit.edu and unpack "
        "it; data.images is the folder with the categories' folders of .jpg (any nesting will do)"
    ),
}


@dataclass(frozen=True)
class DataSet:
    """Files or folders of frames, and where their object masks are, if there are any."""

    layout: str
    videos: tuple[VideoFile, ...]
    annotations: str | None = None


def find_data_set(cfg: DataConfig) -> DataSet:
    """What `cfg.videos` holds, by `cfg.layout` or, if that is auto, by what is there.

    Raises EmptyBucketError or StorageError, which tell how to lay it out.
    """
    endpoint = cfg.s3_endpoint
    known = None if cfg.layout == "videos" else _known_layout(cfg.videos, endpoint)
    if known is None:
        if cfg.layout in ("davis", "youtube-vos"):
            raise EmptyBucketError(
                f"{cfg.videos}: holds no JPEGImages folder. {LAYOUTS[cfg.layout]}"
            )
        return DataSet("videos", tuple(storage.list_videos(cfg.videos, endpoint)))
    layout, pictures, masks = known
    if cfg.layout not in ("auto", layout):
        raise StorageError(f"{cfg.videos}: looks like {layout}. {LAYOUTS[cfg.layout]}")
    try:
        videos = tuple(storage.list_videos(pictures, endpoint))
    except EmptyBucketError as error:
        raise EmptyBucketError(f"{pictures}: holds no frames. {LAYOUTS[layout]}") from error
    return DataSet(layout, videos, masks if storage.exists(masks, endpoint) else None)


@dataclass(frozen=True)
class MaskSequences:
    """Folders with an object's masks each. `digest`: of the names and sizes of what they hold."""

    uris: tuple[str, ...] = ()
    digest: str = ""


def mask_sequences(cfg: DataConfig) -> MaskSequences:
    """The mask sequences to draw from: those that are named, else the data set's annotations.

    None for free-form masks. Raises EmptyBucketError where there should be some, StorageError.
    """
    if cfg.masks.kind == "freeform":
        return MaskSequences()
    folder = cfg.masks.objects or find_data_set(cfg).annotations
    if folder is None:
        raise EmptyBucketError(
            f"{cfg.videos}: holds no Annotations for masks of kind {cfg.masks.kind}; unpack them "
            "beside JPEGImages, or name a folder of mask sequences as data.masks.objects"
        )
    found = find_pictures(folder, cfg.s3_endpoint)
    if not found.folders:
        raise EmptyBucketError(f"{folder}: holds no folders of png or jpg masks; put some there")
    return MaskSequences(found.folders, found.digest)


def object_sequences(cfg: DataConfig) -> list[str]:
    """The addresses of `mask_sequences`."""
    return list(mask_sequences(cfg).uris)


def find_images(cfg: DataConfig) -> Manifest:
    """The pictures under `cfg.images`, each a video of one frame. They are not opened before use.

    Raises EmptyBucketError or StorageError.
    """
    folder = str(cfg.images)
    found = find_pictures(folder, cfg.s3_endpoint)
    if not found:
        raise EmptyBucketError(f"{folder}: holds no pictures. {LAYOUTS['images']}")
    return Manifest(found, digest=found.digest)


def is_still(uri: str) -> bool:
    """Whether a "video" is one picture, over which a camera is to be moved."""
    return uri.lower().endswith(PICTURE_SUFFIXES)


def _known_layout(uri: str, endpoint: str | None) -> tuple[str, str, str] | None:
    """Layout, folder of frames and folder of annotations; None where there is no JPEGImages."""
    for root in (uri, storage.join(uri, "train")):
        pictures, masks = storage.join(root, "JPEGImages"), storage.join(root, "Annotations")
        if not storage.exists(pictures, endpoint):
            continue
        for size in SIZES:
            if storage.exists(storage.join(pictures, size), endpoint):
                return "davis", storage.join(pictures, size), storage.join(masks, size)
        return "youtube-vos", pictures, masks
    return None
