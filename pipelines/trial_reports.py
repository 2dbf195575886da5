"""Scores that trials report on the way, and the driver's word on whether to go on.

Trials are Ray tasks and the study is with the driver, so an actor stands between: a trial asks it
with its score and waits; the driver takes what was asked, has the pruner judge, and answers.
Where the actor is lost, trials go on to their ends: they can no longer be pruned.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

logger = logging.getLogger(__name__)


class PrunedError(RuntimeError):
    """A trial was told to stop: its scores so far promise too little."""


class Score(NamedTuple):
    """What a trial reported after a number of its training steps; higher is better."""

    trial: int
    step: int
    value: float


class Board:
    """The driver's side; `reporter` makes a trial's. Needs a connected Ray; `close` it."""

    def __init__(self) -> None:
        # Beside the driver: other nodes come and go.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()

    def reporter(self, trial: int) -> Reporter:
        return Reporter(self._actor, trial)

    def take(self) -> ray.ObjectRef:
        """Of a list of Scores, which is ready as soon as any trial waits for an answer."""
        return self._actor.take.remote()

    def scores(self, taken: ray.ObjectRef) -> list[Score] | None:
        """What was asked; None once the actor is lost, and then there is nothing more to take."""
        try:
            return ray.get(taken)
        except ray.exceptions.RayActorError as error:
            logger.warning("trials are not pruned: %s", str(error).strip().splitlines()[0])
            return None

    def answer(self, score: Score, prune: bool) -> None:
        """Let the trial that reported it go on, or end it."""
        self._actor.answer.remote(score.trial, score.step, prune)

    def close(self) -> None:
        ray.kill(self._actor)


class Reporter:
    """A trial's side, callable in any process of the cluster."""

    def __init__(self, actor, trial: int) -> None:
        self._actor, self._trial = actor, trial

    def __call__(self, step: int, value: float) -> None:
        """Report a score. Raises PrunedError if the trial is to end."""
        try:
            prune = ray.get(self._actor.ask.remote(self._trial, step, float(value)))
        except ray.exceptions.RayActorError:
            return  # (the driver tells it, once)
        if prune:
            raise PrunedError(f"pruned after {step} steps, at {value:.4g}")


class _Board:
    def __init__(self) -> None:
        self._asked: asyncio.Queue[Score] = asyncio.Queue()
        self._answers: dict[tuple[int, int], asyncio.Future[bool]] = {}

    async def ask(self, trial: int, step: int, value: float) -> bool:
        # (A trial whose worker died is run again, and asks again.)
        answer = self._answers[trial, step] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait(Score(trial, step, value))
        return await answer

    async def take(self) -> list[Score]:
        scores = [await self._asked.get()]
        while not self._asked.empty():
            scores.append(self._asked.get_nowait())
        return scores

    async def answer(self, trial: int, step: int, prune: bool) -> None:
        waiting = self._answers.pop((trial, step), None)
        if waiting is not None and not waiting.done():
            waiting.set_result(prune)

    async def pid(self) -> int:
        return os.getpid()
