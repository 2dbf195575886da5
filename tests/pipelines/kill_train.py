"""A training stage whose worker, node and driver are killed, held against a loop in one process.

    python -m tests.pipelines.kill_train --rounds 20 [--s3]

Each round trains the same small stage on a cluster of a head and two nodes, kills something at a
random step, starts the job again where its driver was killed, and compares the last checkpoint,
byte by byte, with that of the same training in one process without Ray. Exit code 1 if it differs.
With --s3 the checkpoints go to a bucket (moto's imitation) behind a network on which one of ten
requests fails.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("worker", "node", "driver")
STEPS, EVERY = 60, 4
LIMIT = 300.0  # seconds until a stage must have ended
NODE = {"num_cpus": 2, "object_store_memory": 10**8}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", default="", help="kinds of each round (default: one of each)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--s3", action="store_true", help="checkpoints to a bucket, badly reached")
    parser.add_argument("--endpoint", default="", help=argparse.SUPPRESS)
    parser.add_argument("--driver", nargs=2, metavar=("ADDRESS", "OUTPUT"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ |= {"PYTHONPATH": str(REPOSITORY), "RAY_AUTH_MODE": "disabled"}
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    os.environ.pop("RAY_ADDRESS", None)
    if options.driver:
        return drive(options.folder, *options.driver, options.endpoint)
    from tests.pipelines.bad_bucket import bad_bucket

    print(f"seed {options.seed}", flush=True)
    kinds = options.kills.split(",") if options.kills else []
    with tempfile.TemporaryDirectory(prefix="cssta-kills-") as folder, ExitStack() as opened:
        endpoint = opened.enter_context(bad_bucket(options.seed)) if options.s3 else ""
        return Trial(Path(folder), random.Random(options.seed), endpoint).run(options.rounds, kinds)


def drive(folder: Path, address: str, output: str, endpoint: str) -> int:
    """The driver: train the stage, and again, which must find it finished."""
    import ray

    from pipelines.train_stage import train_stage

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    cfg, model, weights, videos = stage(folder, output, endpoint)
    for reused in (False, True):
        say = (lambda line: print(line, flush=True)) if not reused else print
        result = train_stage(cfg, "inpainter", model, weights, videos, NoRun(), say)
        assert result.reused == reused or not reused
    return 0


class NoRun:
    """Stands for an MLflow run; what is logged is tested elsewhere."""

    def log_params(self, params) -> None: ...
    def log_step(self, metrics, step) -> None: ...
    def log_metrics(self, metrics) -> None: ...
    def log_file(self, path, folder=None) -> None: ...
    def set_tags(self, tags) -> None: ...


def stage(folder: Path, output: str, endpoint: str = "") -> tuple:
    """Configuration, model, weights of earlier stages and videos of the stage."""
    from cssta.config import ModelConfig
    from pipelines.config import JobConfig
    from pipelines.manifest import Manifest, probe_video
    from pipelines.train_stage import Videos

    data = {"videos": str(folder / "in"), "height": 32, "width": 32, "references": 1}
    data["s3_endpoint"] = endpoint or None
    how = {"steps": STEPS, "log_every": EVERY, "checkpoint_every": EVERY, "validate_every": STEPS}
    content = {
        "name": "killed",
        "data": data | {"clips_per_epoch": 16},
        "stages": {"inpainter": how | {"targets": 1, "reference_dropout": 0.5}},
        "cluster": {"storage": output, "use_gpu": False},
    }
    rows = tuple(probe_video(str(path)) for path in sorted((folder / "in").glob("*.mp4")))
    videos = Videos(Manifest(rows[:-1]), Manifest(rows[-1:]))
    return JobConfig.parse(content), ModelConfig.preset("tiny"), {}, videos


def plain(folder: Path, output: Path) -> None:
    """The same training in this process: a loop over clips that are loaded as they are planned."""
    from tests.pipelines.plain_training import train_plain

    cfg, model, _, videos = stage(folder, str(output))
    train_plain(cfg, "inpainter", model, videos.training).save(output)


class Trial:
    """A cluster, videos, and the last checkpoint of a training in peace."""

    def __init__(self, folder: Path, rng: random.Random, endpoint: str) -> None:
        from ray.cluster_utils import Cluster

        self.folder, self.rng, self.endpoint = folder, rng, endpoint
        write_videos(folder / "in")
        # (A node counts as dead after 5 s without a sign of life, rather than 30.)
        sooner = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
        head = {"num_cpus": 0, "object_store_memory": 10**8, "include_dashboard": False}
        head["_system_config"] = sooner
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = [self.cluster.add_node(**NODE) for _ in range(2)]

    def run(self, rounds: int, kinds: list[str]) -> int:
        try:
            plain(self.folder, self.folder / "peace")
            peace = contents(self.folder / "peace")
            for number in range(rounds):
                output = f"{'s3://bucket' if self.endpoint else self.folder}/round-{number}"
                told = self.train(output, kinds or [KINDS[number % len(KINDS)]])
                found = self.end_of(output)
                names = peace.keys() | found.keys()
                differing = sorted(name for name in names if peace.get(name) != found.get(name))
                if differing:
                    print(f"round {number}: {told}: DIFFERS: {differing}")
                    return 1
                print(f"round {number}: {told}: the same {len(found)} files", flush=True)
            return 0
        finally:
            self.cluster.shutdown()

    def kept(self, output: str):
        """The checkpoints of the run that goes there."""
        from pipelines.checkpoints import Checkpoints
        from pipelines.stage_identity import decisive_parts, digest_of

        cfg, model, weights, videos = stage(self.folder, output, self.endpoint)
        digest = digest_of(decisive_parts(cfg, "inpainter", model, weights, videos.training))
        uri = f"{output}/{cfg.name}/stages/inpainter-{digest}"
        return Checkpoints(uri, self.endpoint or None)

    def end_of(self, output: str) -> dict[str, bytes]:
        """The files of its last checkpoint."""
        with tempfile.TemporaryDirectory() as folder:
            assert self.kept(output).restore(Path(folder)).step == STEPS
            return contents(Path(folder))

    def train(self, output: str, kinds: list[str]) -> str:
        """Train to the end, whatever is killed meanwhile; what was killed when."""
        told: list[str] = []
        moments = sorted(self.rng.uniform(0, 0.75) * STEPS for _ in kinds)
        driver = self._start(output)
        try:
            for kind, moment in zip(kinds, moments, strict=True):
                self._reach(moment, driver, output, told)
                kept = self.kept(output).last_step()
                if kind == "driver":
                    driver.end()
                else:
                    getattr(self, f"_kill_{kind}")()
                told.append(f"{kind} at step {driver.steps[-1] if driver.steps else 0}")
                if kind == "driver":
                    driver = self._start(output)
                    self._reach(0, driver, output, told)
                    first = driver.steps[0] if driver.steps else STEPS + 1
                    assert first > kept, f"{driver.steps} does not go on from {kept}"
            self._reach(STEPS, driver, output, told)
            assert driver.ended() == 0, f"{told}: {driver.log()}"
        finally:
            driver.end()
        return ", ".join(told) or "nothing killed"

    def _reach(self, step: float, driver: Driver, output: str, told: list[str]) -> None:
        """Wait until the driver's training is at that step: nothing but a kill may end it before.

        (It is connected to the head, which Ray prefers among the nodes of one host, and no node
        that is taken is the head. One that finds the last step kept has nothing to tell.)
        """
        if not driver.reaches(step):
            finished = driver.ended() == 0 and self.kept(output).last_step() == STEPS
            assert finished and not driver.steps, f"{told}: {driver.log()}"

    def _start(self, output: str) -> Driver:
        log = self.folder / f"{output.rpartition('/')[2]}.log"
        options = ["--folder", self.folder, "--driver", self.cluster.address, output]
        return Driver([*options, "--endpoint", self.endpoint], log)

    def _kill_worker(self) -> None:
        """End the training worker as the kernel does when memory is out."""
        _, worker = self._worker()
        worker.kill()
        worker.wait(10)

    def _kill_node(self) -> None:
        """Take the node away on which the training worker is."""
        node, worker = self._worker()
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)
        worker.wait(30)
        self.nodes.append(self.cluster.add_node(**NODE))

    def _worker(self) -> tuple:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for node in self.nodes:
                raylet = node.all_processes["raylet"][0].process.pid
                with suppress(psutil.Error):  # (some end while we look)
                    for process in psutil.Process(raylet).children(recursive=True):
                        if "RayTrainWorker" in " ".join(process.cmdline()):
                            return node, process
            time.sleep(0.1)
        raise AssertionError("no training worker is running")


class Driver:
    """A driver's process; `steps` are those that it told of so far."""

    def __init__(self, options: list, log: Path) -> None:
        self.steps: list[int] = []
        self._log = log
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.pipelines.kill_train", *options],
                cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        for line in self._process.stdout:
            if line.startswith("  inpainter "):
                self.steps.append(int(line.split()[1].split("/")[0]))

    def reaches(self, step: float) -> bool:
        """Wait for that step; False if the process has ended before."""
        deadline = time.monotonic() + LIMIT
        while not self.steps or self.steps[-1] < step:
            assert time.monotonic() < deadline, f"step {step:.0f} never came: {self.log()}"
            if self._process.poll() is not None:
                time.sleep(0.5)  # (its last lines may still be read)
                return bool(self.steps) and self.steps[-1] >= step
            time.sleep(0.02)
        return True

    def ended(self) -> int:
        return self._process.wait(LIMIT)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]


def write_videos(folder: Path) -> None:
    from cssta.video import write_video

    for number in range(3):
        clip = np.zeros((12, 48, 64, 3), np.uint8)
        clip[..., 0] = (8 * np.arange(12) + 40 * number)[:, None, None]
        clip[..., 1] = np.arange(64) * 3
        write_video(folder / f"{number}.mp4", clip, 24)


def contents(folder: Path) -> dict[str, bytes]:
    """A checkpoint's files, without what tells of speed and the picture of a validation."""
    left_out = ("kept.json", "validation.png")
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in left_out}


if __name__ == "__main__":
    sys.exit(main())
