"""A planned clip made real: frames decoded, scaled, cropped and flipped, and hole masks drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np

from cssta.masks import freeform_masks, shuffled_object_masks
from cssta.video import VideoError, read_frames
from pipelines import storage
from pipelines.clip_plan import ClipRow
from pipelines.config import DataConfig
from pipelines.manifest import Rejected
from pipelines.storage import StorageError


def load_clip(row: ClipRow, cfg: DataConfig) -> dict[str, np.ndarray]:
    """Decode one clip: frames uint8 (T, H, W, 3) RGB and masks bool (T, H, W), H x W as configured.

    Raises VideoError or StorageError, naming the file.
    """
    with storage.local_copy(row.uri, s3_endpoint=cfg.s3_endpoint) as path:
        return _finish(row, cfg, read_frames(path, list(row.indices)))


def load_clips(
    rows: Sequence[ClipRow], cfg: DataConfig, report: Callable[[Rejected], None]
) -> Iterator[tuple[ClipRow, dict[str, np.ndarray]]]:
    """Decode clips of one video, opening it once. A clip that fails is reported and left out."""
    try:
        with storage.local_copy(rows[0].uri, s3_endpoint=cfg.s3_endpoint) as path:
            needed = sorted({index for row in rows for index in row.indices})
            try:
                frames = dict(zip(needed, read_frames(path, needed), strict=True))
            except Exception:  # one damaged frame should not cost the other clips
                frames = {}
            for row in rows:
                try:
                    clip = (
                        np.stack([frames[index] for index in row.indices])
                        if frames
                        else read_frames(path, list(row.indices))
                    )
                    finished = _finish(row, cfg, clip)
                except Exception as error:
                    report(_rejected(row.uri, error))
                else:
                    yield row, finished
    except (StorageError, OSError) as error:
        report(_rejected(rows[0].uri, error))


def _rejected(uri: str, error: Exception) -> Rejected:
    if isinstance(error, VideoError):
        return Rejected(uri, error.reason, str(error).replace(str(error.path), uri))
    if isinstance(error, StorageError):
        return Rejected(uri, "storage", str(error))
    return Rejected(uri, "unreadable", f"{uri}: {type(error).__name__}: {error}")


def _finish(row: ClipRow, cfg: DataConfig, frames: np.ndarray) -> dict[str, np.ndarray]:
    frames = cover_and_crop(frames, cfg.height, cfg.width, row.crop_y, row.crop_x)
    if row.flip:
        frames = np.ascontiguousarray(frames[:, :, ::-1])
    return {"frames": frames, "masks": clip_masks(row, cfg)}


def cover_and_crop(
    frames: np.ndarray, height: int, width: int, crop_y: float, crop_x: float
) -> np.ndarray:
    """Scale (T, h, w, 3) to just cover height x width, then crop at crop_y, crop_x in 0..1."""
    source_height, source_width = frames.shape[1:3]
    scale = max(height / source_height, width / source_width)
    scaled = (max(round(source_height * scale), height), max(round(source_width * scale), width))
    top = round(crop_y * (scaled[0] - height))
    left = round(crop_x * (scaled[1] - width))
    if scaled != (source_height, source_width):
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        size = (scaled[1], scaled[0])
        frames = np.stack(
            [cv2.resize(frame, size, interpolation=interpolation) for frame in frames]
        )
    return np.ascontiguousarray(frames[:, top : top + height, left : left + width])


def clip_masks(row: ClipRow, cfg: DataConfig) -> np.ndarray:
    """The clip's holes, bool (T, H, W), from its mask seed alone.

    An object that is nowhere to be seen in the drawn part of its sequence gives way to free-form
    masks: a clip without any hole would teach nothing.
    """
    rng = np.random.default_rng(row.mask_seed)
    shape = (len(row.indices), cfg.height, cfg.width)
    if row.objects is not None:
        source = _read_object_masks(rng, row.objects, len(row.indices), cfg.s3_endpoint)
        if source.any():
            return shuffled_object_masks(rng, source, *shape)
    return freeform_masks(rng, *shape, ratio=cfg.masks.ratio)


def _read_object_masks(
    rng: np.random.Generator, uri: str, length: int, s3_endpoint: str | None
) -> np.ndarray:
    """Up to `length` successive masks of a sequence, bool (S, h, w); all but black is hole."""
    pictures = storage.list_pictures(uri, s3_endpoint)
    start = int(rng.integers(max(len(pictures) - length, 0) + 1))
    masks = []
    for picture in pictures[start : start + length]:
        content = np.frombuffer(storage.read_bytes(picture, s3_endpoint), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
        if image is None:
            raise StorageError(f"{picture}: is no picture; replace or remove it")
        # JPEG rings around edges; PNG holds labels of any brightness.
        masks.append((image > (0 if picture.lower().endswith(".png") else 127)).any(axis=2))
    if len({mask.shape for mask in masks}) != 1:
        raise StorageError(f"{uri}: holds no masks, or masks of several sizes")
    return np.stack(masks)
