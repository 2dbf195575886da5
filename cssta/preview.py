"""One frame of a job, before the whole: input, mask and result side by side in a PNG."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from contextlib import closing

import numpy as np

from cssta.complete_file import FileJob, load_inpainter
from cssta.complete_segment import CompletedFrame, complete_segment
from cssta.engine import Inpainter
from cssta.output import check_output
from cssta.segments import WARM_UP, Segment
from cssta.sheet import mask_rows
from cssta.survey import survey
from cssta.video import Composer, VideoError, VideoSource, open_masks, open_source, write_picture

AROUND = 100  # frames on either side that are looked through for scene cuts and references
GAP = 8  # pixels between the pictures


def write_preview(
    job: FileJob, seconds: float, *, load: Callable[..., Inpainter] | None = None
) -> dict[str, object]:
    """Complete the frame shown at `seconds` and write `job.output`, a .png.

    References come from no further than AROUND frames, so that the end of a long video takes no
    longer than its beginning. Returns output, frame number and its time in seconds.

    Raises VideoError and CheckpointError as `complete_file`.
    """
    if job.output.suffix.lower() != ".png":
        raise VideoError(job.output, "format", "a preview is a .png", "End its name in .png")
    check_output(job.output, [job.video, job.mask.path], job.overwrite)
    source = open_source(job.video, job.fps)
    masks = open_masks(job.mask, source)
    index = frame_at(source, seconds)
    span = max(0, index - AROUND), min(source.info.frames, index + AROUND + 1)
    found = survey(source, masks, cuts=job.scene_cuts, span=span)
    scene = next(scene for scene in found.scenes if scene.start <= index < scene.stop)
    segment = Segment(index, index + 1, max(scene.start, index - WARM_UP), scene)
    inpainter = load_inpainter(job, load) if scene.box else None
    with closing(complete_segment(inpainter, source, masks, segment)) as frames:
        frame = next(frames)
    picture = side_by_side(frame, Composer(source.info, job.feather))
    job.output.parent.mkdir(parents=True, exist_ok=True)
    partial = job.output.with_name(f".{job.output.name}.partial")
    try:
        write_picture(partial, picture)
        partial.replace(job.output)
    finally:
        partial.unlink(missing_ok=True)
    return {"output": str(job.output), "frame": index, "seconds": source.info.seconds(index)}


def frame_at(source: VideoSource, seconds: float) -> int:
    """The frame that is on screen so many seconds after the first; VideoError beyond the end."""
    info = source.info
    if not 0 <= seconds < info.duration:
        raise VideoError(
            info.path,
            "frame-index",
            f"nothing is shown at {seconds:g} s: it lasts {info.duration:.3f} s",
            "Give a time within",
        )
    wanted = info.pts[0] + seconds / info.time_base
    return max(0, bisect.bisect_right(info.pts, wanted) - 1)


def side_by_side(frame: CompletedFrame, composer: Composer) -> np.ndarray:
    """Input, mask and result (H, 3 W + 2 GAP, 3), in one row; like `frame.source.rgb()`."""
    source = frame.source.rgb()
    result = composer.rgb(frame.source, frame.result, frame.mask)[..., :3]
    mask = mask_rows(frame.mask[None])[0].astype(source.dtype) * (np.iinfo(source.dtype).max // 255)
    gap = np.full((source.shape[0], GAP, 3), np.iinfo(source.dtype).max, source.dtype)
    return np.concatenate([source, gap, mask, gap, result], axis=1)
