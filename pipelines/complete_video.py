"""Complete one video: read, mask, inpaint in bounded pieces, write, verify, publish, record.

Plain functions: no Ray, no MLflow. Whatever goes wrong with a video becomes a failed outcome with a
reason; nothing under the output's final name is ever half-written.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cssta.masks import freeform_masks
from cssta.metrics import score_clip
from cssta.sheet import contact_sheet, mask_rows, tint
from cssta.video import VideoError, VideoInfo, VideoWriter, iter_frames, probe, read_masks
from pipelines.actors import Engine
from pipelines.batch_record import ModelIdentity, VideoOutcome, VideoTask, write_record
from pipelines.config import MasksConfig
from pipelines.storage import StorageError, filesystem, local_copy, publish

log = logging.getLogger(__name__)

PIECE_BYTES = 128 * 2**20
"""Frames in memory at once; a longer video is completed piece by piece."""
CONTEXT_FRAMES = 12
"""Frames of the piece before that are given again, so that a piece goes on from it."""
MASK_BYTES = 4 * 2**30
"""Masks are held whole: beyond this a video is refused rather than the node brought down."""
SHEET_EVERY, SHEET_COLUMNS = 10, 8
SSIM_WINDOW = 7


class CompletionError(ValueError):
    """A video that could not be completed; `reason` is a short slug."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class CompletionOptions:
    """What all videos of a batch share."""

    model: ModelIdentity
    masks: MasksConfig
    crf: int
    s3_endpoint: str | None
    scratch: str | None = None
    """Folder for temporary files, made if it is missing; None: the system's."""


def complete_video(
    task: VideoTask,
    engine: Engine,
    options: CompletionOptions,
    wants_sheet: Callable[[], bool] = lambda: True,
) -> VideoOutcome:
    """Complete, publish and record one video; never raises for what the video or storage did.

    `wants_sheet` is asked once the video is published: False leaves its contact sheet out.
    """
    started = time.monotonic()
    outcome = VideoOutcome(task.name, task.video, task.output, "failed")
    try:
        if options.scratch:
            Path(options.scratch).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="cssta-batch-", dir=options.scratch) as folder:
            outcome = _complete(task, engine, options, Path(folder), outcome, started, wants_sheet)
    except VideoError as error:
        # Of a remote file the error names the temporary copy; its reader knows the URI.
        uri = task.mask if task.mask and error.reason.startswith("mask") else task.video
        outcome = _failed(outcome, error.reason, str(error).replace(str(error.path), uri))
    except CompletionError as error:
        outcome = _failed(outcome, error.reason, error)
    except MemoryError as error:
        outcome = _failed(outcome, "out-of-memory", error)
    except (StorageError, OSError) as error:
        outcome = _failed(outcome, "storage", error)
    except Exception as error:
        # One video's failure, whatever it is, must not end the others.
        log.exception("%s: unexpected failure", task.name)
        reason = "out-of-memory" if "OutOfMemory" in type(error).__name__ else "unexpected"
        outcome = _failed(outcome, reason, error)
    return replace(outcome, seconds=time.monotonic() - started)


def _failed(outcome: VideoOutcome, reason: str, error: Exception | str) -> VideoOutcome:
    message = " ".join(str(error).split()) or type(error).__name__
    if reason == "unexpected":
        message = f"{type(error).__name__}: {message}"
    return replace(outcome, status="failed", reason=reason, message=message)


def _complete(
    task: VideoTask,
    engine: Engine,
    options: CompletionOptions,
    folder: Path,
    outcome: VideoOutcome,
    started: float,
    wants_sheet: Callable[[], bool],
) -> VideoOutcome:
    with local_copy(task.video, folder, options.s3_endpoint) as video:
        info = probe(video)
        outcome = replace(outcome, frames=info.frames, height=info.height, width=info.width)
        masks = _masks(task, info, options, folder)
        scores, sheet = Scores(), Sheet(info)
        completed = folder / "completed.mp4"
        with VideoWriter(completed, info.fps, info.height, info.width, options.crf) as writer:
            for frames, holes, result in pieces(video, info, masks, engine):
                writer.write(result)
                sheet.add(frames, holes, result)
                if task.mask is None:
                    scores.add(result, frames, holes)
    verify(completed, info)
    # An old record must not vouch for the new output, should the publishing end between the two.
    _delete(task.record, options.s3_endpoint)
    publish(completed, task.output, options.s3_endpoint)
    note, remark = _note(info, masks)
    outcome = replace(
        outcome,
        status="done",
        reason=note,
        message=remark,
        hole_ratio=float(masks.mean()),
        seconds=time.monotonic() - started,
        **scores.means(),
    )
    if task.sheet and wants_sheet():
        picture = folder / "sheet.png"
        sheet.draw(picture, with_truth=task.mask is None)
        publish(picture, task.sheet, options.s3_endpoint)
        outcome = replace(outcome, sheet=task.sheet)
    record = folder / "record.json"
    record.write_text(
        write_record(task, options.model, outcome, completed.stat().st_size), encoding="utf-8"
    )
    publish(record, task.record, options.s3_endpoint)
    return outcome


def _masks(
    task: VideoTask, info: VideoInfo, options: CompletionOptions, folder: Path
) -> np.ndarray:
    """Hole masks bool (T, H, W): given, or drawn from the task's seed."""
    size = info.frames * info.height * info.width
    if size > MASK_BYTES:
        raise CompletionError(
            "too-long",
            f"{task.name}: {info.frames} frames of {info.width}x{info.height} need "
            f"{size / 2**30:.1f} GiB for masks alone; cut the video into parts",
        )
    if task.mask is None:
        rng = np.random.default_rng(task.mask_seed)
        shape = (info.frames, info.height, info.width)
        return freeform_masks(rng, *shape, ratio=options.masks.ratio)
    with local_copy(task.mask, folder, options.s3_endpoint) as mask:
        return read_masks(mask, info.frames, info.height, info.width)


def _delete(uri: str, s3_endpoint: str | None) -> None:
    system, path = filesystem(uri, s3_endpoint)
    with suppress(FileNotFoundError):
        system.delete_file(path)


def _note(info: VideoInfo, masks: np.ndarray) -> tuple[str, str]:
    """What is remarkable about a video that was completed all the same: (slug, message)."""
    if info.declared > info.frames:
        return "truncated", f"only {info.frames} of {info.declared} declared frames can be decoded"
    if not masks.any():
        return "no-hole", "the mask has no hole: the video was only encoded again"
    if masks.all():
        return "full-frame-hole", "the mask leaves nothing to see: all of it is imagined"
    return "", ""


def pieces(
    video: Path, info: VideoInfo, masks: np.ndarray, engine: Engine
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Frames uint8 (n, H, W, 3), masks bool (n, H, W) and result like frames, in order.

    Each piece is inpainted with the last frames before it as context. Raises CompletionError if the
    video decodes to another number of frames than it states.
    """
    per_piece = max(CONTEXT_FRAMES, PIECE_BYTES // (info.height * info.width * 3))
    context = np.empty((0, info.height, info.width, 3), np.uint8)
    position = end = 0
    for frames in iter_frames(video, chunk=per_piece):
        end += len(frames)
        if end > info.frames:
            break
        before = len(context)
        given = np.concatenate([context, frames]) if before else frames
        result = engine.inpaint(given, masks[position - before : end])[before:]
        yield frames, masks[position:end], result
        context = given[-CONTEXT_FRAMES:]
        position = end
    if position != info.frames:
        raise CompletionError(
            "frame-count",
            f"{video.name}: states {info.frames} frames but decodes to {end}; encode it again",
        )


def verify(completed: Path, info: VideoInfo) -> None:
    """Decode what was written, all of it, and compare frame count, size and rate with the source.

    Raises CompletionError.
    """
    try:
        written = probe(completed)
        decoded = sum(len(frames) for frames in iter_frames(completed))
    except VideoError as error:
        raise CompletionError("unverified", f"the output does not decode: {error}") from error
    differences = [
        f"{what} {found} instead of {wanted}"
        for what, found, wanted in (
            ("frames", decoded, info.frames),
            ("height", written.height, info.height),
            ("width", written.width, info.width),
        )
        if found != wanted
    ]
    if not math.isclose(written.fps, info.fps, rel_tol=1e-3):
        differences.append(f"rate {float(written.fps):.3f} instead of {float(info.fps):.3f}")
    if differences:
        raise CompletionError("unverified", f"the output has {', '.join(differences)}")


class Scores:
    """Means of `score_clip` over pieces, weighted by their frames with a hole."""

    KEYS = ("psnr", "ssim", "hole_psnr")

    def __init__(self) -> None:
        self._sums = dict.fromkeys(self.KEYS, 0.0)
        self._frames = 0

    def add(self, result: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> None:
        """All (n, H, W, ...); a piece without a hole, or too small for SSIM, adds nothing."""
        if not masks.any() or min(masks.shape[1:]) < SSIM_WINDOW:
            return
        score = score_clip(result, truth, masks, window=SSIM_WINDOW)
        frames = int(score["frames"])
        for key in self.KEYS:
            self._sums[key] += float(score[key]) * frames
        self._frames += frames

    def means(self) -> dict[str, float]:
        """nan where nothing was scored."""
        return {k: v / self._frames if self._frames else math.nan for k, v in self._sums.items()}


class Sheet:
    """Every tenth frame of a video's start, kept for its contact sheet."""

    def __init__(self, info: VideoInfo) -> None:
        self._position = 0
        self._every = SHEET_EVERY if info.frames > SHEET_EVERY else 1
        self._kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, frames: np.ndarray, masks: np.ndarray, result: np.ndarray) -> None:
        """Look through a piece."""
        for kept in zip(frames, masks, result, strict=True):
            if self._position % self._every == 0 and len(self._kept) < SHEET_COLUMNS:
                self._kept.append(tuple(part.copy() for part in kept))
            self._position += 1

    def draw(self, path: Path, *, with_truth: bool) -> None:
        """Write the PNG; `with_truth` if what lay under the hole is known."""
        frames, masks, result = (np.stack(parts) for parts in zip(*self._kept, strict=True))
        rows = {"input": tint(frames, masks), "mask": mask_rows(masks), "result": result}
        if with_truth:
            rows["truth"] = frames
        # The sheet numbers frames by their place: each kept one stands for those up to the next.
        every = range(len(frames) * self._every)
        rows = {label: [row[i // self._every] for i in every] for label, row in rows.items()}
        contact_sheet(path, rows, every=self._every, max_columns=SHEET_COLUMNS)
