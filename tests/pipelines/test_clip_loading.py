"""Decoded clips are the frames that were planned, scaled, cropped and flipped as planned."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from cssta.video import VideoError
from pipelines import clip_loading, retries, storage
from pipelines.clip_loading import (
    LostClipError,
    clip_masks,
    cover_and_crop,
    load_clip,
    load_clips,
)
from pipelines.clip_plan import ClipRow
from pipelines.data_config import DataConfig, MasksConfig

CFG = DataConfig(videos="/v", height=48, width=48, references=3)


def row(uri: Path | str, indices=(0, 2, 4, 6), **values) -> ClipRow:
    defaults = dict(
        number=0, flip=False, crop_y=0.0, crop_x=0.0, mask_seed=7, objects=None
    )  # fmt: skip
    return ClipRow(uri=str(uri), indices=tuple(indices), **(defaults | values))


def test_the_planned_frames_in_their_order(video_folder: Path):
    clip = load_clip(row(video_folder / "b.mp4", (9, 1, 9, 5)), CFG)
    assert clip["frames"].shape == (4, 48, 48, 3) and clip["frames"].dtype == np.uint8
    assert clip["masks"].shape == (4, 48, 48) and clip["masks"].dtype == np.bool_
    assert np.abs(clip["frames"][..., 2].mean((1, 2)) - [76, 44, 76, 60]).max() < 6


def test_crop_and_flip(video_folder: Path):
    path = video_folder / "a.mp4"
    left = load_clip(row(path), CFG)["frames"]
    right = load_clip(row(path, crop_x=1.0), CFG)["frames"]
    flipped = load_clip(row(path, crop_x=1.0, flip=True), CFG)["frames"]
    assert right[..., 0].mean() - left[..., 0].mean() == pytest.approx(255 * 16 / 64, abs=4)
    np.testing.assert_array_equal(flipped, right[:, :, ::-1])


@pytest.mark.parametrize("size", [(48, 64), (40, 90), (100, 30), (48, 48), (7, 5), (47, 481)])
def test_frames_just_cover_the_crop_without_distortion(size: tuple[int, int]):
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    frame = np.stack([255 * y / size[0], 255 * x / size[1], 0 * x], -1).round().astype(np.uint8)
    corners = [cover_and_crop(frame[None], 48, 48, at, at)[0] for at in (0.0, 0.5, 1.0)]
    assert {corner.shape for corner in corners} == {(48, 48, 3)}
    scale = max(48 / size[0], 48 / size[1])
    for channel, side in enumerate(size):
        # one side is shown whole, the other to the same scale
        shown = 255 * 48 / (side * scale)
        first, centre, last = (corner[..., channel].astype(float) for corner in corners)
        assert np.ptp(centre) == pytest.approx(shown, abs=255 / min(side, 48) + 3)
        assert first.min() <= 255 / side + 2 and last.max() >= 255 - 255 / side - 3


def test_masks_depend_on_the_mask_seed_alone():
    first = clip_masks(row("/v/a.mp4"), CFG)
    np.testing.assert_array_equal(first, clip_masks(row("/v/b.mp4", (1, 1, 1, 1), flip=True), CFG))
    assert (first != clip_masks(row("/v/a.mp4", mask_seed=8), CFG)).any()
    assert 0.02 < first.mean() < 0.4


def test_holes_come_in_buckets_and_move_as_configured():
    buckets = ((0.05, 0.1), (0.3, 0.35), (0.6, 0.65))
    masks = MasksConfig(buckets=buckets, moving=0.25)
    cfg = DataConfig(videos="/v", height=64, width=64, references=3, masks=masks)
    clips = [clip_masks(row("/v/a.mp4", mask_seed=seed), cfg) for seed in range(120)]
    found = np.digitize([clip.mean() for clip in clips], [0.2, 0.47])
    for clip, bucket in zip(clips, found, strict=True):
        assert buckets[bucket][0] - 0.03 < clip.mean() < buckets[bucket][1] + 0.03
    assert np.bincount(found).min() > 25  # 40 expected
    moving = sum(bool((clip != clip[:1]).any()) for clip in clips)
    assert 15 < moving < 47  # 30 expected


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """Two indexed-colour-like mask sequences: a walking square of a dark colour, and nothing."""
    for name, value in (("square", 1), ("none", 0)):
        (tmp_path / name).mkdir()
        for number in range(6):
            mask = np.zeros((24, 32, 3), np.uint8)
            mask[8:16, 4 + 2 * number : 12 + 2 * number] = (0, 0, value)
            cv2.imwrite(str(tmp_path / name / f"{number:05}.png"), mask)
    return tmp_path


def test_object_masks_are_laid_over(objects: Path):
    masks = clip_masks(row("/v/a.mp4", objects=str(objects / "square")), CFG)
    assert masks.shape == (4, 48, 48)
    assert masks.any(axis=(1, 2)).all()
    assert 0.05 < masks.mean() < 0.25  # a twelfth of its frame, dilated
    assert (masks[0] != masks[1]).any()


def test_an_object_out_of_sight_gives_way_to_free_form_masks(objects: Path):
    assert clip_masks(row("/v/a.mp4", objects=str(objects / "none")), CFG).any()


def test_object_masks_that_cannot_be_read_are_named(objects: Path):
    (objects / "square" / "00000.png").write_text("no picture")
    cfg = CFG.model_copy(update={"references": 5})
    with pytest.raises(storage.StorageError, match=r"square/00000\.png: is no picture"):
        clip_masks(row("/v/a.mp4", range(6), objects=str(objects / "square")), cfg)
    with pytest.raises(storage.StorageError, match="absent"):
        clip_masks(row("/v/a.mp4", objects=str(objects / "absent")), CFG)


def test_a_stream_draws_free_form_masks_where_object_masks_cannot_be_read(objects, video_folder):
    failed = []
    absent = row(video_folder / "a.mp4", objects=str(objects / "absent"))
    ((_, clip),) = load_clips([absent], CFG, failed.append)
    np.testing.assert_array_equal(clip["masks"], clip_masks(row("/v/a.mp4"), CFG))
    assert [storage.name(bad.uri) for bad in failed] == ["absent"]


@pytest.fixture
def away(monkeypatch):
    """`away(times, name)`: requests for what is called so fail so often, as a network's do."""
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.0)

    def fail(times: int, name: str) -> list[str]:
        failed = []
        for function in ("list_pictures", "read_bytes", "local_copy"):
            plain = getattr(storage, function)

            def call(uri, *rest, plain=plain, **more):
                if storage.name(uri) == name and len(failed) < times:
                    failed.append(uri)
                    raise storage.StorageError(f"{uri}: no answer", transient=True)
                return plain(uri, *rest, **more)

            monkeypatch.setattr(storage, function, call)
        return failed

    return fail


@pytest.mark.parametrize("name", ["square", "00003.png", "a.mp4"])
def test_storage_that_is_away_for_a_moment_changes_nothing(objects, video_folder, away, name):
    planned = row(video_folder / "a.mp4", objects=str(objects / "square"), mask_seed=3)
    cfg = CFG.model_copy(update={"references": 3})
    expected = load_clip(planned, cfg)
    reported = []
    failed = away(2, name)
    ((used, clip),) = load_clips([planned], cfg, reported.append, lambda row: [])
    assert used == planned and not reported and len(failed) == 2
    np.testing.assert_array_equal(clip["frames"], expected["frames"])
    np.testing.assert_array_equal(clip["masks"], expected["masks"])


@pytest.mark.parametrize("name", ["square", "00003.png", "a.mp4"])
def test_storage_that_stays_away_ends_the_task_instead_of_changing_the_clips(
    objects, video_folder, away, name
):
    planned = row(video_folder / "a.mp4", objects=str(objects / "square"), mask_seed=3)
    other = row(video_folder / "b.mp4")
    reported = []
    away(100, name)
    with pytest.raises(storage.StorageError, match="no answer") as caught:
        list(load_clips([planned], CFG, reported.append, lambda row: [other]))
    assert caught.value.transient and not reported


@pytest.mark.parametrize(
    ("error", "doubted"),
    [
        (SystemError("bad call flags"), True),
        (VideoError("/v/a.mp4", "corrupt", "is damaged", "Mend it"), False),
        (storage.StorageError("/v/a.mp4: is no picture"), False),
    ],
)
def test_a_file_is_here_before_an_attempt_begins_and_odd_errors_are_told_to_it(
    monkeypatch, error, doubted
):
    """An attempt is for what may end the process by the file's fault, which transfers do not."""
    done = []

    class Ended(BaseException):
        pass

    class Words:
        def doubt(self, error):
            raise Ended

    @contextmanager
    def frame_reader(uri, cfg):
        def read(indices):
            raise error

        done.append("here")
        yield read

    @contextmanager
    def attempt(uri):
        done.append("attempt")
        yield Words()

    monkeypatch.setattr(clip_loading, "frame_reader", frame_reader)
    reported = []
    clips = load_clips([row("/v/a.mp4")], CFG, reported.append, attempt=attempt)
    with pytest.raises(Ended if doubted else LostClipError):
        next(clips)
    assert done == ["here", "attempt"] and bool(reported) == (not doubted)


def test_a_picture_that_stays_away_is_not_blamed(tmp_path, away):
    """Its bytes are read after it was found."""
    cv2.imwrite(str(tmp_path / "1.jpg"), np.zeros((64, 64, 3), np.uint8))
    away(100, "1.jpg")
    reported = []
    with pytest.raises(storage.StorageError, match="no answer"):
        list(load_clips([row(tmp_path / "1.jpg")], CFG, reported.append, lambda row: []))
    assert not reported


def test_one_open_serves_several_clips(video_folder: Path, monkeypatch):
    from pipelines import clip_frames

    rows = [
        row(video_folder / f"{name}.mp4", range(i, i + 4), mask_seed=i, number=number)
        for number, (name, i) in enumerate([("c", 0), ("d", 0), ("c", 7), ("d", 5), ("c", 2)])
    ]
    alone = [load_clip(one, CFG) for one in rows]
    opened = []
    read = clip_frames.read_frames
    monkeypatch.setattr(
        clip_frames, "read_frames", lambda *args: opened.append(args) or read(*args)
    )
    failed = []
    together = list(load_clips(rows, CFG, failed.append))
    assert len(opened) == 2 and not failed
    assert [one for one, _ in together] == rows
    for (_, clip), expected in zip(together, alone, strict=True):
        np.testing.assert_array_equal(clip["frames"], expected["frames"])
        np.testing.assert_array_equal(clip["masks"], expected["masks"])


def test_a_file_that_breaks_in_the_middle_keeps_its_other_clips(video_folder: Path, monkeypatch):
    from pipelines import clip_frames

    path = video_folder / "e.mp4"
    read = clip_frames.read_frames

    def broken_from_20_on(path, indices):
        if max(indices) >= 20:
            raise VideoError(path, "corrupt", "frame 20 is damaged", "Re-encode it")
        return read(path, indices)

    monkeypatch.setattr(clip_frames, "read_frames", broken_from_20_on)
    rows = [row(path, range(i, i + 4), number=i) for i in (0, 18, 10)]
    other = row(video_folder / "a.mp4", number=18)
    failed = []
    loaded = load_clips(rows, CFG, failed.append, substitutes=lambda lost: [other])
    assert [one for one, _ in loaded] == [rows[0], other, rows[2]]
    assert [(bad.uri, bad.reason) for bad in failed] == [(str(path), "corrupt")]


def test_a_truncated_file_is_reported(tmp_path: Path, video_folder: Path):
    content = (video_folder / "e.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])  # its index was at the end
    failed = []
    with pytest.raises(LostClipError, match=r"clip 0: none of 1 videos can be read: .*half\.mp4"):
        list(load_clips([row(tmp_path / "half.mp4")], CFG, failed.append))
    assert len(failed) == 1 and str(tmp_path / "half.mp4") in failed[0].message


def test_a_file_that_is_gone_or_damaged_is_reported(tmp_path: Path, damaged_folder: Path):
    failed = []
    lost, bad, good = (row(damaged_folder / f"{name}.mp4") for name in ("gone", "text", "a"))
    ((used, clip),) = load_clips([lost], CFG, failed.append, lambda row: [bad, good])
    assert used == good
    np.testing.assert_array_equal(clip["frames"], load_clip(good, CFG)["frames"])
    assert [storage.name(one.uri) for one in failed] == ["gone.mp4", "text.mp4"]
    assert all(one.uri in one.message for one in failed)
    with pytest.raises(VideoError, match=r"text\.mp4"):
        load_clip(row(damaged_folder / "text.mp4"), CFG)


def test_a_video_in_a_bucket(video_folder: Path, s3_bucket: str, s3_server: str):
    storage.publish(video_folder / "a.mp4", f"{s3_bucket}/a.mp4", s3_server)
    cfg = CFG.model_copy(update={"s3_endpoint": s3_server})
    there = load_clip(row(f"{s3_bucket}/a.mp4"), cfg)["frames"]
    np.testing.assert_array_equal(there, load_clip(row(video_folder / "a.mp4"), CFG)["frames"])


def test_davis_objects(shared_dir: Path):
    davis = shared_dir / "davis" / "Annotations"
    sequence = storage.list_picture_folders(str(davis))[0]
    cfg = DataConfig(videos="/v", masks=MasksConfig(kind="objects", objects=str(davis)))
    masks = clip_masks(row("/v/a.mp4", range(7), objects=sequence), cfg)
    assert masks.shape == (7, 256, 256) and 0 < masks.mean() < 0.9
