"""What a batch has to do: per video its mask, its output's name, and whether it is done already.

Everything here is decided once, on the driver, from listings (videos or a manifest, masks,
outputs); no video is opened. An output is finished when its record (`<output>.json`) carries the
fingerprint of the same input, mask, model and settings, and the output is what the record states
(see `pipelines.batch_finished`).
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field, replace

from pipelines.batch_finished import Finished, find_finished
from pipelines.batch_inputs import Input, find_inputs, in_threads, is_drawn
from pipelines.batch_masks import BatchError, Listing
from pipelines.batch_overlap import check_overlap
from pipelines.batch_places import places_of
from pipelines.batch_record import (
    ModelIdentity,
    VideoOutcome,
    VideoTask,
    digest,
    failure,
    record_of,
)
from pipelines.config import JobConfig
from pipelines.mask_rules import place_of
from pipelines.retries import with_retries
from pipelines.storage import StorageError, join
from pipelines.storage_names import is_at_or_below, location

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Videos to complete, outcomes known without opening any, and tasks by name, of all.

    `misplaced`: of the settled ones those that are to be moved, as their limits have changed.
    """

    tasks: list[VideoTask]
    settled: list[VideoOutcome]
    all_tasks: dict[str, VideoTask]
    misplaced: dict[str, Finished] = field(default_factory=dict)


def plan_batch(cfg: JobConfig, model: ModelIdentity) -> Plan:
    """List the bucket, or read the manifest, and decide for every video.

    Raises BatchError on a missing or contradictory location, EmptyBucketError without videos.
    """
    output_uri = output_of(cfg)
    endpoint = cfg.data.s3_endpoint
    inputs = find_inputs(cfg)
    present = with_retries(lambda: Listing(output_uri, endpoint))
    wanted = {entry.name: entry.wanted for entry in inputs}
    places = places_of(wanted, present.files, output_uri, endpoint)
    tasks = [_task(cfg, entry, places[entry.name], output_uri, model) for entry in inputs]
    check_overlap(tasks, cfg.inference.manifest)
    settled, todo = [], []
    for entry, task in zip(inputs, tasks, strict=True):
        if entry.problem:
            settled.append(failure(task, entry.reason, entry.problem))
        else:
            todo.append(task)
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
        "mask": entry.mask.stamp if entry.mask else drawn if is_drawn(entry) else {},
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
    masks = place_of(inference.masks)
    if masks and location(masks) == location(output):
        raise BatchError(
            f"inference.output {output} is inference.masks: the next run would take outputs for "
            "masks; give another folder"
        )
    return output


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

    found = in_threads(check, tasks)
    return {task.name: it for task, it in zip(tasks, found, strict=True) if it}


def _places(task: VideoTask) -> list[str]:
    """Names below the output at which something finished may be."""
    places = (task.output, task.review)
    return [uri[len(task.root) + 1 :] for place in places for uri in (place, record_of(place))]
