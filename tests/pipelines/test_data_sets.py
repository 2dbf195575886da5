"""Data sets are known by their folders, and what is not laid out right says how to lay it out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipelines import storage
from pipelines.clip_loading import clip_masks, load_clip, load_clips
from pipelines.clip_plan import ClipPlan, ClipRow
from pipelines.data_config import DataConfig, MasksConfig
from pipelines.data_sets import find_data_set, find_images, object_sequences
from pipelines.footage import find_footage
from pipelines.manifest import Manifest, VideoRow, probe_video
from pipelines.storage import EmptyBucketError, StorageError


def put(root: Path, *names: str) -> Path:
    """Pictures of 24 x 32 whose brightness is the number in their name."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digits = "".join(filter(str.isdigit, path.stem)) or "0"
        cv2.imwrite(str(path), np.full((24, 32, 3), int(digits) % 256, np.uint8))
    return root


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    names = [f"{seq}/{n:05}" for seq in ("bear", "dog") for n in range(9)]
    return put(
        tmp_path / "DAVIS",
        *(f"JPEGImages/480p/{name}.jpg" for name in names),
        *(f"Annotations/480p/{name}.png" for name in names),
        "JPEGImages/Full-Resolution/bear/00000.jpg",
    )


@pytest.fixture
def youtube_vos(tmp_path: Path) -> Path:
    """Every fifth frame, as in its train.zip, beside which its valid.zip was unpacked."""
    names = [f"{video}/{n:05}" for video in ("003234408d", "0043f083b5") for n in (0, 5, 10, 15)]
    root = put(
        tmp_path / "vos",
        *(f"train/JPEGImages/{name}.jpg" for name in names),
        *(f"train/Annotations/{name}.png" for name in names),
        "valid/JPEGImages/00f88c4f0a/00000.jpg",
    )
    (root / "train" / "meta.json").write_text("{}")
    return root


def config(videos: Path | str, **values) -> DataConfig:
    return DataConfig(videos=str(videos), height=16, width=16, references=2, **values)


def names(videos) -> list[str]:
    return [storage.stem(video.uri) for video in videos]


def test_davis_is_its_480p_frames_and_not_its_annotations(davis: Path):
    found = find_data_set(config(davis))
    assert (found.layout, names(found.videos)) == ("davis", ["bear", "dog"])
    assert found.annotations == f"{davis}/Annotations/480p"
    objects = object_sequences(config(davis, layout="davis", masks=MasksConfig(kind="objects")))
    assert objects == [f"{davis}/Annotations/480p/{name}" for name in ("bear", "dog")]


def test_youtube_vos_by_its_root_or_its_training_part(youtube_vos: Path):
    for folder in (youtube_vos, youtube_vos / "train"):
        found = find_data_set(config(folder))
        assert found.layout == "youtube-vos"
        assert names(found.videos) == ["003234408d", "0043f083b5"]
        assert found.annotations == f"{youtube_vos}/train/Annotations"
    row = probe_video(found.videos[0].uri)
    assert (row.frames, row.height, row.width) == (4, 24, 32)
    clip = load_clip(ClipRow(0, row.uri, (3, 0, 1), False, 0, 0, 1, None), config(youtube_vos))
    assert np.abs(clip["frames"].mean((1, 2, 3)) - [15, 0, 5]).max() < 2


def test_plain_buckets_are_videos(video_folder: Path, tmp_path: Path):
    assert names(find_data_set(config(video_folder)).videos) == list("abcde")
    folders = put(tmp_path / "frames", "x/0.png", "x/1.png", "deep/y/0.png")
    found = find_data_set(config(folders))
    assert (found.layout, sorted(names(found.videos)), found.annotations) == (
        "videos",
        ["x", "y"],
        None,
    )


def test_what_is_laid_out_wrong_says_what_is_right(davis: Path, tmp_path: Path):
    for layout, words in (("davis", "JPEGImages/480p/SEQUENCE"), ("youtube-vos", r"train\.zip")):
        with pytest.raises(EmptyBucketError, match=f"holds no JPEGImages.*{words}"):
            find_data_set(config(davis / "JPEGImages" / "480p", layout=layout))
    with pytest.raises(StorageError, match=r"looks like davis\. YouTube-VOS: register"):
        find_data_set(config(davis, layout="youtube-vos"))
    (tmp_path / "empty" / "JPEGImages").mkdir(parents=True)
    with pytest.raises(EmptyBucketError, match=r"holds no frames.*youtube-vos\.org"):
        find_data_set(config(tmp_path / "empty"))
    put(tmp_path / "bare", "JPEGImages/480p/bear/00000.jpg")
    bare = config(tmp_path / "bare", layout="davis", masks=MasksConfig(kind="mixed"))
    with pytest.raises(EmptyBucketError, match=r"holds no Annotations.*data\.masks\.objects"):
        object_sequences(bare)
    with pytest.raises(EmptyBucketError, match=r"nowhere: does not exist.*Places2"):
        find_footage(config(davis, images=str(tmp_path / "nowhere")))
    (tmp_path / "no-pictures").mkdir()
    with pytest.raises(EmptyBucketError, match=r"no pictures.*places365standard\.tar"):
        find_images(config(davis, images=str(tmp_path / "no-pictures")))


def test_object_sequences_are_listed_only_when_asked_for(davis: Path, tmp_path: Path):
    other = put(tmp_path / "objects", "480p/cat/00000.png", "480p/cow/0.png")
    masks = MasksConfig(kind="objects", objects=str(other))
    assert object_sequences(config(davis, masks=masks)) == [
        f"{other}/480p/cat",
        f"{other}/480p/cow",
    ]
    assert object_sequences(config(davis, masks=MasksConfig(objects=str(other)))) == []


def test_over_a_picture_a_camera_moves(tmp_path: Path):
    rng = np.random.default_rng(0)
    pictures = tmp_path / "places"
    for name in ("a/airfield/1.jpg", "a/alley/1.jpg", "b/2.png"):
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        noise = cv2.resize(rng.integers(0, 255, (9, 12, 3), np.uint8), (96, 72))
        cv2.imwrite(str(pictures / name), noise)
    cfg = DataConfig(
        videos="/v", images=str(pictures), height=32, width=48, references=3, clips_per_epoch=9
    )
    found = find_images(cfg)
    assert [storage.name(video.uri) for video in found.videos] == ["1.jpg", "1.jpg", "2.png"]
    rows = ClipPlan(found, cfg, 0).rows(0, 9)
    clips = [clip["frames"] for _, clip in load_clips(rows, cfg)]
    for row, frames in zip(rows, clips, strict=True):
        assert frames.shape == (4, 32, 48, 3) and frames.dtype == np.uint8
        steps = np.abs(np.diff(frames.astype(int), axis=0)).mean((1, 2, 3))
        assert (steps > 0.1).all() and steps.max() < 60  # it moves, and does not jump
        np.testing.assert_array_equal(load_clip(row, cfg)["frames"], frames)
    assert len({frames.tobytes() for frames in clips}) == 9
    (pictures / "b" / "2.png").write_text("no picture")
    failed = []
    good = next(row for row in rows if not row.uri.endswith("png"))
    bad = next(row for row in rows if row.uri.endswith("png"))
    assert [used for used, _ in load_clips([bad], cfg, failed.append, lambda _: [good])] == [good]
    assert "2.png: is no picture" in failed[0].message


def test_frames_in_a_bucket_come_one_by_one(davis: Path, s3_bucket, s3_server, monkeypatch):
    for path in davis.rglob("480p/dog/*"):
        storage.publish(path, f"{s3_bucket}/{path.relative_to(davis)}", s3_server)
    cfg = config(s3_bucket, layout="davis", masks=MasksConfig(kind="objects"))
    cfg = cfg.model_copy(update={"s3_endpoint": s3_server})
    (video,) = find_data_set(cfg).videos
    read = []
    plain = storage.read_bytes
    monkeypatch.setattr(
        storage, "read_bytes", lambda uri, *rest: read.append(uri) or plain(uri, *rest)
    )
    row = ClipRow(0, video.uri, (8, 2, 5), False, 0, 0, 1, None)
    clip = load_clip(row, cfg)
    assert np.abs(clip["frames"].mean((1, 2, 3)) - [8, 2, 5]).max() < 2
    assert sorted(storage.stem(uri) for uri in read) == ["00002", "00005", "00008"]
    (objects,) = object_sequences(cfg)
    masks = clip_masks(ClipRow(0, video.uri, (8, 2, 5), False, 0, 0, 1, objects), cfg)
    assert masks.all()  # (annotations of these brightnesses cover the frame)


def test_the_real_davis(shared_dir: Path):
    cfg = DataConfig(
        videos=str(shared_dir / "davis"), layout="davis", masks=MasksConfig(kind="objects")
    )
    found = find_data_set(cfg)
    assert (found.layout, len(found.videos)) == ("davis", 10)
    objects = object_sequences(cfg)
    assert names(found.videos) == [storage.stem(one) for one in objects]
    row = probe_video(found.videos[0].uri)
    assert isinstance(row, VideoRow) and row.height == 480 and row.frames >= 40
    plan = ClipPlan(Manifest((row,)), cfg, 0, tuple(objects))
    ((_, clip),) = load_clips(plan.rows(0, 1), cfg)
    assert clip["frames"].shape == (7, 256, 256, 3) and 0 < clip["masks"].mean() < 0.9
