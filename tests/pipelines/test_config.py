"""Configurations are read as written or refused with a message that says what to write instead."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml

from cssta.quality import BROKEN
from pipelines.config import ConfigError, JobConfig
from pipelines.inference_config import InferenceConfig

CONFIGS = Path(__file__).resolve().parents[2] / "jobs" / "configs"


@pytest.fixture
def config_file(tmp_path: Path):
    def write(content: dict | str) -> Path:
        path = tmp_path / "job.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def test_paper_settings_are_the_papers():
    cfg = JobConfig.load(CONFIGS / "paper.yaml")
    data, losses = cfg.data, cfg.losses
    assert (data.height, data.width, data.references, data.flip) == (256, 256, 6, True)
    assert (losses.lambda_r, losses.lambda_f, losses.lambda_g, losses.delta) == (1, 0.5, 1, 100)
    for stage in (cfg.stages.im2im, cfg.stages.inpainter, cfg.stages.temporal):
        assert (stage.batch_size, stage.learning_rate) == (1, 1e-4)
        assert (stage.decay, stage.decay_every_epochs) == (0.9, 10)
    assert (cfg.stages.inpainter.targets, cfg.stages.inpainter.reference_dropout) == (1, 0)
    assert (cfg.cluster.workers, cfg.cluster.use_gpu, cfg.model.init) == (4, True, None)


def test_demo_starts_from_the_default_weights_and_is_small():
    cfg = JobConfig.load(CONFIGS / "demo.yaml")
    assert cfg.model.init == "default"
    assert cfg.stages.inpainter.steps <= 200 and cfg.cluster.workers == 1


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("data.hieght=64", ["data.hieght", "unknown key", "height", "clips_per_epoch"]),
        ("colour=red", ["colour", "unknown key", "stages", "registry"]),
        ("stages.im2im.targets=1", ["stages.im2im.targets", "unknown key", "batch_size"]),
        ("stages.temporal.reference_dropout=0", ["stages.temporal.reference_dropout", "unknown"]),
        ("stages.im2im.stepps=3", ["stages.im2im.stepps", "unknown key", "learning_rate"]),
        ("data.height=tall", ["data.height", '"tall"', "integer"]),
        ("data.height=0", ["data.height", "0", "16"]),
        ("data.height=100", ["data.height", "multiple of 8"]),
        ("data.flip=1", ["data.flip", "boolean"]),
        ("seed=1.5", ["seed", "1.5", "integer"]),
        ("stages.im2im.steps=true", ["stages.im2im.steps", "integer"]),
        ("stages.im2im.learning_rate=.nan", ["stages.im2im.learning_rate", "finite"]),
        ("data.masks.kind=objets", ["data.masks.kind", '"objets"', "freeform", "mixed"]),
        ("data.masks.kind=objects", ["data.masks", "needs objects"]),
        ("data.masks.ratio=[0.4, 0.1]", ["data.masks.ratio", "[low, high]"]),
        ("data.masks.ratio=[0.4, 1.1]", ["data.masks.ratio.1", "less than 1"]),
        ("data.masks.ratio=0.4", ["data.masks.ratio", "array"]),
        ("inference.output=null", ["inference.videos is given without inference.output"]),
        ("inference.videos=null", ["inference.output is given without inference.videos"]),
        ("cluster.use_gpu=maybe", ["cluster.use_gpu", '"maybe"', "auto"]),
        ("model.size=huge", ["model.size", "tiny", "large"]),
        ("tune.ranges.delta=[5, 1]", ["tune.ranges.delta", "[low, high]"]),
        ("tune.ranges.gamma=[1, 5]", ["tune.ranges.gamma", "unknown key", "lambda_r"]),
        ("data=3", ["data", "section", "videos"]),
        ("data.videos=null", ["data.videos", "string"]),
        ("registry.alias=latest", ["registry.alias"]),
        ("stages", ["'stages'", "key=value"]),
        ("seed.deep=1", ["seed", "no further keys"]),
        ("seed=[1", ["seed=[1", "YAML"]),
    ],
)
def test_what_is_wrong_is_named(override: str, parts: list[str]):
    path = CONFIGS / "demo.yaml"
    with pytest.raises(ConfigError) as caught:
        JobConfig.load(path, ["seed=3", override])
    message = str(caught.value)
    assert str(path) in message
    for part in parts:
        assert part in message
    assert "\n" not in message


def test_all_problems_are_told_at_once(config_file):
    with pytest.raises(ConfigError, match=r"data.videos: is missing.*losses.lambdar: unknown"):
        JobConfig.load(config_file({"data": {}, "losses": {"lambdar": 1}}))


def test_overrides_are_read_as_yaml(config_file):
    path = config_file({"data": {"videos": "/videos"}})
    cfg = JobConfig.load(
        path,
        [
            "stages.im2im.learning_rate=1e-3",
            "data.masks.ratio=[0.1, 0.2]",
            "cluster.use_gpu=false",
            "losses.delta=50",
            "tracking.uri=null",
            "data.masks.kind=mixed",
            "data.masks.objects=s3://davis/Annotations?region=x=y",
        ],
    )
    assert cfg.stages.im2im.learning_rate == 1e-3
    assert cfg.data.masks.ratio == (0.1, 0.2)
    assert cfg.cluster.use_gpu is False
    assert cfg.losses.delta == 50.0
    assert cfg.data.masks.objects == "s3://davis/Annotations?region=x=y"


def test_local_locations_become_absolute_and_uris_stay(config_file, monkeypatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    inference = "inference: {videos: films, output: s3://out/put}"
    cfg = JobConfig.load(config_file(f"data: {{videos: films}}\n{inference}"))
    assert cfg.data.videos == str(tmp_path / "films")
    assert cfg.cluster.storage == str(tmp_path / "runs")
    assert cfg.inference.output == "s3://out/put"


def test_survives_pickling_and_its_own_dictionary():
    cfg = JobConfig.load(CONFIGS / "demo.yaml", ["tune.ranges.lambda_r=null"])
    assert pickle.loads(pickle.dumps(cfg)) == cfg
    assert JobConfig.parse(cfg.to_dict()) == cfg
    assert cfg.flat()["data.masks.kind"] == "freeform"
    assert cfg.flat()["tune.ranges.lambda_r"] is None


def test_inference_takes_a_manifest_or_a_folder_and_options_of_a_video():
    content = {"data": {"videos": "v"}, "inference": {"manifest": "list.csv", "output": "out"}}
    cfg = JobConfig.parse(content)
    assert cfg.inference.manifest.endswith("/list.csv")
    content["inference"]["options"] = {"dilate": 4, "boxes": "1,2,3,4@0-2"}
    content["inference"]["limits"] = {"seam": 1.8}
    cfg = JobConfig.parse(content)
    assert cfg.inference.options.dilate == 4 and cfg.inference.limits.seam == 1.8
    assert JobConfig.parse(cfg.to_dict()) == cfg


@pytest.mark.parametrize(
    ("inference", "words"),
    [
        ({"manifest": "list.csv"}, "without inference.output"),
        ({"output": "out"}, "without inference.videos"),
        ({"actors": 2, "min_actors": 3}, "min_actors 3 is above actors 2"),
        (
            {"limits": {"self_test": 10.0}, "self_test_frames": 0},
            "limits.self_test is given with self_test_frames 0",
        ),
        ({"options": {"boxes": "1,2"}}, "boxes.*is not a box"),
        ({"options": {"dilate": -1}}, "dilate"),
        ({"limits": {"sharpness": 1.0}}, "sharpness.*unknown key.*seam"),
    ],
)
def test_what_is_wrong_with_a_batch_is_named(inference: dict, words: str):
    with pytest.raises(ConfigError, match=words):
        JobConfig.parse({"data": {"videos": "v"}, "inference": inference})


def test_what_is_almost_certainly_broken_is_held_back_by_default():
    assert InferenceConfig().limits.given() == BROKEN
