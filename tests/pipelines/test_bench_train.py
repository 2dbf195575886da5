"""The benchmark's parts (the whole: `make bench-train`)."""

from __future__ import annotations

import asyncio

from pipelines import bench_train
from pipelines.bench_train import BareLoop, make_task, speed

SMALL = ["--size", "tiny", "--side", "32", "--frames", "2", "--steps", "2"]


def test_a_bare_loop_trains():
    options = bench_train._parser().parse_args(SMALL)
    loop = BareLoop(make_task(options, "/nowhere", 1))
    before = {key: value.clone() for key, value in loop.stage.network.state_dict().items()}
    assert loop.run(2) > 0 and loop.stage.steps == 2
    after = loop.stage.network.state_dict()
    assert any((after[key] != value).any() for key, value in before.items())


def test_flops_are_counted_and_grow_with_the_picture():
    def flops(side: str) -> float:
        options = bench_train._parser().parse_args([*SMALL, "--side", side, "--steps", "1"])
        text = speed(options, "float32")
        assert text.startswith("float32: ") and "TFLOP/s" in text
        return float(text.split(" steps/s, ")[1].split()[0])

    assert 0 < 3 * flops("32") < flops("64")


def test_turns_are_taken_one_after_the_other():
    async def play() -> list[str]:
        turns, order = bench_train._Turns(), []

        async def stage() -> None:
            for number in range(3):
                await turns.next()
                order.append(f"stage {number}")

        worker = asyncio.create_task(stage())
        for number in range(2):
            assert await turns.run() > 0
            order.append(f"turn {number} over")
        await turns.finish()
        await worker
        return order

    assert asyncio.run(play()) == [
        "stage 0", "turn 0 over", "stage 1", "turn 1 over", "stage 2",
    ]  # fmt: skip


def test_one_that_fails_does_not_keep_the_others_from_being_measured(monkeypatch, capsys):
    def measured(options, precision: str) -> str:
        if precision == "bfloat16+compile":
            raise RuntimeError("no compiler\nmore of it")
        return f"{precision}: measured"

    monkeypatch.setattr(bench_train, "speed", measured)
    monkeypatch.setattr(bench_train, "compare", lambda *_: ([1.0], [1.0], 0.1))
    assert bench_train.main([*SMALL, "--precisions", "bfloat16+compile,float32"]) == 0
    told = capsys.readouterr().out
    assert "bfloat16+compile: failed: no compiler\nfloat32: measured\n" in told


def test_what_is_measured_is_what_is_named():
    options = bench_train._parser().parse_args(SMALL)
    sections = {
        name: make_task(options, "/nowhere", 1, name).stage
        for name in ("float32", "bfloat16", "bfloat16+compile")
    }
    told = {name: (s.mixed_precision, s.compile) for name, s in sections.items()}
    assert told == {
        "float32": (False, False),
        "bfloat16": (True, False),
        "bfloat16+compile": (True, True),
    }
