"""Batches whose actors, nodes, drivers and heads are killed at random moments, held against peace.

    python -m tests.pipelines.kill_batch --rounds 20 [--s3]

Each round starts a batch of its own on a cluster of a head and two nodes, kills something, looks
at what then has its final name, starts the batch again where its driver died (with the head: on a
cluster of its own, while processes of the old one may still be at work), and compares the output
with that of an undisturbed run, file by file, records and ledger but for times. What was finished
at the first kill, outputs and staged segments, must not be made again. A node is replaced, a lost
node is not: its actor waits for room then, and the batch goes on without. With --s3 all is read
from and written to an imitation of S3 on which one of ten requests fails. Exit code 1 if anything
differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import psutil

from tests.pipelines.bad_bucket import bad_bucket
from tests.pipelines.batch_output import Output, differences
from tests.pipelines.kept_work import Kept
from tests.pipelines.killed_batch import (
    ACTORS,
    LENGTHS,
    SEGMENTS,
    configuration,
    in_peace,
    write_inputs,
)

if TYPE_CHECKING:
    from ray._private.node import Node
    from ray.cluster_utils import Cluster

    from pipelines.config import JobConfig

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("actor", "node", "driver", "lost-node", "head")
NODES = ACTORS
LIMIT = 600.0  # seconds until a batch must have ended
DEADLY = 30.0  # seconds in which what is killed must be gone
TRIES = 3  # batches that may end before anything could be killed
NODE = {"num_cpus": 2, "object_store_memory": 10**8}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", default="", help="kinds of each round (default: one at random)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--plain", action="store_true", help="compare with plain functions, which take no cluster"
    )
    parser.add_argument("--s3", action="store_true", help="from and to S3 on a bad network")
    options = parser.parse_args()
    os.environ |= {"PYTHONPATH": str(REPOSITORY), "RAY_AUTH_MODE": "disabled"}
    os.environ.pop("RAY_ADDRESS", None)
    print(f"seed {options.seed}", flush=True)
    with ExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="cssta-kills-"))
        endpoint = opened.enter_context(bad_bucket(options.seed)) if options.s3 else ""
        kinds = options.kills.split(",") if options.kills else []
        trial = Trial(Path(folder), random.Random(options.seed), endpoint)
        return trial.run(options.rounds, kinds, options.plain)


class Trial:
    """A cluster, videos, and the output of a run in peace."""

    def __init__(self, folder: Path, rng: random.Random, endpoint: str = "") -> None:
        self.folder, self.rng, self.endpoint = folder, rng, endpoint
        self.bucket = "s3://bucket" if endpoint else ""
        self.pause = 0.2 if endpoint else 0.02  # seconds between two looks
        write_inputs(folder, self.bucket, endpoint)
        self.killed: Counter[str] = Counter()
        self.old: list[Cluster] = []  # without a head, but some of their processes may live
        self._new_cluster()

    def _new_cluster(self) -> None:
        from ray.cluster_utils import Cluster

        # (A node counts as dead after 5 s without a sign of life, rather than 30.)
        sooner = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
        head = {"num_cpus": 0, "object_store_memory": 10**8, "include_dashboard": False}
        head["_system_config"] = sooner
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Node] = []
        self._add_nodes()

    def _add_nodes(self) -> None:
        while len(self.nodes) < NODES:
            self.nodes.append(self.cluster.add_node(**NODE))

    def run(self, rounds: int, kinds: list[str], in_process: bool) -> int:
        try:
            output = self._output("peace")
            if in_process:
                in_peace(self._configuration(output), self.folder / "model")
            else:
                self.batch(output)
            peace = output.contents()
            for number in range(rounds):
                kills = kinds or [KINDS[number % len(KINDS)]]
                started = time.monotonic()
                for attempt in range(TRIES):
                    output = self._output(f"round-{number}-{attempt}")
                    told = self.batch(output, kills)
                    if len(told) >= len(kills):
                        break
                else:
                    print(f"round {number}: no {', '.join(kills)} could be killed in time")
                    return 1
                found = output.contents()
                words = f"round {number}: {', '.join(told)}"
                if found != peace:
                    print(f"{words}: DIFFERS: {differences(found, peace)}")
                    return 1
                seconds = time.monotonic() - started
                print(f"{words}: the same {len(found)} files ({seconds:.0f} s)", flush=True)
            counted = ", ".join(f"{count} {kind}" for kind, count in sorted(self.killed.items()))
            print(f"{rounds} rounds, killed: {counted}; nothing differs")
            return 0
        finally:
            for cluster in (*self.old, self.cluster):
                end(cluster)

    def _output(self, name: str) -> Output:
        return Output(f"{self.bucket or self.folder}/{name}", self.endpoint or None)

    def _configuration(self, output: Output) -> JobConfig:
        return configuration(self.folder, output.uri, self.bucket, self.endpoint)

    def batch(self, output: Output, kills: list[str] = ()) -> list[str]:
        """Run a batch to its end, whatever is killed meanwhile; what was killed when."""
        self._add_nodes()
        told, kept, driver = [], Kept(), self._start(output)
        deadline = time.monotonic() + LIMIT
        moments = sorted(self.rng.uniform(0, 0.95) * sum(SEGMENTS.values()) for _ in kills)
        try:
            for kind, moment in zip(kills, moments, strict=True):
                while output.progress(SEGMENTS) < moment and driver.poll() is None:
                    kept.check()
                    time.sleep(self.pause)
                time.sleep(self.rng.uniform(0, 0.3))
                output.check_finals(LENGTHS)
                words = f"{kind} with {output.progress(SEGMENTS)} segments done"
                if not told:  # (later, what a kill left at work may do the same beside another)
                    kept = Kept(output)
                kill = getattr(self, f"_kill_{kind.replace('-', '_')}")
                if driver.poll() is not None or not kill(driver):
                    break
                whole = output.check_finals(LENGTHS)
                kept.check()
                assert set(kept.finals) <= whole, f"{set(kept.finals) - whole} went with a kill"
                told.append(words)
                self.killed[kind] += 1
                if driver.poll() is not None:
                    driver = self._start(output)
            code = kept.watch(driver, deadline)
            if code and {"node", "lost-node"} & set(kills):
                # All nodes have one address here, and the driver was connected to that one.
                told.append("its driver with it")
                driver = self._start(output)
                code = kept.watch(driver, deadline)
        except AssertionError as error:
            raise SystemExit(f"{told}: {error}: {self._end_of_log(output)}") from error
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
            while self.old:
                end(self.old.pop())
        if code:
            raise SystemExit(f"{told}: the batch ended with {code}: {self._end_of_log(output)}")
        return told

    def _start(self, output: Output) -> subprocess.Popen:
        command = [sys.executable, "-m", "tests.pipelines.batch_driver", "--engine", "load_slow"]
        command += [self.cluster.address, self._configuration(output).model_dump_json()]
        with open(self._log(output), "ab") as log:
            return subprocess.Popen(
                [*command, self.folder / "model"], cwd=REPOSITORY, stdout=log, stderr=log
            )

    def _log(self, output: Output) -> Path:
        return self.folder / f"{PurePosixPath(output.uri).name}.log"

    def _end_of_log(self, output: Output) -> str:
        return self._log(output).read_text(errors="replace")[-3000:]

    # Each kills one thing of its kind, waits till it is dead, and says whether there was one.

    def _kill_driver(self, driver: subprocess.Popen) -> bool:
        driver.kill()
        return driver.wait(DEADLY) == -signal.SIGKILL

    def _kill_actor(self, driver: subprocess.Popen) -> bool:
        """One of the processes of our own cluster that hold a model."""
        while driver.poll() is None:
            raylets = [self.cluster.head_node, *self.nodes]
            pids = [process.pid for node in raylets for process in processes(node, "raylet")]
            workers = [w for pid in pids for w in psutil.Process(pid).children(recursive=True)]
            holders = [w for w in workers if "MapWorker" in " ".join(_command(w))]
            if holders:
                victim = self.rng.choice(holders)
                victim.kill()
                victim.wait(DEADLY)
                return True
            time.sleep(0.1)
        return False

    def _kill_node(self, driver: subprocess.Popen) -> bool:
        self._kill_lost_node(driver)
        self._add_nodes()
        return True

    def _kill_lost_node(self, driver: subprocess.Popen) -> bool:
        node = self.nodes.pop(self.rng.randrange(len(self.nodes)))
        raylets = processes(node, "raylet")
        self.cluster.remove_node(node, allow_graceful=False)
        psutil.wait_procs(raylets, DEADLY)
        assert not any(raylet.is_running() for raylet in raylets), "the node still lives"
        return True

    def _kill_head(self, driver: subprocess.Popen) -> bool:
        """The head with its driver, as when its machine fails; its nodes find that out."""
        dying = [psutil.Process(driver.pid), *processes(self.cluster.head_node)]
        assert {"gcs_server", "raylet"} <= self.cluster.head_node.all_processes.keys()
        for process in dying:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        driver.wait(DEADLY)
        psutil.wait_procs(dying, DEADLY)
        assert not any(process.is_running() for process in dying), "the head still lives"
        self.old.append(self.cluster)
        self._new_cluster()
        return True


def processes(node: Node, kind: str = "") -> list[psutil.Process]:
    """Those that Ray has started for a node, of one kind or all."""
    known = node.all_processes
    kinds = [kind] if kind else list(known)
    found = []
    for info in (info for name in kinds for info in known.get(name, ())):
        with suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(info.process.pid))
    return found


def end(cluster: Cluster) -> None:
    """End what is left of a cluster, with a head or without."""
    for node in cluster.list_all_nodes():
        with suppress(Exception):
            node.kill_all_processes(check_alive=False, allow_graceful=False)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


if __name__ == "__main__":
    sys.exit(main())
