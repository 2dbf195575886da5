"""A whole bucket, good and bad videos together: right outputs, named failures, safe reruns."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from mlflow import MlflowClient

from cssta.video import open_source, read_frames, write_video
from pipelines.actors import model_digest, pack_model
from pipelines.batch import BatchSummary, assemble_task, complete_bucket
from pipelines.batch_lease import LeaseError
from pipelines.batch_plan import plan_batch
from pipelines.batch_record import ModelIdentity
from pipelines.config import JobConfig
from pipelines.registry import aliases, register
from pipelines.storage import write_bytes
from pipelines.tracking import JobRun
from tests.pipelines import one_process
from tests.pipelines.fake_engines import load_grey
from tests.pipelines.one_process import NO_LIMITS

pytestmark = pytest.mark.cluster


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "config.yaml").write_text("format: 1")
    return folder


def make_config(tmp_path: Path, **inference) -> JobConfig:
    inference = {
        "videos": str(tmp_path / "in"),
        "output": str(tmp_path / "out"),
        "actors": 2,
        "limits": NO_LIMITS,
        **inference,
    }
    return JobConfig.parse(
        {
            "data": {"videos": str(tmp_path)},
            "cluster": {"storage": str(tmp_path / "runs")},
            "inference": inference,
        }
    )


def clip(frames: int = 6, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth moving picture, uint8 (T, H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [
            np.stack([(x * 3 + t * 4) % 256, (y * 4) % 256, np.full_like(x, 40 * (t % 5))], -1)
            for t in range(frames)
        ]
    ).astype(np.uint8)


def write_mask(path: Path, height: int = 48, width: int = 64, hole: slice = slice(10, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((height, width), np.uint8)
    mask[hole, hole] = 255
    cv2.imwrite(str(path), mask)


def write_audio_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def by_name(summary: BatchSummary) -> dict:
    return {outcome.name: outcome for outcome in summary.outcomes}


def check_output(path: Path, source: Path) -> np.ndarray:
    """Size, length and times of the source; returns the frames."""
    wanted, found = open_source(source).info, open_source(path).info
    assert (found.frames, found.height, found.width) == (wanted.frames, wanted.height, wanted.width)
    times = [[time * info.time_base for time in info.pts] for info in (wanted, found)]
    assert times[0] == times[1]
    frames = read_frames(path)
    assert len(frames) == wanted.frames
    return frames


def partial_files(folder: Path) -> list[str]:
    """Whatever is neither an output, a record, a sheet nor what tells of the batch."""
    known = (".mp4", ".mp4.json", ".mp4.png", "batch-summary.json", "batch-report.html",
             "batch-ledger.parquet")  # fmt: skip
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(f) for f in files if not f.name.endswith(known) or f.name.startswith(".")]


def test_one_bucket_of_good_and_bad_videos(ray_cluster, tmp_path: Path, model: Path):
    source, masks = tmp_path / "in", tmp_path / "masks"
    sizes = {
        "plain.mp4": (6, 48, 64, 24),
        "sub/plain.mp4": (5, 48, 64, 25),
        "one-frame.mp4": (1, 48, 64, 24),
        "odd.mp4": (5, 47, 63, 30),
        "rate.mov.mp4": (7, 48, 64, Fraction(30000, 1001)),
        "no-hole.mp4": (4, 48, 64, 24),
        "all-hole.mp4": (4, 48, 64, 24),
        "name with # % é.mp4": (4, 48, 64, 24),
        "kills.mp4": (4, 50, 64, 24),
        "fails.mp4": (4, 54, 64, 24),
        "mask-too-short.mp4": (6, 48, 64, 24),
        "mask-other-shape.mp4": (6, 48, 64, 24),
        "mask-missing.mp4": (4, 48, 64, 24),
    }
    for name, (frames, height, width, fps) in sizes.items():
        write_video(source / name, clip(frames, height, width), fps)
        write_mask(masks / Path(name).with_suffix(".png"), height, width)
    write_mask(masks / "no-hole.png", hole=slice(0, 0))
    write_mask(masks / "all-hole.png", hole=slice(None))
    write_mask(masks / "mask-other-shape.png", 64, 48)
    for name in ("mask-too-short.png", "mask-missing.png"):
        (masks / name).unlink()
    write_video(masks / "mask-too-short.mp4", np.zeros((5, 48, 64, 3), np.uint8), 24)
    (source / "text.mp4").write_text("this is no video")
    (source / "empty.mp4").write_bytes(b"")
    write_audio_only(source / "audio.mp4")
    for name in ("text", "empty", "audio"):
        write_mask(masks / f"{name}.png")

    seen = []
    scratch = tmp_path / "scratch"
    summary = complete_bucket(
        make_config(tmp_path, masks=str(masks), scratch=str(scratch)),
        model,
        load_engine=load_grey,
        on_video=lambda *event: seen.append(event),
    )
    assert scratch.is_dir() and not list(scratch.iterdir()), "a killed actor's folder remains"
    outcomes = by_name(summary)
    assert len(outcomes) == len(summary.outcomes) == len(seen) == 16
    failures = {name: o.reason for name, o in outcomes.items() if o.status == "failed"}
    assert failures.keys() == {
        "kills.mp4", "fails.mp4", "mask-too-short.mp4", "mask-other-shape.mp4",
        "mask-missing.mp4", "text.mp4", "empty.mp4", "audio.mp4",
    }  # fmt: skip
    assert failures["kills.mp4"] == "crashed"
    assert failures["fails.mp4"] == "unexpected"
    assert failures["mask-too-short.mp4"] == "mask-length"
    assert failures["mask-other-shape.mp4"] == "mask-size"
    assert failures["mask-missing.mp4"] == "mask-missing"
    assert failures["empty.mp4"] == "empty"
    text = summary.text()
    assert "16 videos: 8 done" in text and "8 failed" in text
    assert f"model: {model}\n" in text
    # (the first by name fail)
    assert len(summary.sheets) == 4 and all(Path(sheet).is_file() for sheet in summary.sheets)
    for name in failures:
        assert name in text
        assert outcomes[name].message
        assert not (tmp_path / "out" / name).exists()

    for name, outcome in outcomes.items():
        if outcome.status == "failed":
            continue
        frames = check_output(tmp_path / "out" / name, source / name)
        truth = clip(*sizes[name][:3]).astype(int)
        hole = np.zeros(frames.shape[1:3], bool)
        if name != "no-hole.mp4":
            hole[10:30, 10:30] = True
        if name == "all-hole.mp4":
            hole[:] = True
        # (h264 is lossy, so means rather than pixels; edges of the hole bleed)
        inside = cv2.erode(hole.astype(np.uint8), np.ones((5, 5))).astype(bool)
        outside = ~cv2.dilate(hole.astype(np.uint8), np.ones((9, 9))).astype(bool)
        if inside.any():
            assert abs(frames[:, inside].astype(int) - 90).mean() < 4, name
        if outside.any():
            assert abs(frames[:, outside] - truth[:, outside]).mean() < 12, name
        assert outcome.hole_ratio == pytest.approx(hole.mean(), abs=0.01)
    assert outcomes["no-hole.mp4"].reason == "no-hole"
    assert outcomes["all-hole.mp4"].reason == "full-frame-hole"
    # Of what may be well the next time (a process that died, or the engine's error, whose input is
    # not at fault) the work so far is kept.
    kept = partial_files(tmp_path / "out/_work")
    assert len(kept) == 2 and all(file.endswith("survey.json") for file in kept)
    records = sorted((tmp_path / "out/_quarantine").rglob("*.json"))
    assert {path.name.removesuffix(".json") for path in records} == failures.keys()
    for path in records:
        record = json.loads(path.read_text())
        assert (record["reason"], record["attempts"]) == (failures[record["name"]], 1)
        assert record["task"]["video"] == str(source / record["name"])

    content = json.loads((tmp_path / "out/batch-summary.json").read_text())
    assert content["counts"] == {"done": 8, "review": 0, "skipped": 0, "failed": 8}


def test_rerun_takes_what_is_there_and_redoes_what_changed(
    ray_cluster, tmp_path: Path, model: Path
):
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"in/{name}.mp4", clip(), 24)
    cfg = make_config(tmp_path)
    first = complete_bucket(cfg, model, load_engine=load_grey)
    assert first.count("done") == 3
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.mp4")}

    write_video(tmp_path / "in/b.mp4", clip(9), 24)
    second = complete_bucket(cfg, model, load_engine=load_grey)
    statuses = {name: outcome.status for name, outcome in by_name(second).items()}
    assert statuses == {"a.mp4": "skipped", "b.mp4": "done", "c.mp4": "skipped"}
    check_output(tmp_path / "out/b.mp4", tmp_path / "in/b.mp4")
    changed = {p.name for p, time in written.items() if p.stat().st_mtime_ns != time}
    assert changed == {"b.mp4"}
    # What was measured then is still told now.
    assert by_name(second)["a.mp4"].psnr == by_name(first)["a.mp4"].psnr


def test_drawn_masks_are_scored_and_shown_with_the_truth(ray_cluster, tmp_path: Path, model: Path):
    for name in "abcdef":
        write_video(tmp_path / f"in/{name}.mp4", clip(21, 64, 80), 24)
    cfg = make_config(tmp_path)
    summary = complete_bucket(cfg, model, load_engine=load_grey)
    assert summary.count("done") == 6
    for outcome in summary.outcomes:
        assert 5 < outcome.hole_psnr < outcome.psnr < 50
        assert 0 < outcome.ssim < 1
        assert 0.03 < outcome.hole_ratio < 0.4
    assert len({outcome.hole_ratio for outcome in summary.outcomes}) == 6, "masks are all alike"
    assert len(summary.sheets) == 4
    sheet = cv2.imread(summary.sheets[0])
    assert sheet.shape[0] >= 4 * 64 and sheet.shape[1] >= 3 * 80  # four rows, frames 0, 10 and 20


def test_a_batch_keeps_the_version_that_its_alias_led_to_at_its_start(
    ray_cluster, tiny_model: Path, mlflow_uri: str, tmp_path: Path, monkeypatch
):
    """Another model is promoted before the first video is begun; a real one, from a registry."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cfg = make_config(tmp_path)
    cfg = cfg.model_copy(update={"tracking": cfg.tracking.model_copy(update={"uri": mlflow_uri})})
    later = shutil.copytree(tiny_model, tmp_path / "later")
    (later / "README.md").write_text("other weights")
    run = JobRun.start(cfg).run_id
    champion = dict(name="cssta", alias="champion", run_id=run, tracking_uri=mlflow_uri)
    first, second = register(tiny_model, **champion), register(later, **champion)
    write_video(tmp_path / "in/a.mp4", clip(5, 45, 61), 24)
    write_video(tmp_path / "in/one.mp4", clip(1), 24)
    (tmp_path / "in/no.video").write_text("what fails before any work begins")

    def promote(*event) -> None:
        client = MlflowClient(mlflow_uri, mlflow_uri)
        client.set_registered_model_alias("cssta", "champion", second.version)

    summary = complete_bucket(cfg, on_video=promote)
    assert aliases(second, mlflow_uri) == ["candidate", "champion"]
    assert summary.outcomes[1].name == "no.video" and summary.count("done") == 2, summary.text()
    check_output(tmp_path / "out/a.mp4", tmp_path / "in/a.mp4")
    pinned = ModelIdentity(
        "models:/cssta@champion", first.uri, model_digest(pack_model(tiny_model))
    )
    assert summary.model == pinned
    for name in ("a", "one"):
        record = json.loads((tmp_path / f"out/{name}.mp4.json").read_text())
        assert record["model"] == vars(pinned)
        assert record["identity"]["model"] == pinned.digest


def test_on_real_footage(ray_cluster, shared_dir: Path, tmp_path: Path, model: Path):
    clips = sorted((shared_dir / "clips").glob("*.mp4"), key=lambda path: path.stat().st_size)
    (tmp_path / "in").mkdir()
    shutil.copy(clips[0], tmp_path / "in" / clips[0].name)
    summary = complete_bucket(make_config(tmp_path), model, load_engine=load_grey)
    assert summary.count("done") == 1, summary.text()
    for outcome in summary.outcomes:
        check_output(Path(outcome.output), Path(outcome.video))


def test_a_lease_that_was_lost_ends_the_batch_and_no_video(ray_cluster, tmp_path: Path):
    """Seen by an assembler, on whatever node; its driver gets it as what it is."""
    write_video(tmp_path / "in/a.mp4", clip(), 24)
    cfg = one_process.config(tmp_path)
    (task,) = plan_batch(cfg, one_process.MODEL).tasks
    settings = replace(one_process.settings_of(cfg), lease="ours")
    one_process.complete_parts(task, settings)
    write_bytes(b'{"token": "theirs"}', f"{task.root}/_work/lease/driver.json")
    with pytest.raises(LeaseError, match="has taken over"):
        ray_cluster.get(ray_cluster.remote(assemble_task).remote(task, settings))
    assert not Path(task.output).exists()
