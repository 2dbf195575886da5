"""Completing one video file or frame folder: survey, segments, assembly, verification, name.

Nothing stands under the output's name until everything about it has been verified. What is finished
waits in a work folder beside it (see `cssta.work_folder`), so that a stopped job can go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from cssta import __version__
from cssta.checkpoint import DEFAULT_MODEL, CheckpointError
from cssta.complete_segment import CompletedFrame, complete_segment
from cssta.engine import Inpainter
from cssta.frame_output import FolderOutput, frame_target
from cssta.output import FileOutput, Output, check_output
from cssta.progress import Progress
from cssta.segments import LONGEST, plan_segments
from cssta.survey import Survey, survey
from cssta.video import MaskSpec, VideoError, VideoSource, choose_encoding, open_masks, open_source
from cssta.work_folder import WorkFolder, code_digest, describe, flush

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileJob:
    """What is to be done to one video.

    Attributes:
        video: file, frame folder, or pattern of a picture sequence.
        output: file by whose ending the container is chosen, or where PNG frames go: a folder, or
            a pattern such as `out/shot.%04d.png` (see `frame_target`).
        mask: where the holes are.
        model: model folder; None: the default weights. `device`: None: the first GPU, or the CPU.
        feather: pixels over which the result fades in, from the hole's edge inwards.
        lossless: FFV1 in .mkv, every sample outside the hole as in the source.
        codec, crf, pix_fmt: instead of what matches the source.
        accept_loss: warn of what cannot be kept of the source, instead of refusing.
        fps: rate of pictures; files have their own.
        as_frames: the output is a folder though there is a dot in its name.
        scene_cuts: look for cuts; no frame then borrows from another scene.
        temporal: run the temporal network; None: as the model recommends.
        texture: paint texture where no frame sees; else it stays smooth, which measures better.
    """

    video: Path
    output: Path
    mask: MaskSpec
    model: Path | None = None
    device: str | None = None
    feather: int = 0
    lossless: bool = False
    codec: str | None = None
    crf: float | None = None
    pix_fmt: str | None = None
    accept_loss: bool = False
    fps: float | None = None
    as_frames: bool = False
    scene_cuts: bool = True
    temporal: bool | None = None
    texture: bool = True
    overwrite: bool = False
    resume: bool = False


@dataclass
class Outcome:
    """What became of a job: figures for people and scripts."""

    output: str
    frames: int
    completed: int  # frames that had a hole
    width: int
    height: int
    scenes: int
    segments: int
    resumed: int  # of these, found finished
    encoding: str
    device: str
    seconds: float


def complete_file(
    job: FileJob,
    progress: Progress | None = None,
    *,
    load: Callable[..., Inpainter] | None = None,
    segment_frames: int = LONGEST,
) -> Outcome:
    """Do the job.

    Args:
        load: instead of `Inpainter.load`; only called where there is a hole.
        segment_frames: frames after which, at most, work is safe from being stopped.

    Raises:
        VideoError: an input cannot be used, the output cannot be kept as the source is, exists
            already, cannot be written or does not pass verification.
        CheckpointError: the model cannot be used.
    """
    progress, started = progress or Progress(), time.monotonic()
    target = frame_target(job.output, job.as_frames)
    inputs = [job.video, job.mask.path]
    place = target[0] if target else job.output
    check_output(place, inputs, job.overwrite, is_folder=bool(target))
    source = open_source(job.video, job.fps)
    if job.fps and not source.info.is_folder:
        log.warning("%s: it has its own timing, so --fps is left aside", job.video)
    masks = open_masks(job.mask, source)
    output = open_output(job, source)
    work = WorkFolder(output.path)
    work.open(_fingerprint(job, source, segment_frames), resume=job.resume)
    try:
        progress.phase("survey", source.info.frames)
        found = survey(
            source, masks, cuts=job.scene_cuts, progress=lambda done, total: progress.advance()
        )
        note_holes(source, found)
        holes = found.holes.any()
        inpainter = load_inpainter(job, load) if holes else None
        segments = plan_segments(found, segment_frames)
        resumed = {number for number in range(len(segments)) if work.is_done(number)}
        done = sum(segments[number].stop - segments[number].start for number in resumed)
        progress.phase("complete", source.info.frames, done)
        for number, segment in enumerate(segments):
            if number not in resumed:
                goes_on = number > 0 and segments[number - 1].scene == segment.scene
                earlier = work.texture(number - 1) if goes_on else None
                painter = inpainter and inpainter.painter(earlier)
                frames = complete_segment(inpainter, source, masks, segment, painter)
                with closing(_counted(frames, progress)) as counted:
                    output.write(work, number, counted)
                if painter is not None:
                    painter.save(work.texture(number))
                    flush(work.texture(number))
                work.mark_done(number)
        output.publish(work, masks, len(segments), progress)
    except BaseException:
        if work.keep_if_useful():
            log.warning("%s: what is finished is kept; --resume goes on from there", job.output)
        raise
    work.remove()
    return Outcome(
        output=str(job.output),
        frames=source.info.frames,
        completed=int((found.holes > 0).sum()),
        width=source.info.width,
        height=source.info.height,
        scenes=len(found.scenes),
        segments=len(segments),
        resumed=len(resumed),
        encoding=output.description,
        device=str(inpainter.device) if inpainter else "none",
        seconds=round(time.monotonic() - started, 3),
    )


def open_output(job: FileJob, source: VideoSource) -> Output:
    """The output that the job's name asks for. Raises VideoError where it cannot be faithful."""
    target = frame_target(job.output, job.as_frames)
    if job.lossless and target is None and job.output.suffix.lower() != ".mkv":
        raise VideoError(
            job.output,
            "format",
            "lossless video is FFV1, which players expect in .mkv",
            "End the name in .mkv, or give a name without ending for PNG frames",
        )
    if target is not None:
        if job.codec or job.pix_fmt or job.crf is not None:
            raise VideoError(
                job.output, "format", "PNG frames have no codec, crf or pix_fmt", "Leave them out"
            )
        folder, pattern = target
        return FolderOutput(folder, source, job.feather, pattern=pattern, overwrite=job.overwrite)
    encoding = choose_encoding(
        source.info,
        job.output,
        lossless=job.lossless,
        codec=job.codec,
        crf=job.crf,
        pix_fmt=job.pix_fmt,
        accept_loss=job.accept_loss,
    )
    return FileOutput(job.output, source, encoding, job.feather)


def load_inpainter(job: FileJob, load: Callable[..., Inpainter] | None = None) -> Inpainter:
    """The model as the job wants it, by `load` instead of `Inpainter.load`."""
    options = {"temporal": job.temporal} | ({} if job.texture else {"texture": None})
    return (load or Inpainter.load)(job.model, job.device, **options)


def note_holes(source: VideoSource, found: Survey) -> None:
    """Warn of masks that are probably a mistake."""
    info = source.info
    if not found.holes.any():
        log.warning("%s: the mask has no hole, so the video stays as it is", info.path)
    elif found.holes.min() == info.height * info.width:
        log.warning("%s: all of it is hole: there is nothing to complete it from", info.path)


def _counted(frames: Iterator[CompletedFrame], progress: Progress) -> Iterator[CompletedFrame]:
    with closing(frames):
        for frame in frames:
            yield frame
            progress.advance()


def _fingerprint(job: FileJob, source: VideoSource, segment_frames: int) -> dict[str, object]:
    """What must be the same for finished segments to be of use."""
    options = asdict(job)
    target = frame_target(job.output, job.as_frames)
    options["frame_names"] = target and target[1]
    for key in ("video", "output", "mask", "model", "overwrite", "resume"):
        del options[key]
    mask = asdict(job.mask)
    path = mask.pop("path")
    return {
        "video": describe(job.video),
        "mask": {**mask, "path": path and describe(Path(path))},
        "model": describe(_model_folder(job)),
        "options": {**options, "segment_frames": segment_frames},
        "version": [__version__, code_digest()],
    }


def _model_folder(job: FileJob) -> Path:
    folder = Path(job.model or DEFAULT_MODEL)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such model folder; name another")
    return folder
