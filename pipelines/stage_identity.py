"""What decides a stage's outcome: named by its digest, kept beside its checkpoints, and compared.

A video more, or one that is rejected now, makes another stage of it, which starts at step 0. Who
expected it to go on is told which part differs from what was trained before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pyarrow import fs as pafs

from cssta.config import ModelConfig
from pipelines import storage
from pipelines.checkpoints import Checkpoints
from pipelines.config import JobConfig
from pipelines.manifest import Manifest
from pipelines.retries import with_retries
from pipelines.shown_uri import shown
from pipelines.stage_clips import Pools
from pipelines.storage import StorageError
from pipelines.storage_errors import named

RECORD = "decisive.json"
NAMED = 5  # videos, and other differences, in a line
# These decide nothing of the outcome.
CADENCE = {"log_every", "checkpoint_every", "validate_every", "validation_clips", "compile"}
WORDS = {
    "frames": "the content of videos",
    "pools": "pictures or object masks",
    "weights": "the weights that it builds on or starts from",
}


def decisive_parts(
    cfg: JobConfig,
    name: str,
    model: ModelConfig,
    weights: Mapping[str, bytes],
    videos: Manifest,
    pools: Pools | None = None,
) -> dict[str, Any]:
    """Everything that decides the stage's outcome, as JSON keeps it."""
    return {
        "stage": name,
        "model": model.to_dict(),
        "settings": getattr(cfg.stages, name).model_dump(mode="json", exclude=CADENCE),
        "losses": cfg.losses.model_dump(mode="json"),
        "data": cfg.data.model_dump(mode="json", exclude={"max_failures", "prepared"}),
        "seed": cfg.seed,
        "workers": cfg.cluster.workers,
        "videos": [[v.uri, v.frames, v.height, v.width] for v in videos.videos],
        "frames": videos.digest,
        "pools": (pools or Pools()).digests(),
        "weights": {key: hashlib.sha256(value).hexdigest() for key, value in weights.items()},
    }


def digest_of(decisive: Mapping[str, Any]) -> str:
    """Twelve hex digits, which the stage's folder is named by."""
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def keep_decisive(decisive: Mapping[str, Any], folder: str, endpoint: str | None = None) -> None:
    """Write them into the stage's folder, once. Raises StorageError."""
    uri = storage.join(folder, RECORD)
    if not with_retries(lambda: storage.exists(uri, endpoint)):
        content = json.dumps(decisive, indent=1).encode()
        with_retries(lambda: storage.write_bytes(content, uri, endpoint))


def unlike_the_newest(
    decisive: Mapping[str, Any], folder: str, endpoint: str | None = None
) -> str | None:
    """A line on what differs from the stage of the same name that was begun last; None without one.

    For a stage that starts anew. What cannot be read is not told of.
    """
    stages, _, own = folder.rpartition("/")
    try:
        newest = _newest(stages, f"{decisive['stage']}-", own, endpoint)
        if newest is None:
            return None
        other = storage.join(stages, newest)
        before = json.loads(storage.read_bytes(storage.join(other, RECORD), endpoint))
        step = Checkpoints(other, endpoint).last_step()
        parts = differences(before, decisive)
    except (StorageError, ValueError, LookupError, TypeError, AttributeError):
        return None
    more = f"; and {len(parts) - NAMED} more" if len(parts) > NAMED else ""
    listed = "; ".join(parts[:NAMED]) or "nothing that is known"
    return (
        f"stage {decisive['stage']} starts at step 0: {shown(other)}, at step {step}, is of "
        f"another kind. What differs: {listed}{more}"
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what of the decisive parts was otherwise before."""
    parts = _videos(before["videos"], now["videos"])
    # (The content is another wherever there are other videos.)
    quiet = {"videos", "frames"} if parts else {"videos"}
    for key in sorted((before.keys() | now.keys()) - quiet):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if key in WORDS or not isinstance(old, dict) or not isinstance(new, dict):
            told = WORDS.get(key, f"{key} {_show(old)}, now {_show(new)}")
            parts.append(told)
            continue
        for inner in sorted(old.keys() | new.keys()):
            if old.get(inner) != new.get(inner):
                one, other = _show(old.get(inner)), _show(new.get(inner))
                parts.append(f"{key}.{inner} {one}, now {other}")
    return parts


def _videos(before: list[list], now: list[list]) -> list[str]:
    old, new = ({row[0]: row[1:] for row in rows} for rows in (before, now))
    found = {
        "more": sorted(new.keys() - old.keys()),
        "less": sorted(old.keys() - new.keys()),
        "of another length or size": sorted(k for k in old.keys() & new.keys() if old[k] != new[k]),
    }
    parts = []
    for how, uris in found.items():
        if uris:
            rest = ", ..." if len(uris) > NAMED else ""
            names = ", ".join(storage.name(uri) for uri in uris[:NAMED])
            parts.append(f"{len(uris)} videos {how} ({names}{rest})")
    if not parts and before != now:
        parts.append("the order of the videos")
    return parts


def _show(value: object) -> str:
    return shown(json.dumps(value))


def _newest(stages: str, prefix: str, own: str, endpoint: str | None) -> str | None:
    """The folder of that prefix, other than `own`, whose record was written last."""
    system, path = storage.filesystem(stages, endpoint)
    with named(stages, "check the address and the credentials"):
        found = system.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        folders = [info.base_name for info in found if info.base_name.startswith(prefix)]
        records = {
            name: system.get_file_info(f"{path}/{name}/{RECORD}") for name in folders if name != own
        }
    written = [(info.mtime_ns, name) for name, info in records.items() if info.is_file]
    return max(written)[1] if written else None
