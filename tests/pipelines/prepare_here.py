"""`prepare` without a cluster."""

from __future__ import annotations

from pathlib import Path

from pipelines import prepare as module
from pipelines.data_config import DataConfig
from pipelines.manifest import Manifest, probe_video
from pipelines.prepare import pack, prepare

SMALL = 40  # frames per shard


def prepare_here(cfg: DataConfig, folder: Path, monkeypatch, **options):
    """`prepare` with its tasks run in this process, and small shards."""

    def ended():
        raise ray.exceptions.WorkerCrashedError

    class Task:
        def __init__(self, function):
            self.function = function

        def options(self, **_):
            return self

        def remote(self, *arguments):
            return Done(self.function, arguments)

    class Done:
        def __init__(self, function, arguments):
            self.value = lambda: function(*arguments)

    import ray

    monkeypatch.setattr(ray, "remote", lambda *function, **_: Task(*function) if function else Task)
    monkeypatch.setattr(module, "end_process", ended)
    monkeypatch.setattr(module, "check_memory", lambda needed: None)
    monkeypatch.setattr(ray, "get", lambda done: done.value())
    monkeypatch.setattr(module, "pack", lambda videos: pack(videos, SMALL))
    found = [probe_video(str(path)) for path in sorted(Path(cfg.videos).iterdir())]
    monkeypatch.setattr(module, "find_footage", lambda cfg: Manifest(tuple(found)))
    return prepare_with_tasks_here(cfg, str(folder), **options)


def prepare_with_tasks_here(cfg: DataConfig, folder: str, **options):
    return prepare(cfg, folder, say=lambda line: None, **options)
