"""What a batch has to do: per video its mask, its output's name, and whether it is done already.

Everything here is decided once, on the driver, from three listings (videos, masks, outputs); no
video is opened. An output is finished when its record (`<output>.json`) carries the fingerprint of
the same input, mask, model and settings, and the output has the size that the record states.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow.fs

from pipelines.batch_record import ModelIdentity, VideoOutcome, VideoTask, digest, parse_record
from pipelines.config import JobConfig
from pipelines.storage import PICTURE_SUFFIXES, VIDEO_SUFFIXES, filesystem, join, list_videos

SHEETS = 4
"""Contact sheets are drawn of this many videos, the first that can be completed."""


class BatchError(ValueError):
    """A batch that cannot start as configured; the message names the key and the remedy."""


@dataclass(frozen=True)
class Plan:
    """Videos to complete, and outcomes that are known without opening any."""

    tasks: list[VideoTask]
    settled: list[VideoOutcome]


def plan_batch(cfg: JobConfig, model: ModelIdentity) -> Plan:
    """List the bucket and decide for every video.

    Raises BatchError on a missing or contradictory location, EmptyBucketError without videos.
    """
    videos_uri, output_uri = _locations(cfg)
    endpoint = cfg.data.s3_endpoint
    videos = _named_videos(cfg, videos_uri, output_uri)
    files = listing(videos_uri, endpoint)
    masks = MaskFolder(cfg.inference.masks, endpoint) if cfg.inference.masks else None
    tasks, settled = [], []
    for name, output in sorted(output_names(videos).items()):
        try:
            mask = masks.find(name) if masks else None
        except FileNotFoundError as error:
            settled.append(
                VideoOutcome(name, videos[name], "", "failed", "mask-missing", str(error))
            )
            continue
        seed = _seed(cfg.seed, name)
        drawn = {"seed": seed, **cfg.data.masks.model_dump(mode="json")}
        sheet = join(output_uri, "contact-sheets", f"{output}.png")
        identity = {
            "input": _stamp(name, files),
            "mask": mask.stamp if mask else drawn,
            "model": model.digest,
            "settings": {"crf": cfg.inference.crf},
        }
        tasks.append(
            VideoTask(
                name=name,
                video=videos[name],
                output=join(output_uri, output),
                mask=mask.uri if mask else None,
                mask_seed=seed,
                sheet=sheet,
                fingerprint=digest(identity),
                identity=identity,
            )
        )
    finished = _finished(tasks, output_uri, endpoint)
    settled += finished.values()
    return Plan([task for task in tasks if task.name not in finished], settled)


def output_names(names: Iterable[str]) -> dict[str, str]:
    """Source name to output name, both relative: `a/b.mp4` stays, `a/b.mov` becomes `a/b.mov.mp4`.

    Never two alike, also when `b.mov` and `b.mov.mp4` are both there, and never two that differ in
    case only (some file systems hold them for one).
    """
    outputs: dict[str, str] = {}
    taken: set[str] = set()
    # Names that stay as they are come first, so they keep their name whatever is beside them.
    for name in sorted(names, key=lambda name: (not name.endswith(".mp4"), name)):
        output = name if name.endswith(".mp4") else f"{name}.mp4"
        if output.lower() in taken:
            output = f"{name}.{hashlib.sha256(name.encode()).hexdigest()[:12]}.mp4"
        taken.add(output.lower())
        outputs[name] = output
    return outputs


def listing(uri: str, endpoint: str | None) -> dict[str, dict[str, int]]:
    """Every file below `uri`: relative name to {"bytes", "modified" (ns)}; {} if none."""
    fs, root = filesystem(uri, endpoint)
    info = fs.get_file_info(root)
    if info.is_file:
        return {PurePosixPath(root).name: {"bytes": info.size, "modified": info.mtime_ns or 0}}
    selector = pyarrow.fs.FileSelector(root, recursive=True, allow_not_found=True)
    return {
        _relative(info.path, root): {"bytes": info.size, "modified": info.mtime_ns or 0}
        for info in fs.get_file_info(selector)
        if info.type == pyarrow.fs.FileType.File
    }


@dataclass(frozen=True)
class FoundMask:
    """A mask's URI and what it looked like when it was found (sizes and times)."""

    uri: str
    stamp: dict[str, Any]


class MaskFolder:
    """Where a video's mask is: for `a/b.mov` video `a/b.mp4`, folder `a/b/` or picture `a/b.png`.

    A location that is itself one file is the mask of every video.
    """

    def __init__(self, uri: str, endpoint: str | None) -> None:
        self._uri = uri.rstrip("/")
        fs, path = filesystem(uri, endpoint)
        self._files = listing(uri, endpoint)
        self._is_file = fs.get_file_info(path).is_file
        if not self._files:
            raise BatchError(f"inference.masks {uri}: is empty or does not exist")
        self._folders = {str(PurePosixPath(name).parent) for name in self._files}

    def find(self, name: str) -> FoundMask:
        """Mask of the video with this relative name; FileNotFoundError says what is expected."""
        if self._is_file:
            return FoundMask(self._uri, next(iter(self._files.values())))
        path = PurePosixPath(name)
        stem = str(path.with_suffix("") if path.suffix.lower() in VIDEO_SUFFIXES else path)
        candidates = [stem + ending for ending in VIDEO_SUFFIXES if stem + ending in self._files]
        candidates += [stem] if stem in self._folders else []
        candidates += [stem + ending for ending in PICTURE_SUFFIXES if stem + ending in self._files]
        if candidates:
            return FoundMask(join(self._uri, candidates[0]), _stamp(candidates[0], self._files))
        raise FileNotFoundError(
            f"{name}: no mask; expected {stem}.mp4, {stem}.png or a folder {stem}/ in {self._uri}"
        )


def _locations(cfg: JobConfig) -> tuple[str, str]:
    for key in ("videos", "output"):
        if getattr(cfg.inference, key) is None:
            raise BatchError(f"inference.{key} is not set: give a folder or a URI")
    videos, output = cfg.inference.videos.rstrip("/"), cfg.inference.output.rstrip("/")
    if videos == output or videos.startswith(f"{output}/"):
        raise BatchError(
            f"inference.output {output} holds inference.videos {videos}: the next run would take "
            "outputs for inputs; give another folder"
        )
    return videos, output


def _named_videos(cfg: JobConfig, videos_uri: str, output_uri: str) -> dict[str, str]:
    """Relative name to URI of every video that is neither an output nor a mask."""
    endpoint = cfg.data.s3_endpoint
    _, root = filesystem(videos_uri, endpoint)
    others = [uri for uri in (output_uri, cfg.inference.masks) if uri is not None]
    excluded = [_relative(filesystem(uri, endpoint)[1], root) for uri in others]
    named = {}
    for video in list_videos(videos_uri, endpoint):
        # (Listed URIs are plain paths or s3://.)
        name = _relative(video.uri.removeprefix("s3://"), root) or PurePosixPath(root).name
        if not any(name == part or name.startswith(f"{part}/") for part in excluded if part):
            named[name] = video.uri
    if not named:
        raise BatchError(f"inference.videos {videos_uri}: holds nothing but outputs and masks")
    return named


def _relative(path: str, base: str) -> str:
    """Path below `base`, or "" where it is not below it."""
    prefix = base.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else ""


def _stamp(name: str, files: dict[str, dict[str, int]]) -> dict[str, Any]:
    """What a file, or a folder of pictures, looked like when it was listed."""
    if name in files or not files:
        return files.get(name, {})
    inside = {file: stamp for file, stamp in files.items() if file.startswith(f"{name}/")}
    return {"pictures": len(inside), "digest": digest(inside)}


def _seed(seed: int, name: str) -> int:
    """A video's own seed: independent of which other videos are in the bucket."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def _finished(
    tasks: list[VideoTask], output_uri: str, endpoint: str | None
) -> dict[str, VideoOutcome]:
    fs, root = filesystem(output_uri, endpoint)
    present = listing(output_uri, endpoint)

    def check(task: VideoTask) -> VideoOutcome | None:
        output = _relative(task.output, output_uri)
        if output not in present or f"{output}.json" not in present:
            return None
        with fs.open_input_stream(f"{root.rstrip('/')}/{output}.json") as stream:
            record = parse_record(stream.read())
        same = record.get("fingerprint") == task.fingerprint
        if not same or record.get("bytes") != present[output]["bytes"]:
            return None
        return replace(record["outcome"], status="skipped")

    with ThreadPoolExecutor(16) as pool:
        outcomes = pool.map(check, tasks)
        return {task.name: found for task, found in zip(tasks, outcomes, strict=True) if found}
