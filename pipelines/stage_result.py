"""A finished stage, kept beside its checkpoints: taken again only as it was kept.

<stage>/im2im.safetensors   the exported network
<stage>/result.json         its digest, the last metrics and the time; written last
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from pipelines import storage
from pipelines.retries import with_retries


class DamagedResultError(ValueError):
    """A finished stage's files are not what was kept; the message names the file."""


@dataclass(frozen=True)
class StageResult:
    """A finished stage: the exported network's safetensors and the last metrics."""

    name: str
    digest: str
    weights: bytes = field(repr=False)
    metrics: dict[str, float]
    seconds: float
    reused: bool


def keep_result(result: StageResult, folder: str, s3_endpoint: str | None = None) -> None:
    """Write it into the stage's folder. Raises StorageError."""
    content = {
        "metrics": result.metrics,
        "seconds": result.seconds,
        "sha256": hashlib.sha256(result.weights).hexdigest(),
    }
    record, stored = _files(folder, result.name)
    with_retries(lambda: storage.write_bytes(result.weights, stored, s3_endpoint))
    with_retries(lambda: storage.write_bytes(json.dumps(content).encode(), record, s3_endpoint))


def kept_result(
    name: str, digest: str, folder: str, s3_endpoint: str | None = None
) -> StageResult | None:
    """What `keep_result` wrote; None if the stage is not finished.

    Raises StorageError, and DamagedResultError for what is not as it was written.
    """
    record, stored = _files(folder, name)
    if not with_retries(lambda: storage.exists(record, s3_endpoint)):
        return None
    content = with_retries(lambda: storage.read_bytes(record, s3_endpoint))
    try:
        document = json.loads(content)
        metrics, seconds = dict(document["metrics"]), float(document["seconds"])
        expected = str(document["sha256"])
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedResultError(f"{record}: is no record of a stage ({error!r})") from error
    if not with_retries(lambda: storage.exists(stored, s3_endpoint)):
        raise DamagedResultError(f"{stored}: is gone")
    weights = with_retries(lambda: storage.read_bytes(stored, s3_endpoint))
    if hashlib.sha256(weights).hexdigest() != expected:
        raise DamagedResultError(f"{stored}: is not the file that was kept")
    return StageResult(name, digest, weights, metrics, seconds, reused=True)


def _files(folder: str, name: str) -> tuple[str, str]:
    return storage.join(folder, "result.json"), storage.join(folder, f"{name}.safetensors")
