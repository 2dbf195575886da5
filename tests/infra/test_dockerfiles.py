"""The Dockerfiles against the repository and its pinned versions (nothing is built here)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

INFRA = Path(__file__).resolve().parents[2] / "infra"
REPOSITORY = INFRA.parent
FILES = sorted(INFRA.glob("Dockerfile.*"))
PYTHON_BASE = re.compile(r"python:(\d+\.\d+)-slim-\w+$")


def instructions(path: Path) -> list[tuple[str, str]]:
    """(INSTRUCTION, arguments) in order, continuation lines joined, comments left out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    logical = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in logical if line.strip()]


def argument(path: Path, name: str) -> str:
    """The default of an ARG."""
    defaults = dict(text.partition("=")[::2] for word, text in instructions(path) if word == "ARG")
    return defaults[name]


def constraints() -> dict[str, str]:
    """Pinned version of every package in constraints.txt."""
    path = REPOSITORY / "constraints.txt"
    if not path.is_file():
        pytest.skip("constraints.txt is not in the repository")
    pins = re.findall(r"^([\w.-]+)(?:\[[^\]]*\])?==([^\s;]+)", path.read_text(), re.M)
    return {name.lower(): version for name, version in pins}


def test_there_is_an_image_for_each_purpose():
    assert [path.suffix for path in FILES] == [".cpu", ".cuda", ".mlflow"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_base_image_is_pinned_to_a_supported_python(path):
    (base,) = [text for word, text in instructions(path) if word == "FROM"]
    version = PYTHON_BASE.match(base)
    assert version, f"{base} is not a python slim image with a version and a distribution"
    assert (3, 10) <= tuple(map(int, version[1].split("."))) <= (3, 13)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_image_does_not_run_as_root(path):
    words = [word for word, _ in instructions(path)]
    users = [text for word, text in instructions(path) if word == "USER"]
    assert users == ["1000"]  # a number, so that Kubernetes can tell it is not root
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_everything_copied_is_in_the_repository(path):
    for word, text in instructions(path):
        if word == "COPY":
            for source in text.split()[:-1]:
                assert (REPOSITORY / source).exists(), f"COPY {source}: not in the repository"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_index_is_a_build_argument_and_empty_by_default(path):
    assert argument(path, "PIP_INDEX") == ""
    installs = [text for word, text in instructions(path) if word == "RUN" and "pip " in text]
    assert installs
    assert all('${PIP_INDEX:+--index-url "$PIP_INDEX"}' in text for text in installs)


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_ray_is_the_pinned_version_and_the_rayjobs(name):
    version = argument(INFRA / f"Dockerfile.{name}", "RAY_VERSION")
    rayjob = yaml.safe_load((INFRA / "rayjob.yaml").read_text())
    assert version == rayjob["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"cssta-{name}:{version} " in (INFRA / f"Dockerfile.{name}").read_text()
    assert version == constraints()["ray"]


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_packages_are_installed_at_the_pinned_versions(name):
    (install,) = [
        text
        for word, text in instructions(INFRA / f"Dockerfile.{name}")
        if word == "RUN" and "pip " in text
    ]
    assert "--constraint constraints.txt" in install
    # A local version such as +cpu would keep the other image from installing.
    assert "+" not in constraints()["torch"]


def test_only_the_cpu_image_takes_cpu_wheels():
    assert argument(INFRA / "Dockerfile.cpu", "TORCH_INDEX").endswith("/whl/cpu")
    assert argument(INFRA / "Dockerfile.cuda", "TORCH_INDEX") == ""


def test_the_two_cluster_images_differ_in_torch_alone():
    cpu, cuda = (instructions(INFRA / f"Dockerfile.{name}") for name in ("cpu", "cuda"))
    different = set(cpu) ^ set(cuda)
    assert all("TORCH_INDEX=" in text or "NVIDIA" in text for _, text in different)


def test_mlflow_server_is_the_clients_version():
    version = argument(INFRA / "Dockerfile.mlflow", "MLFLOW_VERSION")
    compose = yaml.safe_load((INFRA / "compose.yaml").read_text())
    assert compose["services"]["mlflow"]["image"] == f"cssta-mlflow:{version}"
    assert version == constraints()["mlflow"]
