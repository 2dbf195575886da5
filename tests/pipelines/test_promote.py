"""Only what is measurably better takes over, what it took over from comes back by one call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines import promote as module
from pipelines.config import JobConfig
from pipelines.promote import evaluation_key, promote, rollback
from pipelines.registry import RegistryError


class Registry:
    """Versions 1, 2, ... of "cssta"; each one's score is what `evaluate` says of its folder."""

    def __init__(self, cfg: JobConfig, scores: dict[str, float]) -> None:
        self.cfg, self.scores, self.asked = cfg, scores, []
        self.client = MlflowClient(cfg.tracking.uri, cfg.tracking.uri)
        self.client.create_registered_model("cssta")
        for _ in scores:
            self.client.create_model_version("cssta", "file:///nowhere")

    def evaluate(self, folder: Path) -> dict[str, float]:
        self.asked.append(folder.name)
        return {"cssta_hole_psnr": self.scores[folder.name], "videos": 5.0}

    def point(self, **aliases: str) -> None:
        for alias, version in aliases.items():
            self.client.set_registered_model_alias("cssta", alias, version)

    @property
    def aliases(self) -> dict[str, str]:
        found = self.client.get_registered_model("cssta").aliases
        return {alias: str(version) for alias, version in found.items()}

    def promote(self, **options):
        return promote(self.cfg, self.evaluate, **options)


@pytest.fixture
def registry(tmp_path: Path, mlflow_uri: str, monkeypatch) -> Registry:
    """Scores 20, 20.05, 21, 19 of versions 1 to 4; 1 is champion; nothing is downloaded."""
    (tmp_path / "held-out").mkdir()
    (tmp_path / "held-out" / "a.mp4").write_bytes(b"x")
    content = {
        "data": {"videos": str(tmp_path / "held-out")},
        "tracking": {"uri": mlflow_uri},
        "cluster": {"storage": str(tmp_path)},
    }
    monkeypatch.setattr(
        module, "resolve", lambda source, uri: (Path("/", source.rsplit("/", 1)[1]), source)
    )
    scores = {"1": 20.0, "2": 20.05, "3": 21.0, "4": 19.0}
    found = Registry(JobConfig.parse(content), scores)
    found.point(champion="1")
    return found


def test_a_better_candidate_takes_over(registry: Registry):
    registry.point(candidate="3")
    decision = registry.promote()
    assert decision.promoted and decision.scores == (21.0, 20.0)
    assert registry.aliases == {"champion": "3"}  # it is no candidate any more
    for words in ("models:/cssta/3 promoted", "21.000", "version 1", "20.000", "0.1 more"):
        assert words in decision.text()
    tags = registry.client.get_model_version("cssta", "3").tags
    assert tags["promotion"] == decision.text()


@pytest.mark.parametrize(("candidate", "margin"), [("2", 0.1), ("4", 0.0), ("3", 1.5)])
def test_one_that_is_not_better_by_the_margin_does_not(registry: Registry, candidate, margin):
    registry.point(candidate=candidate)
    decision = registry.promote(margin=margin)
    assert not decision.promoted and "but that of version 1" in decision.text()
    assert registry.aliases == {"champion": "1", "candidate": candidate}


def test_nothing_is_measured_twice_on_the_same_footage(registry: Registry):
    registry.promote(candidate="2")
    assert registry.asked == ["2", "1"]
    registry.promote(candidate="3", margin=9)
    assert registry.asked == ["2", "1", "3"]
    key = evaluation_key(registry.cfg)
    video = Path(registry.cfg.data.videos) / "a.mp4"
    video.write_bytes(bytes(byte ^ 1 for byte in video.read_bytes()))  # another of the same size
    assert evaluation_key(registry.cfg) != key
    registry.promote(candidate="3", margin=9)
    assert registry.asked == ["2", "1", "3", "3", "1"]


def test_the_first_champion_is_not_measured(registry: Registry):
    registry.client.delete_registered_model_alias("cssta", "champion")
    assert "there was no champion" in registry.promote(candidate="4").text()
    assert registry.aliases == {"champion": "4"} and registry.asked == []
    assert not registry.promote(candidate="4").promoted  # it is champion already
    with pytest.raises(RegistryError, match="no version is known"):
        rollback(registry.cfg)


def test_deciding_only_changes_nothing(registry: Registry):
    assert registry.promote(candidate="3", commit=False).promoted
    assert registry.aliases == {"champion": "1"}
    assert "promotion" not in registry.client.get_model_version("cssta", "3").tags


def test_rolled_back_step_by_step(registry: Registry):
    registry.promote(candidate="2", margin=0)
    registry.promote(candidate="3")
    assert rollback(registry.cfg) == ("2", "3")
    assert registry.aliases["champion"] == "2"
    assert registry.client.get_model_version("cssta", "3").tags["rolled_back"] == "to version 2"
    assert rollback(registry.cfg) == ("1", "2")
    assert registry.aliases["champion"] == "1"
    with pytest.raises(RegistryError, match="no version is known"):
        rollback(registry.cfg)
    registry.promote(candidate="3")
    assert rollback(registry.cfg) == ("1", "3")


def test_a_promotion_that_was_cut_off_does_not_confuse_the_rollback(registry: Registry):
    registry.promote(candidate="2", margin=0)
    # The history was written, the alias was not moved.
    registry.client.set_registered_model_tag("cssta", "champion.history", json.dumps(["1", "2"]))
    assert rollback(registry.cfg) == ("1", "2")


def test_a_deleted_predecessor_is_named(registry: Registry):
    registry.promote(candidate="3")
    registry.client.delete_model_version("cssta", "1")
    with pytest.raises(RegistryError, match="cssta/1: had champion before, but was deleted"):
        rollback(registry.cfg)
    assert registry.aliases == {"champion": "3"}


def test_a_champion_that_changed_meanwhile_is_not_replaced(registry: Registry):
    def evaluate(folder: Path) -> dict[str, float]:
        registry.point(champion="2")
        return registry.evaluate(folder)

    with pytest.raises(RegistryError, match="changed meanwhile"):
        promote(registry.cfg, evaluate, candidate="3")
    assert registry.aliases == {"champion": "2"}


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"cssta_hole_psnr": float("nan"), "videos": 5.0}, "cssta_hole_psnr could not be measured"),
        ({"cssta_psnr": 30.0}, "there is cssta_psnr"),
        ({}, "there is nothing"),
    ],
)
def test_what_cannot_be_measured_is_named(registry: Registry, figures, words: str):
    with pytest.raises(RegistryError, match=words):
        promote(registry.cfg, lambda folder: figures, candidate="3")
    assert registry.aliases == {"champion": "1"}


def test_means_of_different_videos_are_not_compared(registry: Registry):
    def evaluate(folder: Path) -> dict[str, float]:
        return registry.evaluate(folder) | {"videos": float(folder.name)}

    with pytest.raises(RegistryError, match=r"3\.0 and 1\.0 videos"):
        promote(registry.cfg, evaluate, candidate="3")


def test_a_registry_that_is_away_is_not_one_without_the_candidate(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    content = {"data": {"videos": str(tmp_path)}, "tracking": {"uri": "http://127.0.0.1:9"}}
    cfg = JobConfig.parse(content)
    with pytest.raises(RegistryError, match=r"does not answer.*127\.0\.0\.1:9"):
        promote(cfg, lambda folder: {})
    with pytest.raises(RegistryError, match="does not answer"):
        rollback(cfg)


@pytest.mark.parametrize("candidate", ["candidate", "99"])
def test_an_unknown_candidate_is_named(registry: Registry, candidate: str):
    with pytest.raises(RegistryError, match=f"cssta@{candidate}: is not registered"):
        registry.promote(candidate=candidate)
