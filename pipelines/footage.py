"""Where a job's training footage comes from: a data set, or a folder prepared from one."""

from __future__ import annotations

from pipelines import storage
from pipelines.data_config import DataConfig
from pipelines.data_sets import LAYOUTS, find_data_set
from pipelines.manifest import Manifest, build_manifest
from pipelines.prepared import prepared_manifest
from pipelines.storage import EmptyBucketError


def find_footage(cfg: DataConfig) -> Manifest:
    """The usable videos, and the rejected ones. Needs a connected Ray.

    Raises EmptyBucketError without any, StorageError where the place cannot be read.
    """
    if cfg.images is not None and not storage.exists(cfg.images, cfg.s3_endpoint):
        raise EmptyBucketError(f"{cfg.images}: does not exist. {LAYOUTS['images']}")
    if cfg.prepared is not None:
        return prepared_manifest(cfg.prepared, cfg.height, cfg.width, cfg.s3_endpoint)
    return build_manifest(find_data_set(cfg).videos, cfg.s3_endpoint)
