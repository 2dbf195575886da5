"""A clip's frames, from wherever they are: video, folder of frames, prepared folder or picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import cv2
import numpy as np

from cssta.samples import camera_move
from cssta.video import read_frames
from pipelines import storage
from pipelines.clip_plan import ClipRow
from pipelines.data_config import DataConfig
from pipelines.data_sets import is_still
from pipelines.prepared import open_prepared
from pipelines.retries import PATIENT_ATTEMPTS, with_retries
from pipelines.storage import StorageError

DOWNLOADS = 8  # pictures at the same time


@contextmanager
def frame_reader(uri: str, cfg: DataConfig) -> Iterator[Callable[[list[int]], np.ndarray]]:
    """While open, gives frames of a video by number, uint8 (T, h, w, 3) RGB.

    What is in a prepared folder is read from there; of a folder of frames in a bucket only those
    asked for. Raises VideoError or StorageError.
    """
    if cfg.prepared is not None:
        prepared = open_prepared(cfg.prepared, cfg.s3_endpoint)
        if uri in prepared:  # (footage to evaluate on may come from elsewhere)
            yield partial(prepared.read, uri)
            return
    remote = "://" in uri and not uri.startswith("file://")
    if is_still(uri):
        yield lambda _: np.stack([read_picture(uri, cfg.s3_endpoint)])
    elif remote and not uri.lower().endswith(storage.VIDEO_SUFFIXES):
        pictures = storage.list_pictures(uri, cfg.s3_endpoint)
        yield lambda indices: _read_pictures([pictures[i] for i in indices], cfg.s3_endpoint)
    else:
        with storage.local_copy(uri, s3_endpoint=cfg.s3_endpoint) as path:
            yield partial(read_frames, path)


def _read_pictures(uris: Sequence[str], s3_endpoint: str | None) -> np.ndarray:
    """Frames of a folder in a bucket: only those that are needed come over the network."""
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        return np.stack(list(pool.map(partial(read_picture, s3_endpoint=s3_endpoint), uris)))


def read_picture(uri: str, s3_endpoint: str | None) -> np.ndarray:
    """uint8 (h, w, 3) RGB. Raises StorageError."""
    found = with_retries(lambda: storage.read_bytes(uri, s3_endpoint), attempts=PATIENT_ATTEMPTS)
    content = np.frombuffer(found, np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise StorageError(f"{uri}: is no picture; replace or remove it")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def camera_clip(picture: np.ndarray, row: ClipRow, height: int, width: int) -> np.ndarray:
    """A camera gliding over a picture: uint8 (T, H, W, 3), drawn from the clip's seed."""
    rng = np.random.default_rng([row.mask_seed, 2])
    span = rng.uniform(0.1, 1)  # of the whole move: slow and fast ones
    time = rng.uniform(0, 1 - span) + np.linspace(0, span, len(row.indices))
    views = camera_move(picture, time, (height, width), rng)
    return np.clip(np.rint(views), 0, 255).astype(np.uint8)
