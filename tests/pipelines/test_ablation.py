"""Variants differ in one key and nothing else; their table has the paper's rows beside them."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from cssta.checkpoint import load_model, save_model
from cssta.config import ModelConfig
from cssta.evaluation.scoring import SequenceScore
from cssta.evaluation.tables import Evaluation
from cssta.im2im import Im2Im
from cssta.inpainting import InpaintingNetwork
from pipelines import ablation as module
from pipelines import model_card as card_module
from pipelines.ablation import FULL, VARIANTS, ablate
from pipelines.config import ConfigError, JobConfig
from pipelines.manifest import Manifest
from pipelines.train_stage import StageResult, Videos

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ModelConfig.preset("tiny")


class NoRun:
    tracking_uri = ""

    def stage(self, name: str):
        return nullcontext(name)


@pytest.fixture
def cfg(tmp_path: Path) -> JobConfig:
    return JobConfig.parse(
        {
            "data": {"videos": str(tmp_path)},
            "model": {"size": "tiny"},
            "cluster": {"storage": str(tmp_path / "runs")},
        }
    )


def test_one_key_changes(cfg: JobConfig):
    for variant in VARIANTS:
        flat, own = cfg.flat(), variant.of(cfg).flat()
        changed = {key for key in flat if flat[key] != own[key]}
        assert changed == ({variant.key} if variant.key else set()), variant
        JobConfig.parse(variant.of(cfg).to_dict())
    attentions = [v.value for v in VARIANTS if v.key == "model.attention"]
    assert sorted(attentions) == ["hole-region", "inter-frame", "none"]


def test_the_configuration_is_one():
    cfg = JobConfig.load(REPOSITORY / "jobs/configs/ablation.yaml")
    assert cfg.model.init is None and cfg.losses.lambda_f > 0


def test_every_variant_is_trained_alike_and_scored(cfg, tmp_path: Path, monkeypatch):
    trained, evaluated = [], []
    monkeypatch.setattr(module, "find_videos", lambda cfg, say: Videos(Manifest(()), Manifest(())))
    monkeypatch.setattr(card_module.ray, "nodes", list)

    def train_stage(cfg, name, model, known, videos, run, say):
        trained.append((name, run, model.attention, cfg.losses.lambda_f, set(known)))
        folder = save_model(tmp_path / "made", model, InpaintingNetwork(model), None, Im2Im(model))
        content = (folder / f"{name}.safetensors").read_bytes()
        return StageResult(name, "0" * 12, content, {}, 12.0, reused=False)

    def score(cfg, folder, data, protocol, methods, *, label, **more):
        evaluated.append((label, load_model(folder).config.attention, methods))
        scores = [
            SequenceScore(s, f"{label}: {m}", 4, 4, 0.2, "d", 20.0, 0.9, 15.0, 1.0, 2.0)
            for s in "ab" for m in methods
        ]  # fmt: skip
        caption = ("Holes.", f"Model: {label}.", f"Methods: {label}")
        return Evaluation("By protocol", caption, tuple(scores)), {"a": tmp_path}

    monkeypatch.setattr(module, "train_stage", train_stage)
    monkeypatch.setattr(module, "evaluate_protocol", score)
    tables = ablate(cfg, "DAVIS", [3, 4], pictures=tmp_path, run=NoRun(), say=lambda text: None)

    assert trained[0][:2] == ("im2im", "im2im") and len(trained) == 6
    assert all(known == {"im2im"} for *_, known in trained[1:]), "one teacher for all"
    assert [attention for _, _, attention, _, _ in trained[1:]] == [
        "full", "none", "hole-region", "inter-frame", "full",
    ]  # fmt: skip
    assert [weight for *_, weight, _ in trained[1:]] == [0.5] * 4 + [0.0]
    assert [(label, attention) for label, attention, _ in evaluated] == [
        ("full", "full"),
        ("without the CSSTA layer", "none"),
        ("without inter-frame attention", "hole-region"),
        ("without hole-region attention", "inter-frame"),
        ("without FeatureLoss", "full"),
    ]
    assert {f"references-{count}" for count in (0, 2, 6, "all")} < set(evaluated[0][2])

    table, pictures = tables[3]
    assert table.methods[0] == "full: stage1" and len(table.methods) == 6 + 3
    assert list(pictures)[:2] == ["full; a", "without the CSSTA layer; a"]
    caption = " ".join(table.caption)
    assert "equal budget" in caption and "model.attention=none" in caption
    assert table.caption.count("Holes.") == 1 and caption.count("Methods:") == 1
    assert caption.count("Model: ") == 4
    assert tables[4][0].methods == ("full: network", "without FeatureLoss: network")
    assert "| without FeatureLoss | 25.07 / 0.841 |" in tables[4][0].markdown()
    card = (tmp_path / "runs/cssta/ablation/without-featureloss/README.md").read_text()
    assert "lambda_F 0," in card and "**A short run**" in card and "inpainter 12 s" in card


def test_what_is_missing_is_told_before_training(cfg: JobConfig, tmp_path: Path):
    started = cfg.model_copy(update={"model": cfg.model.model_copy(update={"init": "default"})})
    with pytest.raises(ConfigError, match=r"model\.init"):
        ablate(started, "DAVIS", [3], pictures=tmp_path, run=NoRun())
    with pytest.raises(ConfigError, match=r"evaluate\.videos"):
        ablate(cfg, None, [3], pictures=tmp_path, run=NoRun())
    assert FULL.of(started) is started
