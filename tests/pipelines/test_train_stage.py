"""A stage on the cluster: found again when finished, gone on with when cut off, logged, named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pyarrow.fs
import pytest
from mlflow import MlflowClient
from safetensors.numpy import load as load_tensors

from cssta.config import ModelConfig
from pipelines import train_stage as module
from pipelines.config import JobConfig
from pipelines.manifest import Manifest, Rejected, build_manifest
from pipelines.storage import list_videos
from pipelines.tracking import JobRun
from pipelines.train_stage import StageError, StageLog, Videos, stage_digest, train_stage

REPOSITORY = Path(__file__).resolve().parents[2]
TINY = ModelConfig.preset("tiny")
STEPS = 80
SAID = "said by the stage:"


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
    }
    assert len({digest(), *other.values()}) == len(other) + 1
    same = (
        but("inference", output="/elsewhere"),
        but("evaluate", clips=3),
        but("tracking", experiment="other"),
        but("registry", alias="other"),
        but("cluster", storage="/elsewhere"),
    )
    assert {digest(one) for one in same} == {digest()}
    rejected = Manifest(manifest.videos, (Rejected("x", "unreadable", "x"),))
    assert digest(videos=rejected) == digest()


def test_reports_become_metrics_and_one_line(tmp_path):
    logged, said = [], []
    run = SimpleNamespace(log_step=lambda metrics, step: logged.append((metrics, step)))
    log = StageLog(run, "inpainter", 20, SimpleNamespace(say=said.append))
    log.after_report(None, [{"step": 10, "loss": 1.23456, "score_real": 0.1}], None)
    assert logged == [({"loss": 1.23456, "score_real": 0.1}, 10)]
    assert said == ["  inpainter 10/20  loss 1.23"]


def test_what_several_workers_report_is_averaged(tmp_path):
    logged = []
    run = SimpleNamespace(log_step=lambda metrics, step: logged.append((metrics, step)))
    log = StageLog(run, "inpainter", 20, SimpleNamespace(say=lambda line: None))
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


def test_a_run_without_checkpoints_starts_anew(tmp_path):
    assert module.kept_step(pyarrow.fs.LocalFileSystem(), str(tmp_path / "none")) == 0
    assert module.kept_step(pyarrow.fs.LocalFileSystem(), str(tmp_path)) == 0


def find_videos(cfg: JobConfig) -> Videos:
    return Videos(build_manifest(list_videos(cfg.data.videos)), Manifest(()))


def kill_worker() -> int:
    """End this cluster's training worker as the kernel does when memory is out; its process id."""
    import psutil  # (Ray ships its own, found once Ray is imported)

    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # (some end while we look)
            if "RayTrainWorker" in " ".join(process.cmdline()):
                process.kill()
                return process.pid
    raise AssertionError("no training worker is running")


@pytest.mark.cluster
def test_a_stage_goes_on_after_its_driver_and_then_its_worker_were_killed(
    ray_cluster, video_folder, tmp_path, mlflow_uri, monkeypatch
):
    cfg = make_config(video_folder, tmp_path / "runs", mlflow_uri)
    job_run = JobRun.start(cfg)
    config = tmp_path / "job.json"
    config.write_text(json.dumps(cfg.to_dict()))
    program = (  # the same as below, in a process that can be killed
        "import json, sys, ray\n"
        "from cssta.config import ModelConfig\n"
        "from pipelines.config import JobConfig\n"
        "from pipelines.manifest import Manifest, build_manifest\n"
        "from pipelines.storage import list_videos\n"
        "from pipelines.tracking import StageRun\n"
        "from pipelines.train_stage import Videos, train_stage\n"
        "cfg = JobConfig.parse(json.load(open(sys.argv[1])))\n"
        "ray.init(log_to_driver=False)\n"
        "videos = Videos(build_manifest(list_videos(cfg.data.videos)), Manifest(()))\n"
        "run = StageRun(cfg.tracking.uri, sys.argv[2], '0')\n"
        f"say = lambda line: print('\\n{SAID}' + line, flush=True)\n"
        "train_stage(cfg, 'im2im', ModelConfig.preset('tiny'), {}, videos, run, say)\n"
    )
    environment = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "RAY_ADDRESS": ray_cluster.get_runtime_context().gcs_address,
    }
    with open(tmp_path / "driver.log", "w+") as errors, subprocess.Popen(
        [sys.executable, "-c", program, str(config), job_run.stage("im2im").run_id],
        env=environment, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=errors,
    ) as driver:  # fmt: skip
        said = []
        for line in driver.stdout:
            if not line.startswith(SAID):  # libraries print warnings of their own
                continue
            said.append(step_of(line.removeprefix(SAID)))
            if said[-1] >= 15:
                driver.kill()
                break
        assert driver.wait(60) == -signal.SIGKILL, (tmp_path / "driver.log").read_text()
    assert said[0] == 5

    lines: list[str] = []
    killed: list[int] = []

    def say(line: str) -> None:
        lines.append(line)
        if step_of(line) >= killed_at and not killed:
            killed.append(kill_worker())

    wait_until_released(ray_cluster)
    killed_at = said[-1] + 15
    planned = tmp_path / "planned.txt"

    def stage_streams(cfg, task, videos, done):
        def told() -> int:  # (in another process, whenever workers start)
            step = done()
            with open(planned, "a") as file:
                file.write(f"{step}\n")
            return step

        return plain_streams(cfg, task, videos, told)

    plain_streams = module.stage_streams
    monkeypatch.setattr(module, "stage_streams", stage_streams)
    run = job_run.stage("im2im")
    result = train_stage(cfg, "im2im", TINY, {}, find_videos(cfg), run, say)
    steps = [step_of(line) for line in lines]
    assert steps[0] > 5, "started from nothing instead of the checkpoint"
    assert steps[-1] == STEPS and not result.reused
    # (the first report comes five steps after the checkpoint)
    first, second = map(int, planned.read_text().split())
    assert first == steps[0] - 5 and second >= killed_at - 5, "what was trained on comes again"
    assert killed
    # The restarted worker repeats no more than what was not yet kept.
    assert len(steps) <= len(set(steps)) + 1
    history = MlflowClient(mlflow_uri).get_metric_history(run.run_id, "loss")
    assert sorted({point.step for point in history}) == sorted(set(steps))
    assert load_tensors(result.weights).keys()

    again = train_stage(cfg, "im2im", TINY, {}, find_videos(cfg), job_run.stage("im2im"), say)
    assert again.reused and again.weights == result.weights
    assert (again.digest, again.metrics) == (result.digest, result.metrics)


def step_of(line: str) -> int:
    """Of "  im2im 15/60  loss ..."."""
    return int(line.split()[1].split("/")[0])


def wait_until_released(ray_cluster, seconds: float = 60) -> None:
    """Until the cluster has noticed that the driver is gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if ray_cluster.available_resources().get("CPU", 0) == 4:
            return
        time.sleep(0.2)
    raise AssertionError(f"still taken: {ray_cluster.available_resources()}")


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
