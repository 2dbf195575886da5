"""A check is on other footage, found as training finds it, and from seeds not yet used."""

from __future__ import annotations

import os
import shutil
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines import tune_check
from pipelines.config import JobConfig
from pipelines.manifest import Manifest, VideoRow
from pipelines.storage import VIDEO_SUFFIXES
from pipelines.trial import TrialError
from pipelines.tune_check import check_best, other_footage


def config(videos: Path, tmp_path: Path, **data) -> JobConfig:
    stage = {"learning_rate": 2e-3}
    size = {"height": 32, "width": 32, "references": 1}
    return JobConfig.parse(
        {
            "data": {"videos": str(videos), **size, **data},
            "model": {"size": "tiny"},
            "stages": {"im2im": stage, "inpainter": stage},
            "cluster": {"storage": str(tmp_path / "runs"), "use_gpu": False},
            "tune": {"steps": 1, "clips": 1, "seeds": 2},
        }
    )


def listed(*uris: Path) -> Manifest:
    return Manifest(tuple(VideoRow(str(uri), 12, 48, 64, Fraction(24)) for uri in uris))


@pytest.fixture
def found(monkeypatch):
    """What `find_footage` is asked for; it lists files and folders without opening them."""
    asked = []

    def find(cfg) -> Manifest:
        asked.append(cfg)
        folder = Path(cfg.videos)
        return listed(*sorted(p for p in folder.iterdir() if p.suffix in VIDEO_SUFFIXES))

    monkeypatch.setattr(tune_check, "find_footage", find)
    return asked


def copies(video_folder: Path, target: Path, **names: str) -> Path:
    target.mkdir()
    for name, new in names.items():
        shutil.copy(video_folder / f"{name}.mp4", target / f"{new}.mp4")
    return target


def test_videos_of_the_search_are_refused_by_address(found, video_folder: Path, tmp_path: Path):
    cfg = config(video_folder, tmp_path)
    searched = listed(video_folder / "a.mp4", video_folder / "c.mp4")
    with pytest.raises(TrialError, match=r"2 of its 5 videos .*a\.mp4, .*c\.mp4\)"):
        other_footage(cfg, searched, str(video_folder))


def test_copies_are_refused_and_namesakes_are_not(found, video_folder: Path, tmp_path: Path):
    cfg = config(video_folder, tmp_path)
    searched = listed(video_folder / "a.mp4", video_folder / "b.mp4", tmp_path / "gone.mp4")
    others = copies(video_folder, tmp_path / "others", d="a", c="c")
    assert len(other_footage(cfg, searched, str(others)).videos) == 2
    shutil.copy(video_folder / "b.mp4", others)
    with pytest.raises(TrialError, match=r"1 of its 3 videos .*others/b\.mp4\)"):
        other_footage(cfg, searched, str(others))


def test_other_footage_is_read_from_where_it_is(found, video_folder: Path, tmp_path: Path):
    """Not from the folder that the search's footage was prepared in, nor with its layout."""
    cfg = config(video_folder, tmp_path, prepared="/prepared", layout="davis", images="/pictures")
    other_footage(cfg, listed(tmp_path / "gone.mp4"), str(video_folder))
    (asked,) = found
    assert (asked.videos, asked.layout) == (str(video_folder), "auto")
    assert asked.prepared is None and asked.images is None and asked.height == 32


def test_no_seed_is_an_error_before_anything_is_trained(video_folder: Path, tmp_path: Path):
    with pytest.raises(TrialError, match="at least one seed, not 0"):
        check_best(config(video_folder, tmp_path), {}, listed(), listed(), 0)


@pytest.mark.cluster
def test_masks_of_a_data_set_are_no_footage(ray_cluster, tmp_path: Path, video_folder: Path):
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    for kind in ("JPEGImages", "Annotations"):
        folder = tmp_path / "davis" / kind / "480p" / "dog"
        folder.mkdir(parents=True)
        for number in range(4):
            suffix = "jpg" if kind == "JPEGImages" else "png"
            cv2.imwrite(str(folder / f"{number:05}.{suffix}"), np.roll(picture, number, 1))
    cfg = config(video_folder, tmp_path)
    found = other_footage(cfg, listed(video_folder / "a.mp4"), str(tmp_path / "davis"))
    assert [Path(v.uri).parts[-3:] for v in found.videos] == [("JPEGImages", "480p", "dog")]


@pytest.mark.cluster
def test_a_training_whose_process_dies_is_told_in_words(
    ray_cluster, video_folder: Path, tmp_path: Path, monkeypatch
):
    options = {"num_cpus": 0, "max_retries": 0}
    monkeypatch.setattr(tune_check, "trial_options", lambda cfg: options)
    monkeypatch.setattr(tune_check, "prepare_trials", lambda *_: None)
    monkeypatch.setattr(tune_check, "_decode", lambda *_: ())
    monkeypatch.setattr(tune_check, "_score", lambda *_: os.abort())
    rows = listed(video_folder / "a.mp4")
    with pytest.raises(TrialError, match=r"the check failed: .*died"):
        check_best(config(video_folder, tmp_path), {}, rows, rows, 1)


@pytest.mark.cluster
def test_both_sides_are_trained_from_every_seed(ray_cluster, video_folder: Path, tmp_path: Path):
    cfg = config(video_folder, tmp_path)
    searched = listed(*(video_folder / f"{name}.mp4" for name in "abc"))
    others = listed(video_folder / "d.mp4")
    seen = []
    same = {"delta": cfg.losses.delta}
    check = check_best(cfg, same, searched, others, 2, lambda *row: seen.append(row))
    assert [seed for seed, *_ in seen] == [cfg.seed + 2, cfg.seed + 3]
    assert check.gains == (0.0, 0.0), "the same weights, start, clips and seed"
    assert len(set(check.configured)) == 2, "another seed is another training"
    assert check.videos == 1 and "+0.00, +0.00" in check.text()
