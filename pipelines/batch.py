"""Complete every video of a bucket: plan, look through, complete by segments, assemble, report.

Rows on the wire are JSON; pixels never leave the process that decodes them. A rerun skips what is
published and still fits, and goes on with what is staged (see `pipelines.batch_plan`,
`pipelines.staging`), so a job that was killed is simply started again.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import ray
from ray.data import TaskPoolStrategy
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.actors import (
    MAX_BLOCKS,
    LoadEngine,
    ask,
    load_inpainter,
    map_actors,
    model_digest,
    pack_model,
    plan_pool,
    start_keeper,
)
from pipelines.assemble_video import assemble_video
from pipelines.batch_actor import Completer
from pipelines.batch_collect import Collector
from pipelines.batch_finished import put_in_place
from pipelines.batch_lease import Lease, LeaseError
from pipelines.batch_names import WORK
from pipelines.batch_plan import Plan, output_of, plan_batch
from pipelines.batch_progress import BatchProgress
from pipelines.batch_publish import publish_results
from pipelines.batch_quarantine import Quarantine
from pipelines.batch_record import FINISHED, ModelIdentity, VideoOutcome, VideoTask, failure
from pipelines.batch_source import BatchSettings
from pipelines.batch_summary import BatchSummary
from pipelines.batch_units import PartResult, group_tasks, most_units, survey_group
from pipelines.config import JobConfig
from pipelines.node_cache import PREFIX
from pipelines.placement import among_workers, on_a_worker
from pipelines.registry import resolve
from pipelines.retries import with_retries
from pipelines.staging import Staging
from pipelines.storage import StorageError, delete, join
from pipelines.storage_systems import endpoint_of_environment
from pipelines.tracking import tracking_uri
from pipelines.video_failures import KEEPING, as_failure
from pipelines.watchdog import Watchdog

log = logging.getLogger(__name__)

OnVideo = Callable[[VideoOutcome, int, int], None]
OnEnd = Callable[[VideoTask, VideoOutcome], None]


def complete_bucket(
    cfg: JobConfig,
    model: str | Path | None = None,
    *,
    on_video: OnVideo | None = None,
    say: Callable[[str], None] = lambda line: None,
    load_engine: LoadEngine = load_inpainter,
    log_run: bool = False,
) -> BatchSummary:
    """Complete the videos of `cfg.inference` and publish them, with a summary, report and ledger.

    Args:
        model: a folder or `models:/` URI; None takes the registry's alias. It is resolved once,
            here: a later promotion does not reach a running batch.
        on_video: called as on_video(outcome, position, total) as each video ends.
        say: takes a line of progress now and then.
        log_run: leave a run in MLflow too.

    Needs a connected Ray. Raises BatchError, EmptyBucketError or RegistryError when the batch
    cannot start, LeaseError where another one works on the same output; a bad video never raises,
    it is an outcome.
    """
    started = time.monotonic()
    identity, files = pin_model(cfg, model)
    output, endpoint = output_of(cfg), cfg.data.s3_endpoint
    outcomes: list[VideoOutcome] = []
    with Lease(output, endpoint, say) as lease:
        settings = replace(batch_settings(cfg, identity), lease=lease.token)
        plan = plan_batch(cfg, identity)
        quarantine = Quarantine(output, endpoint)
        progress = BatchProgress.of(plan, say)

        def record(task: VideoTask, outcome: VideoOutcome) -> None:
            try:
                quarantine.update(task, outcome)
                if outcome.status == "failed" and outcome.reason not in KEEPING:
                    # What is wrong may be in the segments: nothing is to be built on them again.
                    Staging(task, endpoint).remove()
                elif outcome.status in FINISHED:
                    Staging(task, endpoint).remove(lease.since)
            except StorageError as error:  # one video's record must not end the others
                log.warning("%s: %s", task.name, error)

        def settle(task: VideoTask, outcome: VideoOutcome) -> None:
            outcomes.append(outcome)
            progress.add_video(outcome)
            if on_video:
                on_video(outcome, len(outcomes), len(plan.all_tasks))

        for outcome in _moved(plan, identity, endpoint, say, lease):
            record(plan.all_tasks[outcome.name], outcome)
            settle(plan.all_tasks[outcome.name], outcome)
        try:
            if plan.tasks:
                ends = record, settle
                _complete(cfg, plan, settings, files, load_engine, ends, progress, lease)
            lease.check(look=True)
            summary = publish_results(
                cfg, identity, plan, outcomes, settings, started, _on_cluster(settings), log_run
            )
        finally:
            clean_nodes(settings.scratch)
        _clean_work(plan, output, endpoint, lease.since)
    return summary


def _moved(
    plan: Plan,
    model: ModelIdentity,
    endpoint: str | None,
    say: Callable[[str], None],
    lease: Lease,
) -> list[VideoOutcome]:
    """The settled outcomes, once everything finished is where the limits want it."""
    failed: dict[str, VideoOutcome] = {}
    for name, found in plan.misplaced.items():
        lease.check(look=True)
        try:
            put_in_place(plan.all_tasks[name], model, found, endpoint)
            say(f"{name}: judged again, now at {found.outcome.output}")
        except StorageError as error:
            failed[name] = failure(plan.all_tasks[name], "storage", str(error))
    return [failed.get(outcome.name, outcome) for outcome in plan.settled]


def pin_model(cfg: JobConfig, model: str | Path | None) -> tuple[ModelIdentity, dict[str, bytes]]:
    """Which weights, once and for all, and their files."""
    source = str(model or f"models:/{cfg.registry.name}@{cfg.registry.alias}")
    server = tracking_uri(cfg) if source.startswith("models:/") else None
    folder, version = resolve(source, server)
    files = pack_model(folder)
    return ModelIdentity(source, version, model_digest(files)), files


def batch_settings(cfg: JobConfig, model: ModelIdentity) -> BatchSettings:
    """What the processes of a batch are told."""
    inference = cfg.inference
    scratch = Path(inference.scratch or tempfile.gettempdir()) / f"{PREFIX}{uuid.uuid4().hex[:12]}"
    return BatchSettings(
        model=model,
        ratio=cfg.data.masks.ratio,
        scratch=str(scratch),
        # (The driver's environment is not that of all nodes.)
        s3_endpoint=cfg.data.s3_endpoint or endpoint_of_environment(),
        cache_bytes=inference.cache_gb * 1e9,
        segment_frames=inference.segment_frames,
        quality=inference.quality,
        self_test_frames=inference.self_test_frames,
        limits=tuple(inference.limits.given().items()),
        stall_seconds=inference.stall_seconds,
    )


def _complete(
    cfg: JobConfig,
    plan: Plan,
    settings: BatchSettings,
    files: dict[str, bytes],
    load_engine: LoadEngine,
    ends: tuple[OnEnd, OnEnd],
    progress: BatchProgress,
    lease: Lease,
) -> None:
    """Tasks to outcomes: Ray Data from survey to staged segments, then a task for each video."""
    pool = plan_pool(cfg, ray.cluster_resources(), most_units(plan.tasks))
    keeper = start_keeper()
    groups = group_tasks(plan.tasks, pool.size)
    rows = [{"tasks": json.dumps([json.dumps(vars(t)) for t in group])} for group in groups]
    source = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS))
    # A block for each unit: those of one long video are for all actors, not for one.
    source.context.target_max_block_size = 1
    # (The watchdogs end what hangs; a long video may take hours to look through.)
    source.context.execution_no_progress_timeout_s = -1
    # What asks for CPUs would wait without end where nodes are lost and actors hold all that are
    # left. (And Ray Data would make one operator of two that ask for the same, so that whoever
    # looks through a long video completes all of it; the actors ask for more.)
    units = source.flat_map(
        survey_group,
        fn_kwargs={"settings": settings, "keeper": keeper},
        compute=TaskPoolStrategy(size=min(pool.readers, len(rows))),
        num_cpus=0,
        label_selector=among_workers(),
    )
    completed = map_actors(units, Completer, pool, keeper, files, settings, load_engine)
    assemble = ray.remote(num_cpus=0, max_retries=3)(assemble_task)

    def publish(task: VideoTask) -> VideoOutcome:
        lease.check(look=True)
        return ray.get(assemble.options(**on_a_worker()).remote(task, settings))

    def give_up(name: str) -> None:
        ask(keeper.give_up.remote(name), None)

    def at_work() -> list[str]:
        with suppress(RayError):  # (the next line may know)
            return ray.get(keeper.at_work.remote(), timeout=10)
        return []

    assemblers = cfg.inference.assemblers or max(2, pool.size // 2)
    with (
        progress.told(plan.tasks, at_work),
        Collector(plan.tasks, publish, *ends, give_up, assemblers, progress) as collector,
    ):
        for row in completed.iter_rows():
            lease.check()
            for result in json.loads(row["results"]):
                collector.add(PartResult(**result))


def assemble_task(task: VideoTask, settings: BatchSettings) -> VideoOutcome:
    """`assemble_video`, whose errors are outcomes, but for LeaseError: the whole batch's end."""
    try:
        with Watchdog(settings.stall_seconds) as watchdog:
            return assemble_video(task, settings, watchdog.feed)
    except LeaseError:
        raise
    except Exception as error:
        return failure(task, *as_failure(task, error))


def _on_cluster(settings: BatchSettings) -> Callable:
    """Calls of a function with the settings, each a task of the cluster; results or errors."""

    def call(function: Callable, arguments: Iterable[tuple]) -> list:
        task = ray.remote(num_cpus=0.25, max_retries=1)(function)
        results = []
        for reference in [task.remote(*given, settings) for given in arguments]:
            try:
                results.append(ray.get(reference))
            except Exception as error:
                results.append(error)
        return results

    return call


def clean_nodes(scratch: str) -> None:
    """Remove the batch's temporary files from all nodes."""
    remove = ray.remote(num_cpus=0, max_retries=0)(shutil.rmtree)
    pending = []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = remove.options(scheduling_strategy=there)
            pending.append(options.remote(scratch, ignore_errors=True))
    ray.wait(pending, num_returns=len(pending), timeout=60)


def _clean_work(plan: Plan, output: str, endpoint: str | None, since: int = 0) -> None:
    """Remove unfinished work on what is finished, left by a job that was killed in between."""
    for outcome in plan.settled:
        if outcome.status == "skipped":
            staging = Staging(plan.all_tasks[outcome.name], endpoint)
            _remove(lambda staging=staging: staging.remove(since))
    for rest in ("quarantine", "results"):
        uri = join(output, WORK, rest)
        _remove(lambda uri=uri: with_retries(lambda: delete(uri, endpoint)))


def _remove(remove: Callable[[], None]) -> None:
    """What stays behind does not make a finished batch a failed one."""
    try:
        remove()
    except StorageError as error:
        log.warning("unfinished work could not be removed: %s", error)
