"""Actors that hold a model: how its weights reach them, how many a cluster carries, how they fail.

A flow derives its own actor from `ModelActor` and runs it over its rows by `map_rows`.
"""

from __future__ import annotations

import hashlib
import logging
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cssta.references import ReferencePlan
from pipelines.config import JobConfig

log = logging.getLogger(__name__)


class Engine(Protocol):
    """What an actor holds: `cssta.Inpainter`, or anything that completes frames like it."""

    def inpaint(
        self, frames: np.ndarray, masks: np.ndarray, progress: Callable[..., None] | None = None
    ) -> np.ndarray:
        """Frames uint8 (T, H, W, 3), masks bool (T, H, W), True = hole -> uint8 (T, H, W, 3)."""


class StreamEngine(Engine, Protocol):
    """What completes videos of any length, as `cssta.complete_segment` wants it."""

    plan: ReferencePlan
    lookahead: int

    def stream(self, pairs: Iterable, **options: Any) -> Iterator[np.ndarray]:
        """See `cssta.Inpainter.stream`."""


LoadEngine = Callable[[Path, str], Engine]
"""From a model folder and a device ("cpu" or "cuda")."""


class ModelFolderError(ValueError):
    """A folder that holds no model; the message names it."""


def load_inpainter(folder: Path, device: str) -> Engine:
    """The default engine."""
    from cssta import Inpainter

    return Inpainter.load(folder, device=device)


def pack_model(folder: Path) -> dict[str, bytes]:
    """All files of a model folder, by name, to be sent to the actors.

    So that no node needs the driver's disk or the registry. Raises ModelFolderError.
    """
    if not Path(folder).is_dir():
        raise ModelFolderError(f"{folder}: is no model folder")
    files = {
        path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()
    }
    if not any(name.endswith(".safetensors") for name in files):
        raise ModelFolderError(f"{folder}: holds no .safetensors weights; give a folder of a model")
    return files


def model_digest(files: dict[str, bytes]) -> str:
    """SHA-256 over names and contents."""
    whole = hashlib.sha256()
    for name, content in sorted(files.items()):
        whole.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    return whole.hexdigest()


def load_packed(files: dict[str, bytes], load_engine: LoadEngine, threads: int) -> Engine:
    """In an actor: write the files to a temporary folder and load the engine from it."""
    import torch

    torch.set_num_threads(threads)
    device = "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory(prefix="cssta-model-") as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        return load_engine(Path(folder), device)


@dataclass(frozen=True)
class ActorPool:
    """How many actors there may be and what each of them takes of the cluster.

    `readers`: tasks that look through videos at the same time, beside them.
    """

    size: int
    cpus: float
    gpus: float
    least: int = 0
    readers: int = 1

    @property
    def threads(self) -> int:
        """Threads that an actor may use for arithmetic."""
        return max(1, math.floor(self.cpus))

    def map_options(self) -> dict:
        """Keyword arguments for `Dataset.map`."""
        least = self.least or self.size
        strategy = ray.data.ActorPoolStrategy(
            min_size=least, max_size=self.size, max_tasks_in_flight_per_actor=1
        )
        return {"compute": strategy, "num_cpus": self.cpus, "num_gpus": self.gpus}


def plan_pool(cfg: JobConfig, resources: dict[str, float], videos: int) -> ActorPool:
    """The configured pool, made to fit: never more actors than videos, and a CPU left to read.

    (Actors on every CPU starve Ray Data's own tasks, and the job hangs.) `resources` is
    `ray.cluster_resources()`.
    """
    inference = cfg.inference
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    each = min(inference.cpus_per_actor, cpus) if cpus else inference.cpus_per_actor
    size = min(inference.actors, videos)
    if cpus:
        size = min(size, math.floor((cpus - 1) / each))
    size = max(1, size)
    if size < min(inference.actors, videos):
        words = "%d actors rather than %d: the cluster has %g CPUs, and one is left for reading"
        log.warning(words, size, inference.actors, cpus)
    # One actor on a cluster of one CPU still leaves room for Ray Data's own tasks.
    each = min(each, max(cpus - 0.5, 0.5)) if cpus and cpus <= size * each else each
    share = inference.gpus_per_actor or 1.0
    fitting = math.floor(gpus / share + 1e-9)
    if cfg.cluster.use_gpu == "auto" and 1 <= fitting < size:
        log.warning("%d actors rather than %d: for so many there are GPUs", fitting, size)
        size = fitting
    if cfg.cluster.use_gpu is True and not gpus:
        log.warning("cluster.use_gpu is true: waiting for a GPU, the cluster has none now")
    enough = gpus >= size * share
    wants_gpu = cfg.cluster.use_gpu is True or (cfg.cluster.use_gpu == "auto" and enough)
    least = min(inference.min_actors or size, size)
    # (To look through a video costs a fraction of completing it.)
    readers = max(1, math.floor(cpus - size * each), size // ACTORS_PER_READER)
    return ActorPool(size, each, share if wants_gpu else 0.0, least, readers)


ACTORS_PER_READER = 8
MAX_BLOCKS = 2000
MAX_STARTS = 3
"""A video whose actor died this often is given up: it is taken to be what kills the actor."""
CRASHED = f"its process died {MAX_STARTS} times (a decoder's fault, or out of memory); re-encode it"


class Keeper:
    """What became of the videos of actors that die: it outlives them.

    Ray Data restarts a dead actor and gives it the same video again, without end; the count of
    starts finds out the video that kills its actors.
    """

    def __init__(self, places: int = 0) -> None:
        self._places = places
        self._starts: Counter[str] = Counter()
        self._claims: set[str] = set()
        self._given_up: dict[str, tuple[str, str]] = {}

    def start(self, name: str) -> int:
        """Count a start of a video and return how many there are now."""
        self._starts[name] += 1
        return self._starts[name]

    def end(self, name: str) -> None:
        """What was started has ended, well or not: its starts so far killed nothing."""
        del self._starts[name]

    def at_work(self) -> list[str]:
        """What was started and has not ended."""
        return list(self._starts)

    def give_up(self, name: str, reason: str = "given-up", message: str = "") -> None:
        """Nothing more is to be done for a video; why, in a slug and in words."""
        self._given_up.setdefault(name, (reason, message))

    def given_up(self, name: str) -> tuple[str, str] | None:
        """What was said then, first; None if nothing was."""
        return self._given_up.get(name)

    def claim(self, name: str) -> bool:
        """Whether a video has, or now gets, one of the places (as for a contact sheet)."""
        if len(self._claims) < self._places:
            self._claims.add(name)
        return name in self._claims


def ask(answer: ObjectRef, otherwise: Any) -> Any:
    """What a keeper answers; `otherwise` where there is none any more, which ends no work."""
    try:
        return ray.get(answer)
    except RayActorError as error:
        log.warning("starts of videos are no longer counted: %s", str(error).partition("\n")[0])
        return otherwise


def may_start(keeper: ActorHandle, name: str) -> bool:
    """Count a start; False for what has killed its process too often."""
    return ask(keeper.start.remote(name), 0) <= MAX_STARTS


class ModelActor:
    """Base of an actor that holds the model of `files`; `settings`: what its flow needs more."""

    def __init__(
        self,
        keeper: ActorHandle,
        files: ObjectRef,
        settings: Any,
        load_engine: LoadEngine,
        threads: int,
    ) -> None:
        self.engine = load_packed(ray.get(files), load_engine, threads)
        self.settings = settings
        self.keeper = keeper

    def may_start(self, name: str) -> bool:
        """See `may_start`."""
        return may_start(self.keeper, name)

    def claim(self, name: str) -> bool:
        """Whether this video gets one of the places that `map_rows` was given."""
        return ask(self.keeper.claim.remote(name), False)


def start_keeper(places: int = 0) -> ActorHandle:
    """A keeper on the driver's node, which lives as long as the job anyway."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # (Started again it has lost its counts, which costs a few starts more, not the job. It takes
    # nothing large, which Ray would free once it has started.)
    keeper = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Keeper)
    return keeper.options(scheduling_strategy=here).remote(places)


def map_rows(
    cfg: JobConfig,
    rows: list[dict[str, str]],
    actor: type[ModelActor],
    settings: Any,
    files: dict[str, bytes],
    load_engine: LoadEngine,
    places: int = 0,
) -> ray.data.Dataset:
    """The lazy pipeline: rows, one video each, through a pool of `actor`s; what they return.

    `places`: how many videos can claim one from the keeper.
    """
    pool = plan_pool(cfg, ray.cluster_resources(), len(rows))
    # One video per block, so that no video waits in an actor's queue while another actor is idle.
    source = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS))
    keeper = start_keeper(places)
    return map_actors(source, actor, pool, keeper, files, settings, load_engine)


def map_actors(
    source: ray.data.Dataset,
    actor: type[ModelActor],
    pool: ActorPool,
    keeper: ActorHandle,
    files: dict[str, bytes],
    settings: Any,
    load_engine: LoadEngine,
) -> ray.data.Dataset:
    """The rows of a dataset through a pool of `actor`s.

    (Whenever they start, they find the model's files on the driver's node.)
    """
    return source.map(
        actor,
        fn_constructor_kwargs={
            "keeper": keeper,
            "files": ray.put(files),
            "settings": settings,
            "load_engine": load_engine,
            "threads": pool.threads,
        },
        **pool.map_options(),
    )
