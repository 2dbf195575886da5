"""A trial trains for real, repeats exactly, and depends on nothing but its loss weights."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors

from cssta.training import Settings
from pipelines import clip_loading, retries, trial
from pipelines.config import InpainterStageConfig, JobConfig
from pipelines.failures import TooManyFailuresError
from pipelines.footage import find_footage
from pipelines.initial_weights import initial_weights
from pipelines.manifest import Manifest, VideoRow
from pipelines.registry import RegistryError, register
from pipelines.storage import StorageError
from pipelines.tracking import JobRun
from pipelines.trial import TrialError, prepare_trials, trial_objective, trial_score
from pipelines.trial_reports import PrunedError
from pipelines.tune import search

DATA = {"height": 32, "width": 32, "references": 2}


def make_config(videos: Path, storage: Path, steps: int = 3, **sections) -> JobConfig:
    stage = {"learning_rate": 2e-3}
    return JobConfig.parse(
        {
            "data": {"videos": str(videos), **DATA},
            "model": {"size": "tiny"},
            "stages": {"im2im": stage, "inpainter": stage},
            "cluster": {"storage": str(storage), "use_gpu": False},
            "tune": {"steps": steps, "trials": 2, "parallel": 2},
            **sections,
        }
    )


def prepare(cfg: JobConfig, manifest: Manifest) -> trial.TrialStart:
    config, weights, _ = initial_weights(cfg, None)
    return prepare_trials(cfg, manifest, config, weights)


@pytest.fixture
def manifest(video_folder: Path) -> Manifest:
    from cssta.video import probe

    infos = [probe(path) for path in sorted(video_folder.glob("*.mp4"))]
    return Manifest(tuple(VideoRow(str(i.path), i.frames, i.height, i.width, i.fps) for i in infos))


def test_scores_repeat_and_depend_on_the_weights(video_folder, manifest, tmp_path: Path):
    cfg = make_config(video_folder, tmp_path)
    training, rows, held_out, scored = trial.plan_trials(cfg, manifest)
    assert not {row.uri for row in rows} & {row.uri for row in scored}
    assert not set(training.videos) & set(held_out.videos), "scored on what it was trained on"
    start = prepare(cfg, manifest)
    assert start.training == rows and start.videos == training.videos
    score = trial_score(start, {"delta": 100.0}, cfg)
    assert math.isfinite(score)
    assert trial_score(start, {"delta": 100.0}, cfg) == score
    assert trial_score(start, {"delta": 1.0}, cfg) != score


def test_scores_on_the_way_are_those_of_shorter_trials(video_folder, manifest, tmp_path: Path):
    cfg = make_config(video_folder, tmp_path, steps=4)
    start = prepare(cfg, manifest)
    reports = []
    last = trial_score(start, {}, cfg, lambda step, score: reports.append((step, score)))
    assert [step for step, _ in reports] == [1, 2, 3]
    shorter = make_config(video_folder, tmp_path, steps=2)
    assert trial_score(start, {}, shorter) == dict(reports)[2] != last


def test_a_trials_score_may_be_of_several_trainings(video_folder, manifest, tmp_path: Path):
    tune = {"steps": 2, "seeds": 2, "score_every": 1}
    cfg = make_config(video_folder, tmp_path, tune=tune)
    start = prepare(cfg, manifest)
    assert len(start.training) == 4, "clips of its own for each"
    reports = {}
    score = trial_score(start, {}, cfg, reports.__setitem__)
    alone = trial_score(start, {}, make_config(video_folder, tmp_path, steps=2))
    second = 2 * score - alone
    assert list(reports) == [1, 2, 3]
    assert reports[2] == alone != pytest.approx(second)
    own = make_config(video_folder, tmp_path, steps=2, seed=1)
    assert trial_score(replace(start, training=start.training[2:]), {}, own) == pytest.approx(
        second
    )


def test_a_trial_that_is_told_to_ends(video_folder, manifest, tmp_path: Path):
    def report(step: int, score: float) -> None:
        raise PrunedError("enough")

    cfg = make_config(video_folder, tmp_path, steps=4)
    with pytest.raises(PrunedError):
        trial_score(prepare(cfg, manifest), {}, cfg, report)


def test_trials_train_with_the_stages_own_settings():
    stage = InpainterStageConfig(learning_rate=2e-3, targets=1, reference_dropout=0.5, ema=0.9)
    expected = Settings(learning_rate=2e-3, targets=1, reference_dropout=0.5, ema=0.0)
    assert trial._settings(stage) == expected


@pytest.mark.parametrize(
    ("gpus", "cluster", "mixed", "told"),
    [
        (0, {"use_gpu": "auto"}, None, "float32 on CPUs"),
        (0, {"use_gpu": True}, True, "bfloat16 on CPUs"),
        (2, {"use_gpu": "auto"}, None, "bfloat16 on a GPU"),
        (2, {"use_gpu": "auto"}, False, "float32 on a GPU"),
        (2, {"use_gpu": False}, None, "float32 on CPUs"),
    ],
)
def test_what_trials_compute_with_is_told(monkeypatch, tmp_path, gpus, cluster, mixed, told):
    monkeypatch.setattr(trial.ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": float(gpus)})
    stages = {"inpainter": {"mixed_precision": mixed}}
    cfg = make_config(tmp_path, tmp_path, stages=stages, cluster=cluster)
    assert trial.arithmetic(cfg) == told


def test_more_training_scores_higher(video_folder, manifest, tmp_path: Path):
    scores = []
    for steps in (1, 120):  # (after 40, the discriminator still throws it about)
        cfg = make_config(video_folder, tmp_path, steps=steps)
        scores.append(trial_score(prepare(cfg, manifest), {}, cfg))
    assert scores[1] > scores[0] + 1


def test_starts_from_the_configured_model(video_folder, manifest, tiny_model, tmp_path: Path):
    cfg = make_config(video_folder, tmp_path, model={"size": "base", "init": str(tiny_model)})
    start = prepare(cfg, manifest)
    assert start.config.width == 12  # the folder's own size, not the configured one
    assert math.isfinite(trial_score(start, {}, cfg))


def test_clips_that_vanish_are_an_error_with_a_cause(video_folder, tmp_path: Path, manifest):
    copy = tmp_path / "videos"
    shutil.copytree(video_folder, copy)
    cfg = make_config(copy, tmp_path)
    rows = tuple(
        VideoRow(str(copy / Path(v.uri).name), v.frames, v.height, v.width, v.fps)
        for v in manifest.videos
    )
    start = prepare(cfg, Manifest(rows))
    shutil.rmtree(copy)
    with pytest.raises(TrialError, match=r"clip 0: neither .*\.mp4 nor any video in its place"):
        trial_score(start, {}, cfg)


class Flaky:
    """`frame_reader` whose every `period`-th opening fails as a network does."""

    def __init__(self, monkeypatch, period: int, message: str = "connection reset") -> None:
        self.opened, self._period, self._message = 0, period, message
        self._open = clip_loading.frame_reader
        monkeypatch.setattr(clip_loading, "frame_reader", self)
        monkeypatch.setattr(retries, "FIRST_WAIT", 0.0)

    def __call__(self, uri, cfg):
        self.opened += 1
        if self.opened % self._period == 0:
            raise StorageError(f"{uri}: {self._message}", transient=True)
        return self._open(uri, cfg)


def test_what_passes_changes_no_score(video_folder, manifest, tmp_path: Path, monkeypatch):
    """A connection that is refused now and then, once trials train and score."""
    cfg = make_config(video_folder, tmp_path)
    expected = trial_score(prepare(cfg, manifest), {}, cfg)
    flaky = Flaky(monkeypatch, period=2)
    assert trial_score(prepare(cfg, manifest), {}, cfg) == expected
    assert flaky.opened > 2


def test_a_trial_that_storage_gives_other_clips_fails(
    video_folder, manifest, tmp_path: Path, monkeypatch
):
    cfg = make_config(video_folder, tmp_path)
    start = prepare(cfg, manifest)
    Flaky(monkeypatch, period=1)
    with pytest.raises(TrialError, match=r"\.mp4: connection reset; every trial needs the same"):
        trial_score(start, {}, cfg)
    with pytest.raises(TrialError, match="connection reset"):
        prepare(cfg, manifest)


def test_scoring_reads_no_videos(video_folder, manifest, tmp_path: Path, monkeypatch):
    cfg = make_config(video_folder, tmp_path)
    start = prepare(cfg, manifest)
    (first, *_) = start.scored
    assert len(start.scored) == cfg.tune.clips
    assert first["frames"].shape == (3, 32, 32, 3) and first["frames"].dtype == "uint8"
    flaky = Flaky(monkeypatch, period=10**9)
    trial_score(start, {}, cfg)
    assert flaky.opened == cfg.tune.steps  # (a clip each)


def test_a_frame_completed_exactly_counts_the_cap():
    class Exact:
        def complete(self, batch):
            truth = batch["frames"][0]
            result = truth.copy()
            result[0, 0, 0] ^= 3  # one pixel of the hole in the first frame, a little
            return result, truth

    clip = {"frames": np.full((3, 8, 8, 3), 100, np.uint8), "masks": np.zeros((3, 8, 8), bool)}
    clip["masks"][:2, :2, :2] = True
    rough = 10 * math.log10(255**2 / (9 / 4))
    assert trial.hole_psnr(Exact(), [clip]) == pytest.approx((rough + 100) / 2)
    clip["masks"][:] = False
    assert math.isnan(trial.hole_psnr(Exact(), [clip]))


@pytest.mark.cluster
def test_damaged_videos_are_counted_and_end_a_search(ray_cluster, video_folder, tmp_path: Path):
    """Files that were whole when the search began."""
    videos = Path(shutil.copytree(video_folder, tmp_path / "videos"))
    cfg = make_config(videos, tmp_path, data={**DATA, "videos": str(videos), "max_failures": 1})
    found = find_footage(cfg.data)
    objective = trial_objective(cfg, found)
    _, rows, *_ = trial.plan_trials(cfg, found)
    first, second = (Path(row.uri) for row in rows[:2])
    first.write_text("no video")
    score = objective({}, cfg, lambda step, score: None)
    assert objective({}, cfg, lambda step, score: None) == score
    assert [Path(bad.uri) for bad in objective.failures.list()] == [first]
    second.write_text("no video")
    with pytest.raises(TooManyFailuresError, match=r"2 files failed, and data\.max_failures"):
        search(cfg, objective)


@pytest.mark.cluster
def test_a_process_that_dies_while_trials_are_prepared_is_told_in_words(
    ray_cluster, video_folder, manifest, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(trial, "prepare_trials", lambda *_: os.abort())
    monkeypatch.setattr(trial, "trial_options", lambda cfg: {"num_cpus": 0, "max_retries": 0})
    with pytest.raises(TrialError, match=r"trials cannot be prepared: .*died"):
        trial_objective(make_config(video_folder, tmp_path), manifest)


@pytest.mark.cluster
def test_a_search_over_real_trials(ray_cluster, video_folder, tmp_path: Path):
    cfg = make_config(video_folder, tmp_path)
    summary = search(cfg, trial_objective(cfg))
    assert summary.finished == 2, [row.message for row in summary.rows]
    assert set(summary.best_params) == {"lambda_r", "lambda_f", "lambda_g", "delta"}


@pytest.mark.cluster
def test_trials_start_from_a_registered_model(
    ray_cluster, video_folder, tiny_model, tmp_path: Path, mlflow_uri, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = {"init": "models:/cssta@champion"}
    cfg = make_config(video_folder, tmp_path, 1, model=model, tracking={"uri": mlflow_uri})
    with pytest.raises(RegistryError, match="models:/cssta@champion"):
        trial_objective(cfg)
    with JobRun.start(cfg) as run:
        register(
            tiny_model, name="cssta", alias="champion", run_id=run.run_id, tracking_uri=mlflow_uri
        )
    objective = trial_objective(cfg)
    registered = load_tensors((tiny_model / "inpainter.safetensors").read_bytes())
    given = load_tensors(ray_cluster.get(objective.start).inpainter)
    assert given.keys() == registered.keys()
    assert all((given[key] == registered[key]).all() for key in given)
