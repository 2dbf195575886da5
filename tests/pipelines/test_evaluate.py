"""Evaluation: the same holes every time, right means, a baseline beside, bad videos named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cssta.metrics import score_clip
from cssta.video import probe
from pipelines.actors import ModelFolderError
from pipelines.clip_loading import load_clip
from pipelines.config import JobConfig
from pipelines.eval_summary import METHODS, METRICS, ClipScore, EvalSummary
from pipelines.evaluate import evaluate_model, plan_evaluation, score_video
from pipelines.manifest import Manifest, Rejected, VideoRow


class Grey:
    """An engine that fills holes with grey, and keeps what it was given."""

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        self.frames, self.masks = frames.copy(), masks.copy()
        return np.where(masks[..., None], np.uint8(90), frames)


def make_config(videos: Path, **sections) -> JobConfig:
    return JobConfig.parse(
        {
            "data": {"videos": str(videos), "height": 48, "width": 64},
            "evaluate": {"videos": str(videos), "max_frames": 8},
            **sections,
        }
    )


def manifest_of(folder: Path) -> Manifest:
    infos = [probe(path) for path in sorted(folder.glob("*.mp4"))]
    return Manifest(tuple(VideoRow(str(i.path), i.frames, i.height, i.width, i.fps) for i in infos))


def test_plan_is_by_seed_and_name(video_folder: Path, tmp_path: Path):
    cfg = make_config(video_folder)
    manifest = manifest_of(video_folder)
    rows = plan_evaluation(cfg, manifest)
    assert [Path(row.uri).name for row in rows] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4"]
    assert all(row.indices == tuple(range(8)) for row in rows)
    assert len({row.mask_seed for row in rows}) == 5
    elsewhere = Manifest(
        tuple(
            VideoRow(f"s3://b/{Path(v.uri).name}", v.frames, v.height, v.width, v.fps)
            for v in manifest.videos
        )
    )
    moved = plan_evaluation(cfg, elsewhere)
    assert [row.mask_seed for row in moved] == [row.mask_seed for row in rows]
    other = make_config(video_folder, seed=1)
    assert plan_evaluation(other, manifest)[0].mask_seed != rows[0].mask_seed

    few = make_config(video_folder, evaluate={"clips": 3})
    assert [Path(r.uri).name for r in plan_evaluation(few, manifest)] == ["a.mp4", "c.mp4", "e.mp4"]


def test_object_masks_come_from_other_videos(video_folder: Path):
    masks = {"kind": "mixed", "objects": "/objects"}
    cfg = JobConfig.parse({"data": {"videos": str(video_folder), "masks": masks}})
    rows = plan_evaluation(cfg, manifest_of(video_folder), ["/objects/b", "/objects/z"])
    assert [row.objects is None for row in rows] == [True, False, True, False, True]
    assert rows[1].objects == "/objects/z", "the hole must not be the video's own object"


def test_score_of_one_video(video_folder: Path):
    cfg = make_config(video_folder)
    row = plan_evaluation(cfg, manifest_of(video_folder))[0]
    engine = Grey()
    score = score_video(row, cfg.data, engine)
    assert isinstance(score, ClipScore)
    clip = load_clip(row, cfg.data)

    assert (engine.masks == clip["masks"]).all()
    assert (engine.frames[clip["masks"]] == 127).all(), "the engine saw what it had to find"
    assert (engine.frames[~clip["masks"]] == clip["frames"][~clip["masks"]]).all()
    filled = np.where(clip["masks"][..., None], np.uint8(90), clip["frames"])
    expected = score_clip(filled, clip["frames"], clip["masks"])
    for metric in METRICS:
        assert score.scores[f"cssta_{metric}"] == pytest.approx(expected[metric])
    assert score.hole_ratio == pytest.approx(clip["masks"].mean())
    # On a smooth slope a diffusion beats flat grey by far.
    assert score.scores["telea_hole_psnr"] > score.scores["cssta_hole_psnr"] + 5


def test_a_failing_engine_or_file_is_a_named_failure(video_folder: Path, tmp_path: Path):
    class Broken:
        def inpaint(self, frames, masks):
            raise RuntimeError("no memory left")

    cfg = make_config(video_folder)
    row = plan_evaluation(cfg, manifest_of(video_folder))[0]
    failed = score_video(row, cfg.data, Broken())
    assert isinstance(failed, Rejected)
    assert "a.mp4" in failed.message and "no memory left" in failed.message


def summary_of(*scores: ClipScore, failed: tuple[Rejected, ...] = ()) -> EvalSummary:
    return EvalSummary(scores, failed, 48, 64, "freeform", True)


def clip_score(name: str, holes: int, value: float) -> ClipScore:
    scores = {f"{method}_{metric}": value for method in METHODS for metric in METRICS}
    return ClipScore(name, 10, holes, 0.1, 1.0, scores)


def test_means_are_pooled_over_frames_and_over_videos(tmp_path: Path):
    nan = clip_score("c", 0, math.nan)  # no frame with a hole: counts nowhere
    bad = Rejected("d.mp4", "unreadable", "d.mp4: no video")
    summary = summary_of(clip_score("a", 9, 20.0), clip_score("b", 1, 30.0), nan, failed=(bad,))
    metrics = summary.metrics()
    assert metrics["cssta_psnr"] == pytest.approx(21.0)
    assert metrics["video_mean_cssta_psnr"] == pytest.approx(25.0)
    assert (metrics["videos"], metrics["failed"]) == (3, 1)

    as_json, as_markdown = summary.write(tmp_path / "evaluation")
    content = json.loads(as_json.read_text())
    assert "NaN" not in as_json.read_text()
    assert content["metrics"]["telea_ssim"] == pytest.approx(21.0)
    assert content["videos"][0]["video"] == "a"
    table = [line for line in as_markdown.read_text().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1, "ragged table"
    assert len(table) == 2 + 3 + 2
    assert "d.mp4: no video" in as_markdown.read_text()


def test_an_evaluation_without_any_score_still_reports():
    summary = summary_of(failed=(Rejected("d.mp4", "unreadable", "d.mp4: no video"),))
    assert math.isnan(summary.metrics()["cssta_psnr"])
    assert "d.mp4" in summary.markdown()


def test_folder_without_weights_is_refused(video_folder: Path, tmp_path: Path):
    with pytest.raises(ModelFolderError, match=r"safetensors"):
        evaluate_model(make_config(video_folder), tmp_path)


@pytest.mark.cluster
def test_evaluates_a_bucket_with_damaged_files(ray_cluster, damaged_folder, tmp_path: Path):
    def load_engine(folder, device):
        import os

        import numpy

        class Engine:
            def inpaint(self, frames, masks):
                if frames[0, 0, 0, 2] in range(30, 50):  # b.mp4, by its blue
                    os._exit(1)
                return numpy.where(masks[..., None], numpy.uint8(90), frames)

        assert (folder / "weights.safetensors").read_bytes() == b"weights"
        return Engine()

    model = tmp_path / "model"
    model.mkdir()
    (model / "weights.safetensors").write_bytes(b"weights")
    cfg = make_config(damaged_folder, inference={"actors": 2})
    seen = []
    summary = evaluate_model(
        cfg, model, load_engine=load_engine, on_video=lambda *event: seen.append(event)
    )
    assert [score.video for score in summary.videos] == ["a.mp4", "c.mp4", "d.mp4", "e.mp4"]
    assert all(score.holes == score.frames == 8 for score in summary.videos)
    reasons = {Path(bad.uri).name: bad.reason for bad in summary.failed}
    assert set(reasons) == {"b.mp4", "text.mp4", "nothing.mp4", "beginning.mp4", "noise.mov"}
    assert reasons["b.mp4"] == "crashed"
    assert [(position, total) for _, position, total in seen] == [(i, 5) for i in range(1, 6)]
    assert summary.held_out


@pytest.mark.cluster
def test_held_out_videos_are_those_of_training(ray_cluster, video_folder, tmp_path: Path):
    from pipelines.evaluate import held_out_videos
    from pipelines.manifest import build_manifest, split
    from pipelines.storage import list_videos

    cfg = JobConfig.parse({"data": {"videos": str(video_folder), "validation_fraction": 0.4}})
    manifest, held_out = held_out_videos(cfg)
    training, _ = split(build_manifest(list_videos(str(video_folder))), 0.4, cfg.seed)
    assert held_out and len(manifest.videos) == 2
    assert not set(manifest.videos) & set(training.videos)
    none = JobConfig.parse({"data": {"videos": str(video_folder), "validation_fraction": 0}})
    manifest, held_out = held_out_videos(none)
    assert not held_out and len(manifest.videos) == 5
