"""Which registered version serves: a candidate takes over only where it is measurably better.

The alias that batch jobs resolve (`registry.alias`, champion) is moved in one step, and who had it
before is kept as a tag of the registered model, so that one command brings the earlier one back.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cssta import __version__
from pipelines.config import JobConfig
from pipelines.content_digest import content_digest
from pipelines.registry import CANDIDATE, RegistryError, resolve
from pipelines.storage import list_videos
from pipelines.tracking import tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

METRIC = "cssta_hole_psnr"
MARGIN = 0.1  # dB: less than that is within what another seed of training changes

Evaluate = Callable[[Path], Mapping[str, float]]
"""From a model folder to its figures, higher being better, on the configuration's footage."""


@dataclass(frozen=True)
class Decision:
    """What was decided, and by which figures; None where nothing was measured."""

    promoted: bool
    name: str
    candidate: str
    champion: str | None
    metric: str
    margin: float
    scores: tuple[float | None, float | None]
    reason: str

    def text(self) -> str:
        """For a person."""
        verb = "promoted" if self.promoted else "not promoted"
        return f"models:/{self.name}/{self.candidate} {verb}: {self.reason}"


def promote(
    cfg: JobConfig,
    evaluate: Evaluate,
    *,
    candidate: str = CANDIDATE,
    metric: str = METRIC,
    margin: float = MARGIN,
    commit: bool = True,
) -> Decision:
    """Measure candidate and champion on the same footage; move the alias if the first is better.

    What one of them scored on the very same footage before is not measured again. Where there is
    no champion yet, the candidate becomes it.

    Args:
        candidate: an alias or a version's number.
        margin: by which its `metric` must be higher at least; not negative.
        commit: False only decides.

    Raises RegistryError: there is no such candidate, the metric cannot be measured, the margin is
    negative, or somebody else changed the champion meanwhile.
    """
    if not margin >= 0:  # (nan is not)
        raise RegistryError(f"margin {margin:g}: a worse one would be promoted; give 0 or more")
    client, name, alias = _client(cfg), cfg.registry.name, cfg.registry.alias
    challenger = _version(client, name, candidate)
    if challenger is None:
        raise RegistryError(
            f"models:/{name}@{candidate}: is not registered; train another model"
            " (jobs/train_all.py), or name a version's number"
        )
    champion = _version(client, name, alias)
    known: dict[str, Any] = {
        "name": name,
        "candidate": challenger,
        "champion": champion,
        "metric": metric,
        "margin": margin,
    }
    if challenger == champion:
        return Decision(False, scores=(None, None), reason=f"it is {alias} already", **known)
    if champion is None:
        decision = Decision(True, scores=(None, None), reason=f"there was no {alias}", **known)
    else:
        figures = [
            _figures(cfg, client, evaluate, version, metric) for version in (challenger, champion)
        ]
        if figures[0].get("videos") != figures[1].get("videos"):
            raise RegistryError(
                f"models:/{name}: versions {challenger} and {champion} could be measured on "
                f"{figures[0].get('videos')} and {figures[1].get('videos')} videos; means of "
                "different videos do not compare: see what failed"
            )
        ours, theirs = (found[metric] for found in figures)
        better = ours - theirs >= margin
        reason = (
            f"{metric} {ours:.3f}, {'that' if better else 'but that'} of version {champion}, "
            f"{alias}, is {theirs:.3f}; {margin:g} more {'was' if better else 'is'} asked for"
        )
        decision = Decision(better, scores=(ours, theirs), reason=reason, **known)
    if commit:
        if _version(client, name, alias) != champion:
            raise RegistryError(f"models:/{name}@{alias}: was changed meanwhile; start again")
        client.set_model_version_tag(name, challenger, "promotion", decision.text())
        if decision.promoted:
            _crown(client, name, alias, challenger, champion)
            if not candidate.isdigit():
                client.delete_registered_model_alias(name, candidate)
    return decision


def rollback(cfg: JobConfig) -> tuple[str, str]:
    """Give the alias back to the version that had it before: (the version now, the one before).

    Raises RegistryError where no earlier one is known, or it is there no more.
    """
    client, name, alias = _client(cfg), cfg.registry.name, cfg.registry.alias
    champion = _version(client, name, alias)
    history = _history(client, name, alias)
    while history and history[-1] == champion:
        history.pop()  # a promotion was cut off before it moved the alias
    if champion is None or not history:
        raise RegistryError(f"models:/{name}@{alias}: no version is known that had it before")
    earlier = history.pop()
    if _version(client, name, earlier) is None:
        raise RegistryError(f"models:/{name}/{earlier}: had {alias} before, but was deleted")
    client.set_model_version_tag(name, champion, "rolled_back", f"to version {earlier}")
    client.set_registered_model_alias(name, alias, earlier)
    _remember(client, name, alias, history)
    return earlier, champion


def evaluation_key(cfg: JobConfig) -> str:
    """A digest of all that figures depend on but the model: footage, holes, sizes, software.

    Raises StorageError where the footage cannot be read.
    """
    endpoint = cfg.data.s3_endpoint
    footage = [video.uri for video in list_videos(cfg.evaluate.videos or cfg.data.videos, endpoint)]
    content = {
        "footage": [footage, content_digest(footage, endpoint)],
        "evaluate": cfg.evaluate.model_dump(mode="json"),
        "data": cfg.data.model_dump(mode="json"),
        "seed": cfg.seed,
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _figures(
    cfg: JobConfig, client: MlflowClient, evaluate: Evaluate, version: str, metric: str
) -> dict[str, float]:
    """The version's figures; found among its tags, or measured and kept there."""
    name, tag = cfg.registry.name, f"evaluation.{evaluation_key(cfg)}"
    found = client.get_model_version(name, version).tags.get(tag)
    figures = json.loads(found) if found else {}
    if metric not in figures:
        folder, _ = resolve(f"models:/{name}/{version}", tracking_uri(cfg))
        measured = evaluate(folder)
        figures = {key: float(value) for key, value in measured.items() if math.isfinite(value)}
        client.set_model_version_tag(name, version, tag, json.dumps(figures))
    if metric not in figures:
        raise RegistryError(
            f"models:/{name}/{version}: {metric} could not be measured; there is "
            f"{', '.join(sorted(figures)) or 'nothing'}; check evaluate.videos and --metric"
        )
    return figures


def _crown(client: MlflowClient, name: str, alias: str, version: str, champion: str | None) -> None:
    # The history first: if this is cut off in between, the champion merely stands in it too.
    history = _history(client, name, alias)
    if champion is not None and history[-1:] != [champion]:
        _remember(client, name, alias, [*history, champion])
    client.set_registered_model_alias(name, alias, version)


def _history(client: MlflowClient, name: str, alias: str) -> list[str]:
    """Versions that had the alias before, the latest last."""
    return json.loads(client.get_registered_model(name).tags.get(f"{alias}.history", "[]"))


def _remember(client: MlflowClient, name: str, alias: str, versions: list[str]) -> None:
    client.set_registered_model_tag(name, f"{alias}.history", json.dumps(versions))


def _version(client: MlflowClient, name: str, which: str) -> str | None:
    """The number of a version, by alias or number; None where there is none.

    Raises RegistryError where the registry does not say so.
    """
    from mlflow.exceptions import MlflowException

    try:
        if which.isdigit():
            return str(client.get_model_version(name, which).version)
        return str(client.get_model_version_by_alias(name, which).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise RegistryError(
            f"models:/{name}: the registry does not answer; see to the server at "
            f"{client.tracking_uri}: {str(error).splitlines()[0]}"
        ) from None


def _client(cfg: JobConfig) -> MlflowClient:
    from mlflow import MlflowClient

    uri = tracking_uri(cfg)
    return MlflowClient(uri, uri)
