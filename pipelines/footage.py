"""Where a job's training footage comes from: a bucket of videos, or a folder prepared from one."""

from __future__ import annotations

from pipelines import storage
from pipelines.config import DataConfig
from pipelines.manifest import Manifest, build_manifest
from pipelines.prepared import prepared_manifest


def find_footage(cfg: DataConfig) -> Manifest:
    """The usable videos, and the rejected ones. Needs a connected Ray.

    Raises EmptyBucketError without any, StorageError where the place cannot be read.
    """
    if cfg.prepared is not None:
        return prepared_manifest(cfg.prepared, cfg.height, cfg.width, cfg.s3_endpoint)
    return build_manifest(storage.list_videos(cfg.videos, cfg.s3_endpoint), cfg.s3_endpoint)
