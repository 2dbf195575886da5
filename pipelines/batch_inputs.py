"""Which videos a batch is about, each with its mask: of a folder or bucket, or of a manifest.

What is wrong with one of them is written down with it; only what is wrong with all is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from pyarrow import ArrowException

from pipelines.batch_manifest import ManifestRow, read_manifest
from pipelines.batch_masks import (
    BatchError,
    FoundMask,
    Listing,
    MaskFolder,
    MaskPattern,
    Stamp,
    relative,
    stamp_of,
)
from pipelines.batch_names import UNSUPPORTED, is_footage, is_unsupported, printable
from pipelines.batch_options import VideoOptions
from pipelines.config import JobConfig
from pipelines.mask_rules import boxes_of, is_pattern, place_of
from pipelines.retries import with_retries
from pipelines.storage import StorageError, filesystem, join, list_videos
from pipelines.storage_listing import is_misnamed
from pipelines.storage_names import location

BAD_NAME, BAD_ROW = "bad-name", "bad-row"
THREADS = 16  # requests to a server at the same time
Masks = MaskFolder | MaskPattern | str | None  # boxes as text; None: nothing says where they are


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


def find_inputs(cfg: JobConfig) -> list[Input]:
    """Every video of the listing or the manifest.

    Raises BatchError where nothing can be made of either, EmptyBucketError without videos.
    """
    endpoint, rule = cfg.data.s3_endpoint, cfg.inference.masks
    masks: Masks = None
    if rule is not None:
        found_by = MaskPattern if is_pattern(rule) else MaskFolder
        masks = boxes_of(rule) or with_retries(lambda: found_by(rule, endpoint))
    return _from_manifest(cfg, masks) if cfg.inference.manifest else _from_listing(cfg, masks)


def is_drawn(entry: Input) -> bool:
    """Whether its hole is drawn by seed, as nothing says where it is."""
    return entry.mask is None and entry.options.mask_spec(None) is None


def _from_listing(cfg: JobConfig, masks: Masks) -> list[Input]:
    """Every video, or folder of frames, that is neither an output nor a mask."""
    endpoint, inference = cfg.data.s3_endpoint, cfg.inference
    uri = inference.videos.rstrip("/")
    root, scheme = filesystem(uri, endpoint)[1], "s3://" if uri.startswith("s3://") else ""
    pattern = masks if isinstance(masks, MaskPattern) else None
    places = [inference.output, None if pattern else place_of(inference.masks)]
    excluded = [relative(location(place), location(uri)) for place in places if place is not None]
    videos = with_retries(lambda: list_videos(uri, endpoint))
    listing = with_retries(lambda: Listing(uri, endpoint))

    def is_input(name: str) -> bool:
        below = any(name == part or name.startswith(f"{part}/") for part in excluded if part)
        return not below and name not in own_masks

    # (Listed URIs are plain paths or s3://.)
    paths = [video.uri.removeprefix("s3://") for video in videos]
    names = {relative(path, root) or PurePosixPath(root).name: path for path in paths}
    # A mask beside the videos is no folder of frames.
    beside = {str(it.parent) for it in map(PurePosixPath, excluded) if it.suffix}
    folders = set(listing.picture_folders()) - beside
    names = {name: join(root, name) for name in folders} | names  # (where there are files too)
    own_masks = set(pattern.among(names, uri)) if pattern else set()
    inputs = []
    for name, path in filter(lambda it: is_input(it[0]), names.items()):
        stamp = listing.stamp(name) or listing.stamp(".")  # (a folder of pictures itself)
        entry = Input(name, scheme + path, name, stamp, inference.options)
        wrong = [it for it in (name, *listing.inside(name)) if is_misnamed(it)]
        inputs.append(_misnamed(entry, wrong[0]) if wrong else _masked(entry, name, masks))
    if not inputs:
        raise BatchError(f"inference.videos {uri}: holds nothing but outputs and masks")
    for name, stamp in listing.files.items():
        entry = Input(name, f"{scheme}{root}/{name}", name, stamp, inference.options)
        if is_misnamed(name) and is_footage(name) and is_input(name):
            inputs.append(_misnamed(entry, name))
        elif is_unsupported(name) and is_input(name):
            problem = f"{name}: {UNSUPPORTED}"
            inputs.append(replace(entry, problem=problem, reason="unsupported"))
    return sorted(inputs, key=lambda entry: entry.name)


def _misnamed(entry: Input, name: str) -> Input:
    """What cannot be asked for by its name, or has a file in it that cannot; shown as it may be."""
    return replace(
        entry,
        name=printable(entry.name),
        video=printable(entry.video),
        wanted=printable(entry.wanted),
        problem=f"{printable(name)}: its name is not UTF-8; rename it",
        reason=BAD_NAME,
    )


def _masked(entry: Input, name: str, masks: Masks) -> Input:
    if isinstance(masks, str):
        boxes = ";".join(filter(None, (entry.options.boxes, masks)))
        return replace(entry, options=entry.options.model_copy(update={"boxes": boxes}))
    try:
        return entry if masks is None else replace(entry, mask=masks.find(name))
    except FileNotFoundError as error:
        return replace(entry, problem=str(error))


def _from_manifest(cfg: JobConfig, masks: Masks) -> list[Input]:
    endpoint, inference = cfg.data.s3_endpoint, cfg.inference
    uri, masks_at = inference.manifest, place_of(inference.masks)
    rows = with_retries(lambda: read_manifest(uri, inference.videos, masks_at, endpoint))
    base = filesystem(inference.videos, endpoint)[1] if inference.videos else ""
    stamps = in_threads(lambda row: _stamps(row, endpoint), rows)
    inputs, names = [], set()
    for row, (stamp, mask_stamp, reason, problem) in zip(rows, stamps, strict=True):
        row = replace(row, video=printable(row.video), output=row.output and printable(row.output))
        path = location(row.video).removeprefix("s3://") if row.video else ""
        short = relative(path, base) if base else ""
        wanted = row.output or short or PurePosixPath(path).name or f"row {row.number}"
        name = wanted
        while name in names:  # the same video with another mask, or two of one name
            name = f"{name} (row {row.number})"
        names.add(name)
        options = inference.options
        try:
            options = options.changed_by(row.options)
        except ValueError as error:
            reason, problem = BAD_ROW, f"{name}: {error}"
        entry = Input(name, row.video, wanted, stamp, options)
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
    if all(entry.reason == BAD_ROW for entry in inputs):  # (as when a column's name is wrong)
        raise BatchError(f"inference.manifest {uri}: {inputs[0].problem}")
    if any(map(_may_say_where, rows)) or not all(map(is_drawn, inputs)):
        # (Holes are drawn for a test; in footage that is to be kept they would be damage.)
        return [_refused(entry, row) for entry, row in zip(inputs, rows, strict=True)]
    return inputs


def _may_say_where(row: ManifestRow) -> bool:
    return row.mask is not None or not row.is_read


def _refused(entry: Input, row: ManifestRow) -> Input:
    if entry.problem or not is_drawn(entry):
        return entry
    problem = f"row {row.number} names no mask, boxes or alpha, as other rows do; name one"
    return replace(entry, problem=f"{entry.name}: {problem}")


def _stamps(row: ManifestRow, endpoint: str | None) -> tuple[Stamp, Stamp | None, str, str]:
    """Of video and mask; with the reason, and in words, why they cannot be had, or ""."""
    if row.problem:
        return {}, None, BAD_ROW, row.problem
    if not row.video:
        return {}, None, BAD_ROW, "names no video"
    for name in (row.video, row.mask or ""):
        if printable(name) != name or "\0" in name:
            return {}, None, BAD_NAME, f"{name!r}: no file can have such a name"
    try:
        video = with_retries(lambda: stamp_of(row.video, endpoint))
        return video, row.mask and with_retries(lambda: stamp_of(row.mask, endpoint)), "", ""
    except (StorageError, OSError, ArrowException) as error:
        return {}, None, "storage", str(error)


def in_threads(call: Callable, items: list) -> list:
    """The call's results; for what waits for a server."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, items))
