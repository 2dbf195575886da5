"""A stage on the cluster: logged, named, and its failures told (cut off: `test_train_kills`)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load as load_tensors

from cssta.config import ModelConfig
from pipelines import train_stage as module
from pipelines.checkpoints import Checkpoints
from pipelines.config import JobConfig
from pipelines.data_config import MasksConfig
from pipelines.manifest import Manifest, Rejected, probe_video
from pipelines.stage_clips import with_pools
from pipelines.tracking import JobRun
from pipelines.train_loop import PICTURE
from pipelines.train_stage import StageError, StageLog, Videos, stage_digest, train_stage
from tests.pipelines.kill_train import NoRun
from tests.pipelines.plain_training import train_plain

TINY = ModelConfig.preset("tiny")
STEPS = 80


def make_config(videos: Path, storage: Path, tracking: str | None = None) -> JobConfig:
    stage = {"steps": STEPS, "log_every": 5, "checkpoint_every": 5, "validate_every": STEPS}
    content = {
        "name": "cut-off",
        "tracking": {"uri": tracking},
        "data": {
            "videos": str(videos),
            "height": 32,
            "width": 32,
            "references": 1,
            "clips_per_epoch": 16,
        },
        "model": {"size": "tiny"},
        "stages": {"im2im": stage},
        "cluster": {"storage": str(storage), "use_gpu": False},
    }
    return JobConfig.parse(content)


@pytest.fixture(scope="module")
def manifest(video_folder: Path) -> Manifest:
    rows = [
        SimpleNamespace(uri=str(video_folder / f"{name}.mp4"), frames=12, height=48, width=64)
        for name in "abc"
    ]
    return Manifest(tuple(rows))


def test_a_stage_is_named_by_what_decides_its_outcome(video_folder, tmp_path, manifest):
    cfg = make_config(video_folder, tmp_path)

    def digest(cfg=cfg, name="im2im", model=TINY, weights=None, videos=manifest) -> str:
        return stage_digest(cfg, name, model, weights or {}, videos)

    def pooled(name: str = "im2im") -> str:
        """With pictures and mask sequences, as they are found now."""
        masks = MasksConfig(kind="mixed", objects=str(tmp_path / "masks"))
        data = {"images": str(tmp_path / "places"), "masks": masks}
        both = but("data", **data)
        pools = with_pools(both.data, name, Videos(manifest, Manifest(()))).pools
        return stage_digest(both, name, TINY, {}, manifest, pools)

    def put(name: str, size: int) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)

    def but(section: str, **update) -> JobConfig:
        changed = getattr(cfg, section).model_copy(update=update)
        return cfg.model_copy(update={section: changed})

    longer = cfg.stages.model_copy(
        update={"im2im": cfg.stages.im2im.model_copy(update={"steps": 401})}
    )
    other = {
        "steps": digest(cfg.model_copy(update={"stages": longer})),
        "losses": digest(but("losses", lambda_g=0.5)),
        "data": digest(but("data", max_stride=2)),
        "seed": digest(cfg.model_copy(update={"seed": 1})),
        "workers": digest(but("cluster", workers=2)),
        "name": digest(name="inpainter"),
        "model": digest(model=ModelConfig.preset("small")),
        "weights": digest(weights={"im2im": b"1"}),
        "other weights": digest(weights={"im2im": b"2"}),
        "videos": digest(videos=Manifest(manifest.videos[:2])),
        "frames": digest(videos=Manifest(manifest.videos, digest="prepared")),
    }
    assert len({digest(), *other.values()}) == len(other) + 1
    same = (
        but("data", prepared="/elsewhere", max_failures=3),
        but("inference", output="/elsewhere"),
        but("evaluate", clips=3),
        but("tracking", experiment="other"),
        but("registry", alias="other"),
        but("cluster", storage="/elsewhere"),
    )
    assert {digest(one) for one in same} == {digest()}
    for key in ("log_every", "checkpoint_every", "validate_every"):
        often = cfg.stages.im2im.model_copy(update={key: 7})
        assert digest(but("stages", im2im=often)) == digest()
    put("places/a/1.jpg", 3)
    put("masks/cat/0.png", 3)
    found = {name: {pooled(name)} for name in ("im2im", "inpainter")}
    put("masks/dog/0.png", 3)  # another sequence to draw from: other clips
    for name, digests in found.items():
        digests.add(pooled(name))
        assert len(digests) == 2
    for number in range(2, 7):
        put(f"places/a/{number}.jpg", 3)
    assert pooled() not in found["im2im"] and pooled("inpainter") in found["inpainter"]
    found["im2im"].add(pooled())
    put("places/a/1.jpg", 4)  # replaced
    assert pooled() not in found["im2im"] and pooled("inpainter") in found["inpainter"]
    rejected = Manifest(manifest.videos, (Rejected("x", "unreadable", "x"),))
    assert digest(videos=rejected) == digest()


def make_log(logged: list, said: list, checkpoints: Checkpoints | None = None) -> StageLog:
    run = SimpleNamespace(
        log_step=lambda metrics, step: logged.append((metrics, step)),
        log_file=lambda path, folder: logged.append((Path(path).read_bytes(), folder)),
    )
    stage = SimpleNamespace(steps=20)
    task = SimpleNamespace(name="inpainter", stage=stage, checkpoints=checkpoints)
    return StageLog(run, task, SimpleNamespace(say=said.append))


def test_reports_become_metrics_and_one_line(tmp_path):
    logged, said = [], []
    log = make_log(logged, said)
    log.after_report(None, [{"step": 10, "loss": 1.23456, "score_real": 0.1}], None)
    assert logged == [({"loss": 1.23456, "score_real": 0.1}, 10)]
    assert said == ["  inpainter 10/20  loss 1.23"]


def test_what_several_workers_report_is_averaged(tmp_path):
    logged = []
    log = make_log(logged, [], Checkpoints(str(tmp_path / "none")))
    reports = [
        {"step": 10, "loss": 1.0, "validation_psnr": 20.0, "grown": 4.0},
        {"step": 10, "loss": 3.0},
        {"step": 10, "loss": 5.0, "grown": 2.0},
    ]
    log.after_report(None, reports, None)
    assert logged == [({"loss": 3.0, "validation_psnr": 20.0, "grown": 3.0}, 10)]


def test_a_checkpoint_without_weights_is_an_error(tmp_path):
    (tmp_path / "network.safetensors").write_bytes(b"plain")
    assert module.exported_weights(str(tmp_path)) == b"plain"
    (tmp_path / "average.safetensors").write_bytes(b"average")
    assert module.exported_weights(str(tmp_path)) == b"average"
    with pytest.raises(StageError, match=r"network\.safetensors"):
        module.exported_weights(str(tmp_path / "none"))


def test_a_validations_picture_is_logged(tmp_path, caplog):
    logged = []
    checkpoints = Checkpoints(str(tmp_path / "run"))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / PICTURE).write_bytes(b"a picture")
    checkpoints.save(tmp_path / "s", 10, {})
    log = make_log(logged, [], checkpoints)
    log.after_report(None, [{"step": 10, "validation_psnr": 20.0}], None)
    assert logged[1:] == [(b"a picture", "pictures/step-000010")]
    log.after_report(None, [{"step": 15, "validation_psnr": 20.0}], None)
    assert len(logged) == 3 and "no picture of step 15" in caplog.text


@pytest.mark.cluster
def test_two_workers_train_as_one_with_all_their_clips(ray_cluster, video_folder, tmp_path):
    content = make_config(video_folder, tmp_path / "runs").to_dict()
    how = {"steps": 3, "learning_rate": 1e-3, "targets": 1, "reference_dropout": 0.5}
    content["stages"]["inpainter"] = how | {"ema": 0.9}
    content["cluster"] |= {"workers": 2}
    cfg = JobConfig.parse(content)
    rows = tuple(probe_video(str(path)) for path in sorted(video_folder.glob("*.mp4")))
    videos = Videos(Manifest(rows), Manifest(()))
    result = train_stage(cfg, "inpainter", TINY, {}, videos, NoRun(), say=lambda line: None)
    alone = train_plain(cfg, "inpainter", TINY, videos.training).exported.state_dict()
    together = load_tensors(result.weights)
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        # (Adam divides by the gradients' size: where that is nearly 0, rounding counts.)
        torch.testing.assert_close(together[key], value, rtol=1e-3, atol=2e-4, msg=key)


@pytest.mark.cluster
def test_training_that_fails_for_good_names_the_stage_and_the_cause(
    ray_cluster, video_folder, tmp_path, monkeypatch, manifest, mlflow_uri
):
    class Trainer:
        def __init__(self, *_, **__):
            pass

        def fit(self):  # as Ray Train puts it
            raise RuntimeError(
                "Training failed due to worker errors:\n[Rank 0 Error Snippet]:\n"
                "Traceback (most recent call last):\n  File ...\nRuntimeError: no clip at all\n"
            )

    monkeypatch.setattr(module, "TorchTrainer", Trainer)
    cfg = make_config(video_folder, tmp_path / "runs", mlflow_uri)
    run = JobRun.start(cfg).stage("im2im")
    with pytest.raises(StageError) as caught:
        train_stage(cfg, "im2im", TINY, {}, Videos(manifest, Manifest(())), run)
    assert str(caught.value) == "stage im2im failed: RuntimeError: no clip at all"
    assert "worker errors" in str(caught.value.__cause__)


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ("step 5: 21 steps in a row were bad", "stage im2im was given up at step 5: 21 steps"),
        (None, "stage im2im left no checkpoint .* a folder that all nodes share"),
    ],
)
def test_training_that_came_to_nothing_is_told(
    ray_cluster, video_folder, tmp_path, monkeypatch, manifest, mlflow_uri, returned, told
):
    class Trainer:
        def __init__(self, *_, **__):
            pass

        def fit(self):
            return SimpleNamespace(return_value=returned)

    monkeypatch.setattr(module, "TorchTrainer", Trainer)
    cfg = make_config(video_folder, tmp_path / "runs", mlflow_uri)
    run = JobRun.start(cfg).stage("im2im")
    with pytest.raises(StageError, match=told):
        train_stage(cfg, "im2im", TINY, {}, Videos(manifest, Manifest(())), run)
