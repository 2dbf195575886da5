"""A trained model is evaluated and registered once: not again where that very thing was done.

What was done is told by its identity, a digest over the weights, the settings and the footage that
they were scored on. The registered version carries it as a tag, so that another registry, whose
version 1 is another model, is not taken for the one that holds ours, and the same registry is
known at whatever address it is served.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from pipelines import storage
from pipelines.actors import pack_model
from pipelines.config import JobConfig
from pipelines.content_digest import content_digest
from pipelines.data_sets import find_data_set, object_sequences
from pipelines.evaluate import evaluate_model
from pipelines.model_card import CARD
from pipelines.registry import ModelVersionInfo, aliases, carries, register
from pipelines.tracking import JobRun
from pipelines.train_stage import Videos

IDENTITY = "cssta.identity"  # the tag


def evaluate_and_register(
    cfg: JobConfig, folder: Path, videos: Videos, run: JobRun, say: Callable[[str], None]
) -> tuple[ModelVersionInfo, dict[str, float]]:
    """The model's version and its scores; made now unless this very model has been, by this job.

    Raises as `evaluate_model` and `register` do, and StorageError.
    """
    endpoint = cfg.data.s3_endpoint
    record = storage.join(cfg.cluster.storage, cfg.name, "registered.json")
    identity = model_identity(cfg, folder, footage_identity(cfg, videos))
    if storage.exists(record, endpoint):
        content = json.loads(storage.read_bytes(record, endpoint))
        version = ModelVersionInfo(**content["version"])
        if content["identity"] == identity and carries(
            version.uri, IDENTITY, identity, run.tracking_uri
        ):
            say(f"already evaluated and registered: {version.uri}")
            run.log_metrics(content["metrics"])
            return version, content["metrics"]
    manifest = None if cfg.evaluate.videos or not videos.held_out.videos else videos.held_out
    say("evaluating")
    evaluation = evaluate_model(cfg, folder, manifest=manifest)
    metrics = {k: v for k, v in evaluation.metrics().items() if v == v}
    run.log_metrics(metrics)
    with tempfile.TemporaryDirectory() as scratch:
        for file in evaluation.write(Path(scratch)):
            run.log_file(file)
    version = register(
        folder,
        name=cfg.registry.name,
        alias=cfg.registry.alias,
        run_id=run.run_id,
        metrics=metrics,
        tags={IDENTITY: identity},
        tracking_uri=run.tracking_uri,
    )
    say(f"registered {version.uri} as {known_as(version, run.tracking_uri)}")
    document = {"identity": identity, "version": asdict(version), "metrics": metrics}
    storage.write_bytes(json.dumps(document).encode(), record, endpoint)
    return version, metrics


def known_as(version: ModelVersionInfo, tracking_uri: str) -> str:
    """The model's URI by its alias; by its number where it has none (any more)."""
    found = aliases(version, tracking_uri)
    return f"models:/{version.name}@{found[0]}" if found else version.uri


def model_identity(cfg: JobConfig, folder: Path, footage: str) -> str:
    """Digest of the weights, the evaluation's settings and footage, and the registry's settings."""
    whole = hashlib.sha256()
    for name, content in sorted(pack_model(folder).items()):
        if name == CARD:  # (where a stage was trained decides nothing)
            continue
        whole.update(name.encode() + hashlib.sha256(content).digest())
    parts = (cfg.evaluate, cfg.registry, cfg.data)
    settings = [part.model_dump(mode="json") for part in parts]
    whole.update(json.dumps([settings, cfg.seed, footage], sort_keys=True).encode())
    return whole.hexdigest()


def footage_identity(cfg: JobConfig, videos: Videos) -> str:
    """Digest of the content of what a model is scored on, as it is now. Raises StorageError."""
    endpoint = cfg.data.s3_endpoint
    if cfg.evaluate.videos is not None:
        others = {"videos": cfg.evaluate.videos, "layout": "auto"}
        found = find_data_set(cfg.data.model_copy(update=others))
        footage = content_digest([video.uri for video in found.videos], endpoint)
    elif cfg.data.prepared or not videos.held_out.videos:
        # (Of a prepared folder there is one digest; what it was made from may be gone.)
        footage = videos.training.digest
    else:
        footage = content_digest([video.uri for video in videos.held_out.videos], endpoint)
    masks = object_sequences(cfg.data)
    return f"{footage} {content_digest(masks, endpoint)}" if masks else footage
