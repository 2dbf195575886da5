"""The search finds a planted optimum, survives its driver's death, and hides no failed trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import optuna
import pytest
import yaml

from pipelines.config import JobConfig
from pipelines.study import TuneError, best_params, study_storage
from pipelines.tracking import JobRun
from pipelines.tune import search
from pipelines.tune_report import log_study, log_trial
from pipelines.tuned_losses import read_losses

pytestmark = pytest.mark.cluster
REPOSITORY = Path(__file__).resolve().parents[2]


def make_config(tmp_path: Path, **tune) -> JobConfig:
    return JobConfig.parse(
        {
            "data": {"videos": str(tmp_path)},
            "cluster": {"storage": str(tmp_path / "runs"), "cpus_per_worker": 0.5},
            "tune": {"study": "planted", "parallel": 4, **tune},
        }
    )


def trials(cfg: JobConfig) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=cfg.tune.study, storage=study_storage(cfg)).get_trials()


def test_finds_a_planted_optimum(ray_cluster, tmp_path: Path):
    def objective(params, cfg, report):
        import math

        # Best at lambda_r 2 and delta 40; both ranges span two decades or more.
        return -(math.log(params["lambda_r"] / 2) ** 2) - math.log(params["delta"] / 40) ** 2

    cfg = make_config(
        tmp_path,
        trials=40,
        ranges={"lambda_r": [0.1, 10], "delta": [1, 300], "lambda_f": None, "lambda_g": None},
    )
    seen = []
    summary = search(cfg, objective, on_trial=seen.append)

    assert summary.finished == 40 == len(summary.rows) == len(seen)
    assert set(summary.best_params) == {"lambda_r", "delta"}
    assert summary.best_params["lambda_r"] == pytest.approx(2, rel=0.5)
    assert summary.best_params["delta"] == pytest.approx(40, rel=0.5)
    assert summary.best_score == max(row.score for row in summary.rows)
    assert best_params(summary.storage, "planted") == summary.best_params
    # The file fits into a job's configuration as it is.
    losses = yaml.safe_load(Path(summary.best_file).read_text())["losses"]
    again = JobConfig.parse({"data": {"videos": "x"}, "losses": losses})
    assert again.losses.delta == summary.best_params["delta"]


def test_trials_that_fall_behind_are_pruned(ray_cluster, tmp_path: Path, mlflow_uri: str):
    from mlflow import MlflowClient

    def objective(params, cfg, report):
        for step in (10, 20, 30):  # the nearer to 40, the higher, all the way
            report(step, step - abs(params["delta"] - 40))
        return 40 - abs(params["delta"] - 40)

    others = dict.fromkeys(("lambda_r", "lambda_f", "lambda_g"))
    cfg = make_config(tmp_path, trials=24, startup_trials=4, ranges={"delta": [1, 300], **others})
    cfg = JobConfig.parse(cfg.to_dict() | {"tracking": {"uri": mlflow_uri}})
    with JobRun.start(cfg, job="tune") as run:
        summary = search(
            cfg,
            objective,
            on_trial=lambda row: log_trial(run, row),
            on_study=lambda study: log_study(run, study),
        )
    pruned = [row for row in summary.rows if row.pruned_at]
    assert summary.pruned == len(pruned) >= 4 and summary.failed == 0
    assert summary.pruned + summary.finished == 24 == len(summary.rows)
    for row in pruned:  # with the score that it had, and no message: it did not fail
        assert row.pruned_at in (10, 20, 30) and not row.message
        assert row.score == row.pruned_at - abs(row.params["delta"] - 40)
        assert row.history[-1] == (row.pruned_at, row.score)
    assert max(row.score for row in pruned) < summary.best_score
    assert summary.best_params["delta"] == pytest.approx(40, rel=0.25)
    # The configured weights are the first trial: the best is no worse than they are.
    assert min(summary.rows, key=lambda row: row.number).params == {"delta": 100.0}
    # Pruned trials are spent like finished ones.
    assert search(cfg, objective).rows == ()

    client = MlflowClient(mlflow_uri)
    parent = f"tags.`mlflow.parentRunId` = '{run.run_id}'"
    children = {c.info.run_name: c for c in client.search_runs([run.experiment_id], parent)}
    for row in summary.rows:
        child = children[f"trial-{row.number}"]
        assert child.info.status == ("KILLED" if row.pruned_at else "FINISHED")
        assert ("score" in child.data.metrics) == (not row.pruned_at)
        points = client.get_metric_history(child.info.run_id, "intermediate_score")
        assert tuple((point.step, point.value) for point in points) == row.history
    plots = {Path(a.path).name for a in client.list_artifacts(run.run_id, "plots")}
    assert plots >= {"history.png", "importance.png", "intermediate.png"}


def test_without_pruning_every_trial_finishes(ray_cluster, tmp_path: Path):
    def objective(params, cfg, report):
        report(1, params["delta"])
        return params["delta"]

    cfg = make_config(tmp_path, trials=8, startup_trials=1, prune=False)
    assert search(cfg, objective).finished == 8


def test_the_best_is_written_to_a_bucket_too(ray_cluster, tmp_path: Path, s3_bucket, s3_server):
    database = f"sqlite:///{tmp_path}/optuna.db"
    cfg = make_config(tmp_path, trials=2, storage=database, ranges={"delta": [1, 300]})
    data = {"videos": "s3://bucket/in", "s3_endpoint": s3_server}
    cluster = {"storage": f"{s3_bucket}/runs", "cpus_per_worker": 0.5}
    cfg = JobConfig.parse(cfg.to_dict() | {"data": data, "cluster": cluster})
    summary = search(cfg, lambda params, cfg, report: params["delta"])
    assert summary.best_file == "s3://bucket/runs/tune/planted/best.yaml"
    found = read_losses(summary.best_file, s3_server)
    assert found == cfg.losses.model_dump() | summary.best_params


def test_trials_run_beside_each_other(ray_cluster, tmp_path: Path):
    def objective(params, cfg, report):
        import time

        started = time.time()
        time.sleep(1.0)
        (Path(cfg.cluster.storage) / f"{started}-{time.time()}.span").touch()
        return 0.0

    cfg = make_config(tmp_path, trials=4, parallel=2)
    search(cfg, objective)
    spans = sorted(
        tuple(float(edge) for edge in path.stem.split("-"))
        for path in Path(cfg.cluster.storage).glob("*.span")
    )
    assert len(spans) == 4
    overlaps = sum(a[1] > b[0] for i, a in enumerate(spans) for b in spans[i + 1 :])
    assert overlaps >= 1
    assert all(sum(other[0] <= edge < other[1] for other in spans) <= 2 for edge, _ in spans), (
        "more trials at once than tune.parallel"
    )


def test_failed_trials_are_counted_and_named(ray_cluster, tmp_path: Path):
    def objective(params, cfg, report):
        if params["delta"] > 150:
            raise RuntimeError("diverged")
        return float("nan") if params["delta"] > 100 else -params["delta"]

    cfg = make_config(tmp_path, trials=16, ranges={"delta": [50, 250]})
    summary = search(cfg, objective)
    bad = [row for row in summary.rows if row.message]
    assert summary.finished + summary.failed == 16
    assert len(bad) == summary.failed > 0
    for row in bad:
        expected = "RuntimeError: diverged" if row.params["delta"] > 150 else "returned nan"
        assert expected in row.message
    assert summary.best_params["delta"] <= 100
    # They are spent: a second driver does not try them for ever.
    assert search(cfg, objective).rows == ()


def test_a_search_without_any_success_says_why(ray_cluster, tmp_path: Path):
    def objective(params, cfg, report):
        raise RuntimeError("no such dataset")

    cfg = make_config(tmp_path, trials=2)
    with pytest.raises(TuneError, match="no such dataset"):
        search(cfg, objective)
    with pytest.raises(TuneError, match="no trial"):
        best_params(study_storage(cfg), "planted")


def test_every_trial_is_a_child_run(ray_cluster, tmp_path: Path, mlflow_uri: str):
    from mlflow import MlflowClient

    def objective(params, cfg, report):
        if params["delta"] > 100:
            raise RuntimeError("diverged")
        return params["delta"]

    cfg = make_config(tmp_path, trials=6, ranges={"delta": [50, 150]})
    cfg = JobConfig.parse(cfg.to_dict() | {"tracking": {"uri": mlflow_uri}})
    with JobRun.start(cfg, job="tune") as run:
        summary = search(cfg, objective, on_trial=lambda row: log_trial(run, row))
    client = MlflowClient(mlflow_uri)
    children = client.search_runs(
        [run.experiment_id], f"tags.`mlflow.parentRunId` = '{run.run_id}'"
    )
    assert len(children) == 6
    scored = {
        child.info.run_name: child.data.metrics["score"]
        for child in children
        if child.info.status == "FINISHED"
    }
    assert scored == {f"trial-{row.number}": row.score for row in summary.rows if not row.message}
    failed = [child for child in children if child.info.status == "FAILED"]
    assert len(failed) == summary.failed > 0
    assert all("diverged" in child.data.tags["error"] for child in failed)


def test_scores_of_other_trials_are_not_mixed(ray_cluster, tmp_path: Path):
    def objective(params, cfg, report):
        return params["delta"] + cfg.tune.steps

    cfg = make_config(tmp_path, trials=2, steps=3)
    before = search(cfg, objective, inputs={"footage": "a"})
    longer = make_config(tmp_path, trials=4, steps=3000)
    with pytest.raises(TuneError, match=r"tune\.steps 3, now 3000.*name another tune\.study"):
        search(longer, objective, inputs={"footage": "a"})
    more = make_config(tmp_path, trials=4, steps=3)
    with pytest.raises(TuneError, match='footage "a", now "b"'):
        search(more, objective, inputs={"footage": "b"})
    assert {t.value for t in trials(cfg)} == {row.score for row in before.rows}
    assert search(more, objective, inputs={"footage": "a"}).finished == 4


def test_ranges_may_be_narrowed_as_a_study_goes_on(ray_cluster, tmp_path: Path):
    others = dict.fromkeys(("lambda_r", "lambda_f", "lambda_g"))
    wide = make_config(tmp_path, trials=2, ranges={"delta": [1, 300], **others})
    narrow = make_config(tmp_path, trials=4, ranges={"delta": [50, 90], **others})
    search(wide, lambda params, cfg, report: params["delta"])
    said = []
    summary = search(narrow, lambda params, cfg, report: params["delta"], say=said.append)
    assert summary.finished == 4 and len(summary.rows) == 2
    assert all(50 <= row.params["delta"] <= 90 for row in summary.rows)
    assert len(said) == 1 and "delta 100 is not within 50 to 90" in said[0]


def test_a_second_driver_is_refused_and_harms_nothing(ray_cluster, tmp_path: Path):
    cfg = make_config(tmp_path, trials=4, parallel=2)
    refused = []

    def twice(row) -> None:
        with pytest.raises(TuneError, match=r"another search .* works on it"):
            search(cfg, lambda params, cfg, report: 1.0)
        refused.append(row.number)

    summary = search(cfg, lambda params, cfg, report: params["delta"], on_trial=twice)
    assert summary.finished == 4 == len(refused) == len(trials(cfg))


def test_the_configured_weights_are_not_pruned(ray_cluster, tmp_path: Path):
    """However bad they look on the way, beside trials that end before they do."""

    def objective(params, cfg, report):
        import time

        configured = params["delta"] == 100
        deadline = time.monotonic() + 30
        while configured and time.monotonic() < deadline:  # until the others have finished
            if len([t for t in trials(cfg) if t.state.name == "COMPLETE"]) == 3:
                break
            time.sleep(0.1)
        report(1, 0.0 if configured else 5.0)
        return 9.0 if configured else 5.0

    cfg = make_config(tmp_path, trials=4, parallel=4, startup_trials=1)
    summary = search(cfg, objective)
    assert summary.best_params["delta"] == 100 and summary.best_score == 9
    assert summary.pruned == 0


DRIVER = """
import sys, time
from pathlib import Path
import ray
from pipelines.config import JobConfig
from pipelines.tune import search

def objective(params, cfg, report):
    time.sleep(0.4)
    return -abs(params["delta"] - 50)

ray.init(address=sys.argv[2], log_to_driver=False,
         runtime_env={"env_vars": {"PYTHONPATH": sys.argv[3]}})
search(JobConfig.load(sys.argv[1]), objective,
       on_trial=lambda row: print("trial", row.number, flush=True))
"""


def test_a_killed_driver_resumes_without_losing_finished_trials(ray_cluster, tmp_path: Path):
    cfg = make_config(tmp_path, trials=14, parallel=2)
    config_file, driver_file = tmp_path / "job.yaml", tmp_path / "driver.py"
    config_file.write_text(yaml.safe_dump(cfg.to_dict()))
    driver_file.write_text(textwrap.dedent(DRIVER))
    address = ray_cluster.get_runtime_context().gcs_address
    command = [sys.executable, str(driver_file), str(config_file), address, str(REPOSITORY)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    for _ in range(5):
        assert driver.stdout.readline().startswith("trial")
    driver.send_signal(signal.SIGKILL)
    driver.wait(timeout=30)
    time.sleep(0.5)

    before = trials(cfg)
    finished = {t.number: t.value for t in before if t.state.name == "COMPLETE"}
    lost = [t for t in before if t.state.name == "RUNNING"]
    assert 5 <= len(finished) < 14
    assert lost, "the kill left no trial RUNNING: nothing to resume from"

    subprocess.run(command, check=True, env=environment, timeout=120, stdout=subprocess.DEVNULL)
    after = trials(cfg)
    complete = {t.number: t.value for t in after if t.state.name == "COMPLETE"}
    assert len(complete) == 14
    assert finished.items() <= complete.items()
    assert not [t for t in after if t.state.name == "RUNNING"]
    for trial in lost:  # what was running was marked failed, and its parameters tried again
        assert after[trial.number].state.name == "FAIL"
        retried = [t for t in after if t.params == trial.params and t.state.name == "COMPLETE"]
        assert retried or not trial.params
