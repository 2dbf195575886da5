"""Models by name: a model folder is registered in MLflow under an alias, and found again by it.

What is stored is safetensors, plain-text configuration, the code that runs them and a signature.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import cssta

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

# Only what the method imports: a server of the model needs neither Ray nor the pipelines.
_REQUIREMENTS = (
    "torch", "numpy", "safetensors", "PyYAML", "opencv-python-headless", "decord", "av", "tqdm",
)  # fmt: skip


CANDIDATE = "candidate"
"""Alias of the newest version where another one serves (see `pipelines.promote`)."""


class RegistryError(ValueError):
    """A model that cannot be found or fetched; the message names it and the remedy."""


@dataclass(frozen=True)
class ModelVersionInfo:
    """A registered version; `uri` (models:/name/version) stays with it whatever the alias does."""

    name: str
    version: str
    uri: str


def register(
    model_folder: str | Path,
    *,
    name: str,
    alias: str,
    run_id: str,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
    tracking_uri: str,
) -> ModelVersionInfo:
    """Store a model folder as a new version of `name`, belonging to a run, under an alias.

    That is `alias` where no version has it yet, else CANDIDATE: what serves changes by promotion
    only. `metrics` become tags of the version, beside `tags`. Raises RegistryError if the folder
    holds no model.
    """
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    model_folder = Path(model_folder).absolute()
    if not (model_folder / "config.yaml").is_file():
        raise RegistryError(f"{model_folder}: holds no model (config.yaml is missing); train one")
    with (
        _mlflow_at(tracking_uri),
        tempfile.TemporaryDirectory() as scratch,
        # MLflow misses type hints and an example to guess a signature from; here it is given. (It
        # changes the filters itself, so they cannot hide this; a recorder can.)
        warnings.catch_warnings(record=True),
    ):
        client = MlflowClient(tracking_uri, tracking_uri)
        # Made here, by ids: MLflow's own way is an active run, which would end with this function,
        # and without one the model would land in the default experiment.
        experiment = client.get_run(run_id).info.experiment_id
        logged = client.create_logged_model(experiment, name=name, source_run_id=run_id)
        Model.log(
            artifact_path=None,
            name=name,
            flavor=mlflow.pyfunc,
            run_id=run_id,
            model_id=logged.model_id,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"model": str(model_folder)},
            code_paths=[str(_code_without_weights(Path(scratch)))],
            signature=model_signature(),
            pip_requirements=_requirements(),
        )
        with suppress(MlflowException):  # it is there; if it is not, the next call says why
            client.create_registered_model(name)
        source = f"models:/{logged.model_id}"
        created = client.create_model_version(name, source, run_id, model_id=logged.model_id)
        version = str(created.version)
        shown = {key: f"{value:.6g}" for key, value in (metrics or {}).items()}
        for key, value in (shown | dict(tags or {})).items():
            client.set_model_version_tag(name, version, key, value)
        if alias in client.get_registered_model(name).aliases:
            alias = CANDIDATE
        client.set_registered_model_alias(name, alias, version)
    return ModelVersionInfo(name, version, f"models:/{name}/{version}")


def resolve(
    source: str | Path | None, tracking_uri: str | None = None, cache: str | Path | None = None
) -> tuple[Path, str]:
    """A folder that `Inpainter.load` takes, and which version it is.

    `source`: None (the default weights), a model folder, `models:/name@alias` or `models:/name/3`.
    A registered model is downloaded once into `cache` (default: ~/.cache/cssta). Raises
    RegistryError naming the source and the remedy.
    """
    if source is None or str(source) == "default":
        return Path(cssta.__file__).parent / "weights", "default"
    if not str(source).startswith("models:/"):
        folder = Path(source).expanduser().absolute()
        if not (folder / "config.yaml").is_file():
            raise RegistryError(
                f"{source}: is no model folder (config.yaml is missing); give one, or "
                "models:/name@alias"
            )
        return folder, str(folder)
    if tracking_uri is None:
        raise RegistryError(f"{source}: no MLflow server is known; set MLFLOW_TRACKING_URI")
    found = _find(str(source), tracking_uri)
    root = Path(cache or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cssta"
    # Version numbers repeat where a registry was made anew; times and ids do not. (The address is
    # left out: the same registry may be served at another port every time.)
    identity = f"{found.source} {found.run_id} {found.creation_timestamp}"
    key = hashlib.sha256(identity.encode()).hexdigest()[:12]
    folder = root / f"{found.name}-{found.version}-{key}"
    if not folder.is_dir():
        _download(found, tracking_uri, folder)
    return folder, f"models:/{found.name}/{found.version}"


def carries(source: str, tag: str, value: str, tracking_uri: str) -> bool:
    """Whether `models:/name@alias` or `models:/name/3` is registered, with that value of a tag."""
    try:
        return _find(source, tracking_uri).tags.get(tag) == value
    except RegistryError:
        return False


def aliases(version: ModelVersionInfo, tracking_uri: str) -> list[str]:
    """By which a version is known now, such as champion. Raises RegistryError."""
    return sorted(_find(version.uri, tracking_uri).aliases)


def model_signature() -> ModelSignature:
    """Any number of frames of any size, and as many masks."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    frames = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3), "frames")
    masks = TensorSpec(np.dtype(np.bool_), (-1, -1, -1), "masks")
    completed = TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))
    return ModelSignature(inputs=Schema([frames, masks]), outputs=Schema([completed]))


def _find(source: str, tracking_uri: str) -> ModelVersion:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri, tracking_uri)
    path = source.removeprefix("models:/").strip("/")
    try:
        if "@" in path:
            return client.get_model_version_by_alias(*path.rsplit("@", 1))
        name, _, version = path.partition("/")
        if not version.isdigit():
            raise RegistryError(f"{source}: write models:/name@alias or models:/name/3")
        return client.get_model_version(name, version)
    except MlflowException as error:
        try:
            known = [
                f"models:/{model.name}@{alias}"
                for model in client.search_registered_models(max_results=20)
                for alias in model.aliases
            ]
        except MlflowException:
            known = []
        reason = " ".join(str(error).split())[:200]
        raise RegistryError(
            f"{source}: not found at {tracking_uri} ({reason}); registered there: "
            f"{', '.join(known) or 'nothing; train a model with jobs/train_all.py'}"
        ) from error


def _download(found: ModelVersion, tracking_uri: str, folder: Path) -> None:
    """Fetch the model folder inside a version's artifacts; `folder` appears whole or not at all."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    uri = f"models:/{found.name}/{found.version}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        _mlflow_at(tracking_uri),
        tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as scratch,
    ):
        try:
            local = Path(download_artifacts(uri, dst_path=scratch))
            flavor = Model.load(local).flavors["python_function"]
            fetched = local / flavor["artifacts"]["model"]["path"]
            fetched.rename(folder)
        except (MlflowException, OSError, KeyError) as error:
            if folder.is_dir():  # another process was faster
                return
            if "mlflow-artifacts" in str(error) and not tracking_uri.startswith("http"):
                raise RegistryError(
                    f"{uri}: its files are served by an MLflow server, not by {tracking_uri}; "
                    "start the server (make ui) and set MLFLOW_TRACKING_URI to its address, such "
                    "as http://127.0.0.1:5000"
                ) from error
            raise RegistryError(f"{uri}: cannot be fetched from {tracking_uri}: {error}") from error


def _code_without_weights(scratch: Path) -> Path:
    """The method's code beside the weights it was trained with, less the default weights."""
    ignored = shutil.ignore_patterns("__pycache__", "weights")
    return shutil.copytree(Path(cssta.__file__).parent, scratch / "cssta", ignore=ignored)


def _requirements() -> list[str]:
    requirements = []
    for package in _REQUIREMENTS:
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:  # decord is not made for every machine
            continue
        requirements.append(f"{package}=={version.split('+')[0]}")
    return requirements


@contextmanager
def _mlflow_at(uri: str) -> Iterator[None]:
    """MLflow's process-wide addresses, which it also exports, set for the body only; quietly."""
    import mlflow

    progress = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", progress)
    before = {name: os.environ.get(name) for name in names}
    os.environ[progress] = "false"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
