"""The RayJob against KubeRay's schema and our settings; the compose file by structure."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from pipelines.config import JobConfig

INFRA = Path(__file__).resolve().parents[2] / "infra"
REPOSITORY = INFRA.parent
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|TOKEN")


def load(path: Path) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the schema is 1.4 MB
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)


@pytest.fixture(scope="module")
def rayjob() -> dict[str, Any]:
    return load(INFRA / "rayjob.yaml")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return load(INFRA / "compose.yaml")


@pytest.fixture(scope="module")
def rayjob_schema(shared_dir: Path) -> Draft202012Validator:
    definition = shared_dir / "crds" / "ray.io_rayjobs.yaml"
    if not definition.is_file():
        pytest.skip(f"KubeRay's resource definitions are not at {definition.parent}")
    versions = load(definition)["spec"]["versions"]
    schema = next(v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == "v1")
    metadata = schema["properties"]["metadata"]
    close(schema)
    metadata.pop("additionalProperties", None)  # the API server has its own schema for it
    return Draft202012Validator(schema)


def close(schema: Any) -> None:
    """Refuse unknown fields, as the API server's strict validation does."""
    if isinstance(schema, list):
        for item in schema:
            close(item)
    elif isinstance(schema, dict):
        for item in schema.values():
            close(item)
        if "properties" in schema and isinstance(schema["properties"], dict):
            keeps_unknown = schema.get("x-kubernetes-preserve-unknown-fields", False)
            if not keeps_unknown and schema.get("type") == "object":
                schema.setdefault("additionalProperties", False)


def problems(validator: Draft202012Validator, manifest: dict[str, Any]) -> list[str]:
    return [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(manifest)]


def containers(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = rayjob["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [c for group in groups for c in group["template"]["spec"]["containers"]]


def test_rayjob_is_valid(rayjob_schema, rayjob):
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    assert problems(rayjob_schema, rayjob) == []
    modes = {"K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"}
    assert rayjob["spec"]["submissionMode"] in modes


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "entryPoint"), "python"),
        (("spec", "backoffLimit"), "two"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "password"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "replica"), 4),
    ],
)
def test_the_schema_would_catch_a_mistake(rayjob_schema, rayjob, path, value):
    broken = copy.deepcopy(rayjob)
    *parents, key = path
    place = broken
    for parent in parents:
        place = place[parent]
    place[key] = value
    assert problems(rayjob_schema, broken)


def test_rayjob_runs_an_image_of_its_ray_version(rayjob):
    version = rayjob["spec"]["rayClusterSpec"]["rayVersion"]
    assert version == "2.60.0"
    images = {container["image"] for container in containers(rayjob)}
    assert images == {f"cssta-cuda:{version}"}


def test_rayjob_command_is_in_the_repository(rayjob):
    words = rayjob["spec"]["entrypoint"].split()
    assert words[0] == "python"
    for word in words[1:]:
        if word.endswith((".py", ".yaml")):
            assert (REPOSITORY / word).is_file(), f"{word} is not in the repository"
    # A relative command is looked for where Ray was started.
    assert {container["workingDir"] for container in containers(rayjob)} == {"/opt/cssta"}


def test_rayjob_settings_are_a_configuration_that_does_what_the_file_says(rayjob):
    words = rayjob["spec"]["entrypoint"].split()
    overrides = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
    cfg = JobConfig.load(REPOSITORY / words[words.index("--config") + 1], overrides)
    assert "complete the videos" in (INFRA / "rayjob.yaml").read_text().split("apiVersion")[0]
    # Pods come and go: everything that lasts is in a bucket.
    locations = {cfg.data.videos, cfg.inference.videos, cfg.inference.output, cfg.cluster.storage}
    assert len(locations) == 4 and all(place.startswith("s3://") for place in locations)
    trainers, _ = rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert cfg.inference.actors == trainers["replicas"], "as many models as there are GPUs"


def test_rayjob_has_the_gpus_and_cpus_that_the_config_asks_for(rayjob):
    words = rayjob["spec"]["entrypoint"].split()
    config = load(REPOSITORY / words[words.index("--config") + 1])["cluster"]
    groups = rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    gpus = cpus = 0
    for group in groups:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        gpus += group["minReplicas"] * int(limits.get("nvidia.com/gpu", 0))
        if "nvidia.com/gpu" in limits:
            cpus += group["minReplicas"] * int(limits["cpu"])
    assert gpus == config["workers"]
    # CPUs are left for reading: trainers that hold all of them wait for data for ever.
    assert cpus > config["workers"] * config["cpus_per_worker"]


def test_rayjob_pods_suit_the_autoscaler_and_run_without_privileges(rayjob):
    cluster = rayjob["spec"]["rayClusterSpec"]
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["authOptions"]["mode"] == "token"
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        assert pod["securityContext"]["runAsNonRoot"] is True
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert container["resources"]["requests"] == container["resources"]["limits"]
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_rayjob_object_store_fits_in_shared_memory(rayjob):
    for group in rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        (volume,) = group["template"]["spec"]["volumes"]
        gibibytes = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi"))
        assert int(group["rayStartParams"]["object-store-memory"]) < gibibytes * 1024**3


def test_compose_services_depend_on_services_and_conditions_that_exist(compose):
    services = compose["services"]
    for name, service in services.items():
        for other, wait in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}, which is no service"
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{other} cannot become healthy"
            else:
                assert wait["condition"] == "service_completed_successfully"
                assert services[other]["restart"] == "no", f"{other} never completes"


def test_compose_servers_have_health_checks_and_pinned_images(compose):
    for name, service in compose["services"].items():
        if service["restart"] != "no":
            check = service["healthcheck"]
            assert {"test", "interval", "timeout", "retries"} <= set(check), name
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d", tag), f"{name}: {service['image']} has no version"


def test_compose_volumes_are_named(compose):
    mounted = [v for s in compose["services"].values() for v in s.get("volumes", [])]
    assert {volume.partition(":")[0] for volume in mounted} == set(compose["volumes"])


def test_compose_holds_no_secrets(compose):
    example = (INFRA / ".env.example").read_text(encoding="utf-8")
    for name, service in compose["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key):
                assert re.fullmatch(r"\$\{(\w+):\?[^}]+\}", value), f"{name}: {key} is not required"
            for variable in re.findall(r"\$\{(\w+):\?", str(value)):
                assert re.search(rf"^{variable}=$", example, re.M), f"{variable}: .env.example"
            assert not re.search(r"://\w+:\w+@", str(value)), f"{name}: {key} holds a password"


def test_compose_mlflow_keeps_records_in_postgres_and_files_in_s3(compose):
    mlflow = compose["services"]["mlflow"]
    assert mlflow["environment"]["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg2://")
    options = dict(word[2:].split("=", 1) for word in mlflow["command"] if "=" in word)
    bucket = options["artifacts-destination"].removeprefix("s3://").partition("/")[0]
    assert bucket in compose["services"]["create-buckets"]["command"]
    assert "localhost:*" in options["allowed-hosts"]
    port = mlflow["ports"][0].rpartition(":")[2]
    assert options["port"] == port


def test_compose_opens_ports_on_this_machine_only_unless_told(compose):
    ports = [port for s in compose["services"].values() for port in s.get("ports", [])]
    assert ports
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in ports)
