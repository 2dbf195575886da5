"""A registered model is found by alias, runs as a pyfunc, and holds nothing pickled."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from safetensors.numpy import load_file

from cssta.checkpoint import load_model
from pipelines.config import JobConfig
from pipelines.registry import (
    CANDIDATE,
    RegistryError,
    aliases,
    carries,
    register,
    resolve,
)
from pipelines.tracking import JobRun


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path, tiny_model: Path):
    """(tracking URI, run, second version) of a model registered twice."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{shutil.copy(mlflow_database, folder)}"
    cfg = JobConfig.parse(
        {
            "data": {"videos": "/v"},
            "tracking": {"uri": uri},
            "cluster": {"storage": str(folder)},
        }
    )
    run = JobRun.start(cfg)
    keep = dict(name="cssta", alias="champion", run_id=run.run_id, tracking_uri=uri)
    register(tiny_model, tags={"made": "first"}, **keep)
    return uri, run, register(tiny_model, metrics={"psnr": 27.93912345}, **keep)


def test_what_serves_is_not_replaced_by_the_newest_version(registered):
    uri, run, version = registered
    assert (version.name, version.version, version.uri) == ("cssta", "2", "models:/cssta/2")
    client = MlflowClient(uri, uri)
    assert str(client.get_model_version_by_alias("cssta", "champion").version) == "1"
    found = client.get_model_version_by_alias("cssta", CANDIDATE)
    assert (str(found.version), found.run_id) == ("2", run.run_id)
    assert aliases(version, uri) == [CANDIDATE]
    assert found.tags == {"psnr": "27.9391"}
    assert client.get_run(run.run_id).info.status == "RUNNING"
    assert "MLFLOW_REGISTRY_URI" not in os.environ


def test_resolved_by_alias_and_version_into_a_model_folder(registered, tiny_model, tmp_path):
    uri, _, _ = registered
    folder, version = resolve(f"models:/cssta@{CANDIDATE}", uri, tmp_path)
    assert version == "models:/cssta/2"
    ours, theirs = (load_file(f / "inpainter.safetensors") for f in (tiny_model, folder))
    assert ours.keys() == theirs.keys()
    assert all((ours[key] == theirs[key]).all() for key in ours)
    load_model(folder)
    before = (folder / "config.yaml").stat().st_mtime_ns
    assert resolve("models:/cssta/2", uri, tmp_path)[0] == folder
    assert (folder / "config.yaml").stat().st_mtime_ns == before  # not downloaded again
    assert resolve("models:/cssta/1", uri, tmp_path)[0] != folder
    assert not list((tmp_path / "cssta").glob(".*"))


def test_the_same_registry_at_another_address_is_not_downloaded_again(registered, tmp_path):
    uri, _, _ = registered
    folder, _ = resolve("models:/cssta@champion", uri, tmp_path)
    again, _ = resolve("models:/cssta@champion", uri.replace("sqlite:///", "sqlite:////"), tmp_path)
    assert again == folder
    assert len(list((tmp_path / "cssta").iterdir())) == 1


def test_what_a_version_carries_is_told_without_a_download(registered, tmp_path, monkeypatch):
    uri, _, _ = registered
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for source in ("models:/cssta@champion", "models:/cssta/1"):
        assert carries(source, "made", "first", uri) and not carries(source, "made", "again", uri)
    for source in ("cssta/2", "cssta@absent", "cssta/99", "other/1"):
        assert not carries(f"models:/{source}", "made", "first", uri)
    assert not list(tmp_path.iterdir())


def test_registering_is_silent(tiny_model, mlflow_uri, tmp_path, capfd, recwarn):
    cfg = JobConfig.parse(
        {"data": {"videos": "/v"}, "tracking": {"uri": mlflow_uri}, "cluster": {"storage": "/s"}}
    )
    run = JobRun.start(cfg)
    capfd.readouterr()
    register(tiny_model, name="m", alias="a", run_id=run.run_id, tracking_uri=mlflow_uri)
    assert capfd.readouterr() == ("", "")
    assert not [warning for warning in recwarn if "type hint" in str(warning.message)]


def test_nothing_is_pickled_and_the_signature_is_there(registered):
    import mlflow

    uri, _, version = registered
    database = Path(uri.removeprefix("sqlite:///"))
    files = [path for path in (database.parent / "mlartifacts").rglob("*") if path.is_file()]
    assert len([path for path in files if path.name == "inpainter.safetensors"]) == 2
    assert {path.suffix for path in files} <= {".py", ".yaml", ".txt", ".safetensors", ""}
    mlflow.set_tracking_uri(uri)
    try:
        info = mlflow.models.get_model_info(version.uri)
    finally:
        mlflow.set_tracking_uri(None)
    assert info.signature.inputs.input_names() == ["frames", "masks"]
    assert [spec.shape for spec in info.signature.inputs.inputs] == [
        (-1, -1, -1, 3),
        (-1, -1, -1),
    ]


def test_the_pyfunc_completes_a_video(registered, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    uri, _, _ = registered
    mlflow.set_tracking_uri(uri)
    try:
        model = mlflow.pyfunc.load_model("models:/cssta@champion")
    finally:
        mlflow.set_tracking_uri(None)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, 33, 47, 3), np.uint8)
    masks = np.zeros((3, 33, 47), bool)
    masks[:, 8:20, 10:30] = True
    completed = model.predict({"frames": frames, "masks": masks})
    assert completed.shape == frames.shape and completed.dtype == np.uint8
    np.testing.assert_array_equal(completed[~masks], frames[~masks])
    with pytest.raises(mlflow.exceptions.MlflowException):
        model.predict({"frames": frames.astype(np.float32), "masks": masks})
    with pytest.raises(mlflow.exceptions.MlflowException):
        model.predict({"frames": frames})


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("models:/cssta@absent", ["models:/cssta@absent", "models:/cssta@champion"]),
        ("models:/other@champion", ["models:/other@champion", "models:/cssta@champion"]),
        ("models:/cssta/99", ["models:/cssta/99"]),
        ("models:/cssta/latest", ["name@alias"]),
        ("models:/cssta", ["name@alias"]),
        ("/no/such/folder", ["/no/such/folder", "config.yaml"]),
    ],
)
def test_what_cannot_be_found_is_named(registered, source: str, parts: list[str]):
    with pytest.raises(RegistryError) as caught:
        resolve(source, registered[0])
    for part in parts:
        assert part in str(caught.value)


def test_files_of_a_stopped_server_are_told_to_need_it(tiny_model, mlflow_uri, tmp_path):
    client = MlflowClient(mlflow_uri, mlflow_uri)
    # What a server writes into its database when it serves the artifacts itself.
    client.create_registered_model("cssta")
    client.create_model_version("cssta", "mlflow-artifacts:/1/models/m-1/artifacts")
    client.set_registered_model_alias("cssta", "champion", "1")
    with pytest.raises(RegistryError) as caught:
        resolve("models:/cssta@champion", mlflow_uri, tmp_path)
    for part in ("models:/cssta/1", mlflow_uri, "make ui", "MLFLOW_TRACKING_URI"):
        assert part in str(caught.value)
    assert not list((tmp_path / "cssta").iterdir())


def test_folders_and_the_default_weights_need_no_server(tiny_model: Path):
    assert resolve(tiny_model) == (tiny_model, str(tiny_model))
    folder, version = resolve(None)
    assert (folder.name, version) == ("weights", "default")
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"):
        resolve("models:/cssta@champion")


def test_a_folder_without_a_model_is_not_registered(tmp_path: Path, mlflow_uri: str):
    with pytest.raises(RegistryError, match="holds no model"):
        register(tmp_path, name="m", alias="a", run_id="0", tracking_uri=mlflow_uri)
