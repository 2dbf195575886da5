"""Batches whose actors, nodes, drivers and heads are killed at random moments, held against peace.

    python -m tests.pipelines.kill_batch --rounds 20

Each round starts a batch of its own on a cluster of a head and two nodes, kills something, looks
at what then has its final name, starts the batch again where its driver died (with the head: on a
cluster of its own, while processes of the old one may still be at work), and compares the output
with that of an undisturbed run, file by file. What was finished at the first kill, outputs and
staged segments, must not be made again. A node is replaced, a lost node is not: its actor waits for
room then, and the batch goes on without. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from cssta.video import open_source, write_video
from tests.pipelines.kept_work import Kept

if TYPE_CHECKING:  # (the driver must not load a cluster's tools)
    from ray._private.node import Node
    from ray.cluster_utils import Cluster

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS = ("actor", "node", "driver", "lost-node", "head")
NODES = 2
TIMINGS = ("batch-summary.json", "batch-report.html", "batch-ledger.parquet")
LIMIT = 600.0  # seconds until a batch must have ended
DEADLY = 30.0  # seconds in which what is killed must be gone
TRIES = 3  # batches that may end before anything could be killed
LENGTHS = {"long": 120, "a b": 20, "c#1": 12, "d%20": 15, "sub/é": 9}  # frames of each video
SEGMENT = 12
SEGMENTS = {name: -(-frames // SEGMENT) for name, frames in LENGTHS.items()}
NODE = {"num_cpus": 2, "object_store_memory": 10**8}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", default="", help="kinds of each round (default: one at random)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--plain", action="store_true", help="compare with plain functions, which take no cluster"
    )
    parser.add_argument("--driver", nargs=2, metavar=("ADDRESS", "OUTPUT"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.driver:
        return drive(options.folder, *options.driver)
    os.environ |= {"PYTHONPATH": str(REPOSITORY), "RAY_AUTH_MODE": "disabled"}
    os.environ.pop("RAY_ADDRESS", None)
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="cssta-kills-") as folder:
        return Trial(Path(folder), random.Random(options.seed)).run(
            options.rounds,
            options.kills.split(",") if options.kills else [],
            options.plain,
        )


def drive(folder: Path, address: str, output: str) -> int:
    """The driver: a batch with an engine that takes its time."""
    import ray

    from pipelines.batch import complete_bucket
    from tests.pipelines.fake_engines import load_slow

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    cfg = configuration(folder, Path(output))
    summary = complete_bucket(cfg, folder / "model", load_engine=load_slow)
    print(summary.text(), flush=True)
    return 1 if summary.failures else 0


def configuration(folder: Path, output: Path):
    from pipelines.config import JobConfig

    inference = {
        "manifest": str(folder / "list.jsonl"),
        "videos": str(folder / "in"),
        "output": str(output),
        "scratch": str(folder / "scratch"),
        "options": {"lossless": True},
        "segment_frames": SEGMENT,
        "limits": {"seam": None, "warping": None},  # (grey holes break any)
        "actors": NODES,
        "cpus_per_actor": 1.5,  # (one on each node: what is lost leaves no room for another)
    }
    return JobConfig.parse({"data": {"videos": "x"}, "inference": inference})


def plain(folder: Path, output: Path) -> None:
    """The same work by plain functions, in this process."""
    from pipelines.batch import pin_model
    from tests.pipelines.one_process import complete_all

    cfg = configuration(folder, output)
    complete_all(cfg, model=pin_model(cfg, folder / "model")[0])


class Trial:
    """A cluster, videos, and the output of a run in peace."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        write_inputs(folder)
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
            if in_process:
                plain(self.folder, self.folder / "peace")
            else:
                self.batch(self.folder / "peace")
            peace = contents(self.folder / "peace", sheets=not in_process)
            for number in range(rounds):
                kills = kinds or [KINDS[number % len(KINDS)]]
                started = time.monotonic()
                for attempt in range(TRIES):
                    output = self.folder / f"round-{number}-{attempt}"
                    told = self.batch(output, kills)
                    if len(told) >= len(kills):
                        break
                else:
                    print(f"round {number}: no {', '.join(kills)} could be killed in time")
                    return 1
                found = contents(output, sheets=not in_process)
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

    def batch(self, output: Path, kills: list[str] = ()) -> list[str]:
        """Run a batch to its end, whatever is killed meanwhile; what was killed when."""
        self._add_nodes()
        told, kept, driver = [], Kept(), self._start(output)
        deadline = time.monotonic() + LIMIT
        moments = sorted(self.rng.uniform(0, 0.95) * sum(SEGMENTS.values()) for _ in kills)
        try:
            for kind, moment in zip(kills, moments, strict=True):
                while progress(output) < moment and driver.poll() is None:
                    kept.check()
                    time.sleep(0.02)
                time.sleep(self.rng.uniform(0, 0.3))
                check_finals(output, self.folder / "in")
                words = f"{kind} with {progress(output)} segments done"
                if not told:  # (later, what a kill left at work may do the same beside another)
                    kept = Kept(output)
                kill = getattr(self, f"_kill_{kind.replace('-', '_')}")
                if driver.poll() is not None or not kill(driver):
                    break
                whole = check_finals(output, self.folder / "in")
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
            raise SystemExit(f"{told}: {error}: {log_of(output)[-3000:]}") from error
        finally:
            if driver.poll() is None:
                driver.kill()
                driver.wait()
            while self.old:
                end(self.old.pop())
        if code:
            raise SystemExit(f"{told}: the batch ended with {code}: {log_of(output)[-3000:]}")
        return told

    def _start(self, output: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "tests.pipelines.kill_batch", "--folder", self.folder]
        command += ["--driver", self.cluster.address, output]
        with open(f"{output}.log", "ab") as log:
            return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)

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


def write_inputs(folder: Path) -> None:
    """A video of ten segments, four of one or two, and a model folder."""
    for number, (name, frames) in enumerate(LENGTHS.items()):
        clip = np.zeros((frames, 48, 64, 3), np.uint8)
        clip[..., 0] = (4 * np.arange(frames) + 20 * number)[:, None, None] % 256
        clip[..., 1] = np.arange(64) * 3
        write_video(folder / "in" / f"{name}.mp4", clip, 24)
    # (Without loss: what is compared is then every sample that was completed, not an encoder. Of
    # equal frames x264 alone makes equal files, but beside busy threads it was seen not to.)
    rows = [{"video": f"{name}.mp4", "output": f"{name}.mkv"} for name in LENGTHS]
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "model").mkdir()
    (folder / "model/weights.safetensors").write_bytes(bytes(10**6))  # (not in Ray's messages)
    (folder / "model/config.yaml").write_text("format: 1")


def progress(output: Path) -> int:
    """Segments that are staged, or part of what is published."""
    finished = [name for name in LENGTHS if (output / f"{name}.mkv.json").exists()]
    staged = len(list((output / "_work").rglob("segment-*.json")))
    return staged + sum(SEGMENTS[name] for name in finished)


def check_finals(output: Path, source: Path) -> set[str]:
    """Whatever has its final name is whole; the names of those that have."""
    names = set()
    for path in source.rglob("*.mp4"):
        name = path.relative_to(source).with_suffix(".mkv")
        if (output / name).exists():
            frames = sum(1 for _ in open_source(output / name).frames())
            assert frames == open_source(path).info.frames, f"{name} is half-written"
            names.add(str(name))
    return names


def contents(output: Path, sheets: bool = True) -> dict[str, bytes | str]:
    """Every file of an output; records without times."""
    found: dict[str, bytes | str] = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if path.is_file() and name not in TIMINGS and (sheets or "contact-sheets" not in name):
            found[name] = path.read_bytes()
            if name.endswith(".mkv.json"):
                record = json.loads(found[name])
                del record["outcome"]["seconds"], record["modified"]
                record["outcome"]["output"] = record["outcome"]["output"].removeprefix(str(output))
                found[name] = json.dumps(record, sort_keys=True)
    return found


def differences(found: dict, peace: dict) -> str:
    parts = {"missing": peace.keys() - found.keys(), "more": found.keys() - peace.keys()}
    parts["changed"] = {key for key in peace.keys() & found.keys() if peace[key] != found[key]}
    return "; ".join(f"{word}: {sorted(names)}" for word, names in parts.items() if names)


def log_of(output: Path) -> str:
    return Path(f"{output}.log").read_text(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
