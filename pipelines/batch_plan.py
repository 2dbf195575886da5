"""What a batch has to do: per video its mask, its output's name, and whether it is done already.

Everything here is decided once, on the driver, from listings (videos or a manifest, masks,
outputs); no video is opened. An output is finished when its record (`<output>.json`) carries the
fingerprint of the same input, mask, model and settings, and the output is what the record states
(see `pipelines.batch_finished`).
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from pyarrow import ArrowException

from pipelines.batch_finished import Finished, find_finished
from pipelines.batch_manifest import ManifestRow, read_manifest
from pipelines.batch_masks import (
    BatchError,
    FoundMask,
    Listing,
    MaskFolder,
    Stamp,
    relative,
    stamp_of,
)
from pipelines.batch_names import UNSUPPORTED, assign_names, is_unsupported, printable
from pipelines.batch_options import VideoOptions
from pipelines.batch_overlap import check_overlap
from pipelines.batch_record import (
    ModelIdentity,
    VideoOutcome,
    VideoTask,
    digest,
    failure,
    record_of,
)
from pipelines.config import JobConfig
from pipelines.retries import with_retries
from pipelines.storage import StorageError, filesystem, join, list_videos
from pipelines.storage_names import is_at_or_below, location

log = logging.getLogger(__name__)

THREADS = 16  # requests to a server at the same time


@dataclass(frozen=True)
class Plan:
    """Videos to complete, outcomes known without opening any, and tasks by name, of all.

    `misplaced`: of the settled ones those that are to be moved, as their limits have changed.
    """

    tasks: list[VideoTask]
    settled: list[VideoOutcome]
    all_tasks: dict[str, VideoTask]
    misplaced: dict[str, Finished] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """A video before it is known what is to be done: `stamp` tells it from a changed one.

    `problem`: in words, why it cannot be completed, `reason` the slug for it; "" if it can be.
    """

    name: str
    video: str
    wanted: str
    stamp: dict[str, Any]
    options: VideoOptions
    mask: FoundMask | None = None
    problem: str = ""
    reason: str = "mask-missing"


def plan_batch(cfg: JobConfig, model: ModelIdentity) -> Plan:
    """List the bucket, or read the manifest, and decide for every video.

    Raises BatchError on a missing or contradictory location, EmptyBucketError without videos.
    """
    output_uri = output_of(cfg)
    endpoint = cfg.data.s3_endpoint
    by_rule = cfg.inference.masks is not None  # masks are found by the names of the videos
    masks = with_retries(lambda: MaskFolder(cfg.inference.masks, endpoint)) if by_rule else None
    inputs = _from_manifest(cfg, masks) if cfg.inference.manifest else _from_listing(cfg, masks)
    places = assign_names({entry.name: entry.wanted for entry in inputs})
    tasks = [_task(cfg, entry, places[entry.name], output_uri, model) for entry in inputs]
    check_overlap(tasks, cfg.inference.manifest)
    settled, todo = [], []
    for entry, task in zip(inputs, tasks, strict=True):
        if entry.problem:
            settled.append(failure(task, entry.reason, entry.problem))
        else:
            todo.append(task)
    present = with_retries(lambda: Listing(output_uri, endpoint))
    finished = _finished(cfg, todo, present)
    settled += [replace(found.outcome, status="skipped") for found in finished.values()]
    misplaced = {name: found for name, found in finished.items() if found.is_misplaced}
    todo = [task for task in todo if task.name not in finished]
    return Plan(todo, settled, {task.name: task for task in tasks}, misplaced)


def _task(
    cfg: JobConfig, entry: Input, place: str, output_uri: str, model: ModelIdentity
) -> VideoTask:
    seed = _seed(cfg.seed, entry.name)
    options = entry.options.model_dump()
    drawn = {"seed": seed, **cfg.data.masks.model_dump(mode="json")}
    identity = {
        "input": entry.stamp,
        "mask": entry.mask.stamp if entry.mask else drawn if _is_drawn(entry) else {},
        "model": model.digest,
        "settings": {"options": options, "segment_frames": cfg.inference.segment_frames},
    }
    return VideoTask(
        name=entry.name,
        video=entry.video,
        root=output_uri,
        place=place,
        mask=entry.mask.uri if entry.mask else None,
        mask_seed=seed,
        fingerprint=digest(identity),
        options=options,
        size=int(entry.stamp.get("bytes", 0)),
        identity=identity,
        measures=cfg.inference.model_dump(include={"quality", "self_test_frames"}),
    )


def output_of(cfg: JobConfig) -> str:
    """Where a batch's outputs go. Raises BatchError on a missing or contradictory location."""
    inference = cfg.inference
    if inference.videos is None and inference.manifest is None:
        raise BatchError("inference.videos is not set: give a folder, a URI, or a manifest")
    if inference.output is None:
        raise BatchError("inference.output is not set: give a folder or a URI")
    output = inference.output.rstrip("/")
    if inference.videos and is_at_or_below(inference.videos, output):
        raise BatchError(
            f"inference.output {output} holds inference.videos {inference.videos}: the next run "
            "would take outputs for inputs; give another folder"
        )
    if inference.masks and location(inference.masks) == location(output):
        raise BatchError(
            f"inference.output {output} is inference.masks: the next run would take outputs for "
            "masks; give another folder"
        )
    return output


def _from_listing(cfg: JobConfig, masks: MaskFolder | None) -> list[Input]:
    """Every video, or folder of frames, that is neither an output nor a mask."""
    endpoint, inference = cfg.data.s3_endpoint, cfg.inference
    uri = inference.videos.rstrip("/")
    root, scheme = filesystem(uri, endpoint)[1], "s3://" if uri.startswith("s3://") else ""
    others = [other for other in (inference.output, inference.masks) if other is not None]
    excluded = [relative(location(other), location(uri)) for other in others]
    videos = with_retries(lambda: list_videos(uri, endpoint))
    listing = with_retries(lambda: Listing(uri, endpoint))

    def is_input(name: str) -> bool:
        return not any(name == part or name.startswith(f"{part}/") for part in excluded if part)

    # (Listed URIs are plain paths or s3://.)
    paths = [video.uri.removeprefix("s3://") for video in videos]
    names = {relative(path, root) or PurePosixPath(root).name: path for path in paths}
    # A mask beside the videos is no folder of frames.
    beside = {str(it.parent) for it in map(PurePosixPath, excluded) if it.suffix}
    folders = set(listing.picture_folders()) - beside
    names = {name: join(root, name) for name in folders} | names  # (where there are files too)
    inputs = []
    for name, path in filter(lambda it: is_input(it[0]), names.items()):
        stamp = listing.stamp(name) or listing.stamp(".")  # (a folder of pictures itself)
        entry = Input(name, scheme + path, name, stamp, inference.options)
        inputs.append(_masked(entry, name, masks))
    if not inputs:
        raise BatchError(f"inference.videos {uri}: holds nothing but outputs and masks")
    for name, stamp in listing.files.items():
        if is_unsupported(name) and is_input(name):
            entry = Input(name, f"{scheme}{root}/{name}", name, stamp, inference.options)
            problem = f"{name}: {UNSUPPORTED}"
            inputs.append(replace(entry, problem=problem, reason="unsupported"))
    return sorted(inputs, key=lambda entry: entry.name)


def _masked(entry: Input, name: str, masks: MaskFolder | None) -> Input:
    try:
        return entry if masks is None else replace(entry, mask=masks.find(name))
    except FileNotFoundError as error:
        return replace(entry, problem=str(error))


def _from_manifest(cfg: JobConfig, masks: MaskFolder | None) -> list[Input]:
    endpoint, inference = cfg.data.s3_endpoint, cfg.inference
    uri = inference.manifest
    rows = with_retries(lambda: read_manifest(uri, inference.videos, inference.masks, endpoint))
    base = filesystem(inference.videos, endpoint)[1] if inference.videos else ""
    given = Counter(row.output for row in rows if row.output)
    twice = [output for output, number in given.items() if number > 1]
    if twice:
        raise BatchError(f"inference.manifest {uri}: {len(twice)} outputs are named by several "
                         f"rows, such as {twice[0]!r}; give each its own")  # fmt: skip
    stamps = _in_threads(lambda row: _stamps(row, endpoint), rows)
    inputs, names = [], Counter()
    for row, (stamp, mask_stamp, reason, problem) in zip(rows, stamps, strict=True):
        row = replace(row, video=printable(row.video), output=row.output and printable(row.output))
        path = location(row.video).removeprefix("s3://")
        short = relative(path, base) if base else ""
        name = row.output or short or PurePosixPath(path).name
        names[name] += 1
        if names[name] > 1:  # the same video with another mask, or two of one name
            name = f"{name} (row {row.number})"
        try:
            options = inference.options.changed_by(row.options)
        except ValueError as error:
            raise BatchError(f"inference.manifest {uri}: row {row.number}: {error}") from None
        entry = Input(name, row.video, row.output or short or PurePosixPath(path).name, stamp,
                      options)  # fmt: skip
        if problem:
            problem = f"{problem}; see row {row.number}"
            entry = replace(entry, problem=printable(problem), reason=reason)
        elif row.mask is not None and mask_stamp:
            entry = replace(entry, mask=FoundMask(row.mask, mask_stamp))
        elif row.mask is not None:
            entry = replace(entry, problem=f"{row.mask}: no such mask; see row {row.number}")
        elif options.mask_spec(None) is None:
            entry = _masked(entry, short or PurePosixPath(path).name, masks)
        inputs.append(entry)
    if any(row.mask is not None for row in rows) or not all(map(_is_drawn, inputs)):
        # (Holes are drawn for a test; in footage that is to be kept they would be damage.)
        return [_refused(entry, row) for entry, row in zip(inputs, rows, strict=True)]
    return inputs


def _refused(entry: Input, row: ManifestRow) -> Input:
    if entry.problem or not _is_drawn(entry):
        return entry
    problem = f"row {row.number} names no mask, boxes or alpha, as other rows do; name one"
    return replace(entry, problem=f"{entry.name}: {problem}")


def _is_drawn(entry: Input) -> bool:
    return entry.mask is None and entry.options.mask_spec(None) is None


def _stamps(row: ManifestRow, endpoint: str | None) -> tuple[Stamp, Stamp | None, str, str]:
    """Of video and mask; with the reason, and in words, why they cannot be had, or ""."""
    for name in (row.video, row.mask or ""):
        if printable(name) != name or "\0" in name:
            return {}, None, "bad-name", f"{name!r}: no file can have such a name"
    try:
        video = with_retries(lambda: stamp_of(row.video, endpoint))
        return video, row.mask and with_retries(lambda: stamp_of(row.mask, endpoint)), "", ""
    except (StorageError, OSError, ArrowException) as error:
        return {}, None, "storage", str(error)


def _seed(seed: int, name: str) -> int:
    """A video's own seed: independent of which other videos are in the bucket."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def _finished(cfg: JobConfig, tasks: list[VideoTask], present: Listing) -> dict[str, Finished]:
    """What an earlier run has published, or held back for review, by name."""
    limits, endpoint = cfg.inference.limits.given(), cfg.data.s3_endpoint

    def check(task: VideoTask) -> Finished | None:
        files = {join(task.root, name): stamp for name, stamp in present.of(_places(task)).items()}
        try:
            return find_finished(task, files, limits, endpoint, cfg.inference.verify)
        except StorageError as error:  # (then the video is simply done again)
            log.warning("%s: cannot be looked at: %s", task.name, error)
            return None

    found = _in_threads(check, tasks)
    return {task.name: it for task, it in zip(tasks, found, strict=True) if it}


def _places(task: VideoTask) -> list[str]:
    """Names below the output at which something finished may be."""
    places = (task.output, task.review)
    return [uri[len(task.root) + 1 :] for place in places for uri in (place, record_of(place))]


def _in_threads(call: Callable, items: list) -> list:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, items))
