"""A planned clip made real: frames decoded, scaled, cropped and flipped, and hole masks drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np

from cssta.masks import freeform_masks, shuffled_object_masks
from cssta.video import VideoError
from pipelines import storage
from pipelines.clip_frames import camera_clip, frame_reader, read_picture
from pipelines.clip_plan import CLIPS_PER_OPEN, ClipRow
from pipelines.data_config import DataConfig
from pipelines.data_sets import is_still
from pipelines.failures import CRASHED, MASK, DecoderCrashError
from pipelines.last_words import LastWords
from pipelines.manifest import Rejected
from pipelines.retries import PATIENT_ATTEMPTS, with_retries
from pipelines.storage import StorageError

Clip = dict[str, np.ndarray]
"""frames uint8 (T, H, W, 3) RGB, masks bool (T, H, W)."""


def no_attempt(uri: str) -> AbstractContextManager[None]:
    """Stands for `Failures.attempt` where nobody counts."""
    return nullcontext()


class LostClipError(ValueError):
    """Neither a clip's video nor any of its substitutes can be read."""


def load_clip(row: ClipRow, cfg: DataConfig) -> dict[str, np.ndarray]:
    """Decode one clip: frames uint8 (T, H, W, 3) RGB and masks bool (T, H, W), H x W as configured.

    Raises VideoError or StorageError, naming the file; what may pass is tried again first.
    """
    with ExitStack() as stack:
        read = with_retries(lambda: stack.enter_context(frame_reader(row.uri, cfg)))
        return _finish(row, cfg, read([0] if is_still(row.uri) else list(row.indices)), None)


def load_clips(
    rows: Sequence[ClipRow],
    cfg: DataConfig,
    report: Callable[[Rejected], None] = lambda rejected: None,
    substitutes: Callable[[ClipRow], Iterable[ClipRow]] = lambda row: (),
    attempt: Callable[[str], AbstractContextManager[LastWords | None]] = no_attempt,
) -> Iterator[tuple[ClipRow, dict[str, np.ndarray]]]:
    """Decode clips, one for every row and in their order; see `load_clip`.

    Clips of the same video are decoded together, CLIPS_PER_OPEN at a time. What fails is reported:
    a clip is then replaced by the first of its `substitutes` that can be read, an object's mask by
    a free-form one. `attempt(uri)` is entered around all that is done with a file once it is here;
    what it gives is told of errors that a broken process may have raised. Raises
    LostClipError if no substitute can be read, and the StorageError that did not pass in time: what
    a network's errors put another clip in place of would be known to nobody who starts again.
    """
    held: dict[int, dict[str, np.ndarray] | None] = {}
    for place, row in enumerate(rows):
        if row.number not in held:
            same = [other for other in islice(rows, place, None) if other.uri == row.uri]
            held |= _load_visit(same[:CLIPS_PER_OPEN], cfg, report, attempt)
        clip = held.pop(row.number)
        if clip is not None:
            yield row, clip
        else:
            yield _load_substitute(row, cfg, report, attempt, substitutes(row))


def _load_visit(
    rows: Sequence[ClipRow],
    cfg: DataConfig,
    report: Callable[[Rejected], None],
    attempt: Callable[[str], AbstractContextManager[LastWords | None]],
) -> dict[int, dict[str, np.ndarray] | None]:
    """The clips of one video by number; None for those that fail."""
    clips: dict[int, dict[str, np.ndarray] | None] = dict.fromkeys(row.number for row in rows)
    uri = rows[0].uri
    with ExitStack() as stack:
        try:
            read = with_retries(
                lambda: stack.enter_context(frame_reader(uri, cfg)), attempts=PATIENT_ATTEMPTS
            )
            words = stack.enter_context(attempt(uri))
        except (StorageError, DecoderCrashError, OSError) as error:
            _raise_if_passing(error)
            report(rejected_video(uri, error))
            return clips
        # (of a picture one copy will do, over which a camera is moved)
        still = is_still(uri)
        needed = [0] if still else sorted({index for row in rows for index in row.indices})
        try:
            frames = dict(zip(needed, read(needed), strict=True))
        except Exception as error:  # one damaged frame should not cost the other clips
            _raise_if_passing(error)
            _doubt(words, error)
            frames = {}
        for row in rows:
            indices = [0] if still else list(row.indices)
            try:
                clip = np.stack([frames[i] for i in indices]) if frames else read(indices)
            except Exception as error:
                _raise_if_passing(error)
                _doubt(words, error)
                report(rejected_video(uri, error))
            else:
                clips[row.number] = _finish(row, cfg, clip, report)
    return clips


def _raise_if_passing(error: Exception) -> None:
    """Storage that is away says nothing against a file."""
    if isinstance(error, StorageError) and error.transient:
        raise error


def _doubt(words: LastWords | None, error: Exception) -> None:
    """What is neither the video's error nor the storage's may be that of a broken process."""
    if words is not None and not isinstance(error, (VideoError, StorageError)):
        words.doubt(error)


def _load_substitute(
    row: ClipRow,
    cfg: DataConfig,
    report: Callable[[Rejected], None],
    attempt: Callable[[str], AbstractContextManager[LastWords | None]],
    substitutes: Iterable[ClipRow],
) -> tuple[ClipRow, dict[str, np.ndarray]]:
    tried = [row.uri]
    for other in substitutes:
        tried.append(other.uri)
        clip = _load_visit([other], cfg, report, attempt)[other.number]
        if clip is not None:
            return other, clip
    raise LostClipError(
        f"clip {row.number}: none of {len(tried)} videos can be read: "
        f"{', '.join(tried[:5])}{', ...' if len(tried) > 5 else ''}; "
        "see that they are still there and whole"
    )


def rejected_video(uri: str, error: Exception) -> Rejected:
    """What to tell of a video that failed with this error, whatever it was."""
    if isinstance(error, VideoError):
        return Rejected(uri, error.reason, str(error).replace(str(error.path), uri))
    if isinstance(error, StorageError):
        return Rejected(uri, "storage", str(error))
    if isinstance(error, DecoderCrashError):
        return Rejected(uri, CRASHED, str(error))
    return Rejected(uri, "unreadable", f"{uri}: {type(error).__name__}: {error}")


def _finish(
    row: ClipRow,
    cfg: DataConfig,
    frames: np.ndarray,
    report: Callable[[Rejected], None] | None,
) -> dict[str, np.ndarray]:
    if is_still(row.uri):
        frames = camera_clip(frames[0], row, cfg.height, cfg.width)
    else:
        frames = cover_and_crop(frames, cfg.height, cfg.width, row.crop_y, row.crop_x)
    if row.flip:
        frames = np.ascontiguousarray(frames[:, :, ::-1])
    try:
        masks = clip_masks(row, cfg)
    except StorageError as error:
        if report is None or error.transient:
            raise
        report(Rejected(str(row.objects), MASK, str(error)))
        masks = clip_masks(replace(row, objects=None), cfg)
    return {"frames": frames, "masks": masks}


def cover_and_crop(
    frames: np.ndarray, height: int, width: int, crop_y: float, crop_x: float
) -> np.ndarray:
    """What of (T, h, w, 3) has the shape height x width, at crop_y, crop_x in 0..1, in that size.

    As wide or as high as the frame. (Cut first: scaling what is cut off would cost a third.)
    """
    source_height, source_width = frames.shape[1:3]
    scale = max(height / source_height, width / source_width)
    cut_height = min(max(round(height / scale), 1), source_height)
    cut_width = min(max(round(width / scale), 1), source_width)
    top = round(crop_y * (source_height - cut_height))
    left = round(crop_x * (source_width - cut_width))
    frames = frames[:, top : top + cut_height, left : left + cut_width]
    if (cut_height, cut_width) == (height, width):
        return np.ascontiguousarray(frames)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.stack(
        [cv2.resize(frame, (width, height), interpolation=interpolation) for frame in frames]
    )


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
    buckets = cfg.masks.buckets or (cfg.masks.ratio,)
    ratio = buckets[rng.integers(len(buckets))]
    return freeform_masks(rng, *shape, ratio=ratio, moving=bool(rng.random() < cfg.masks.moving))


def _read_object_masks(
    rng: np.random.Generator, uri: str, length: int, s3_endpoint: str | None
) -> np.ndarray:
    """Up to `length` successive masks of a sequence, bool (S, h, w); all but black is hole."""
    pictures = with_retries(
        lambda: storage.list_pictures(uri, s3_endpoint), attempts=PATIENT_ATTEMPTS
    )
    start = int(rng.integers(max(len(pictures) - length, 0) + 1))
    masks = []
    for picture in pictures[start : start + length]:
        image = read_picture(picture, s3_endpoint)
        # JPEG rings around edges; PNG holds labels of any brightness.
        masks.append((image > (0 if picture.lower().endswith(".png") else 127)).any(axis=2))
    if len({mask.shape for mask in masks}) != 1:
        raise StorageError(f"{uri}: holds no masks, or masks of several sizes")
    return np.stack(masks)
