"""Good videos are described, bad ones named, and neither a crash nor a hang stops the count."""

from __future__ import annotations

import os
import shutil
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from cssta.video import write_video
from pipelines import manifest as manifest_module
from pipelines import retries, storage
from pipelines.manifest import Manifest, Rejected, VideoRow, build_manifest, probe_video, split
from pipelines.storage import EmptyBucketError, StorageError, list_videos


def rows(count: int, folder: str = "/v") -> Manifest:
    return Manifest(
        tuple(VideoRow(f"{folder}/{i}.mp4", 10, 48, 64, Fraction(24)) for i in range(count))
    )


def test_a_video_is_described(video_folder: Path):
    uri = str(video_folder / "b.mp4")
    assert probe_video(uri) == VideoRow(uri, 16, 48, 64, Fraction(24))


@pytest.mark.parametrize(
    "name", ["text.mp4", "nothing.mp4", "beginning.mp4", "noise.mov", "gone.mp4"]
)
def test_what_is_no_video_is_rejected_by_name(damaged_folder: Path, name: str):
    uri = str(damaged_folder / name)
    rejected = probe_video(uri)
    assert isinstance(rejected, Rejected)
    assert rejected.uri == uri and uri in rejected.message
    assert rejected.reason and " " not in rejected.reason


def test_a_folder_of_frames_and_one_frame_and_odd_sizes(tmp_path: Path, video_folder: Path):
    import cv2

    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number:05}.png"), np.full((5, 7, 3), number, np.uint8))
    assert probe_video(str(folder)) == VideoRow(str(folder), 3, 5, 7, Fraction(24))
    single = tmp_path / "single.mp4"
    write_video(single, np.zeros((1, 33, 47, 3), np.uint8), 30)
    row = probe_video(str(single))
    assert (row.frames, row.height, row.width) == (1, 33, 47)


def test_rejections_name_the_uri_not_the_temporary_copy(damaged_folder, s3_bucket, s3_server):
    for name in ("a.mp4", "text.mp4"):
        storage.publish(damaged_folder / name, f"{s3_bucket}/{name}", s3_server)
    assert probe_video(f"{s3_bucket}/a.mp4", s3_server).frames == 12
    rejected = probe_video(f"{s3_bucket}/text.mp4", s3_server)
    assert rejected.message.startswith("s3://bucket/text.mp4") and "/tmp" not in rejected.message


@pytest.mark.parametrize("times", [2, 100])
def test_storage_that_is_away_says_nothing_against_a_video(video_folder, monkeypatch, times):
    """Without it the manifest, and so all that is trained, would be another."""
    uri, plain, failed = str(video_folder / "a.mp4"), storage.local_copy, []

    def local_copy(uri, **more):
        if len(failed) < times:
            failed.append(uri)
            raise StorageError(f"{uri}: no answer", transient=True)
        return plain(uri, **more)

    monkeypatch.setattr(retries, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(storage, "local_copy", local_copy)
    if times == 2:
        assert probe_video(uri) == VideoRow(uri, 12, 48, 64, Fraction(24))
    else:
        with pytest.raises(StorageError, match="no answer"):
            probe_video(uri)


@pytest.mark.parametrize(("count", "fraction", "held"), [(1, 0.5, 0), (2, 0.01, 1), (2, 0.99, 1)])
def test_few_videos_keep_at_least_one_on_each_side(count: int, fraction: float, held: int):
    train, validation = split(rows(count), fraction, seed=0)
    assert (len(train.videos), len(validation.videos)) == (count - held, held)


def test_whole_videos_are_held_out_by_seed_and_name():
    train, validation = split(rows(100), 0.2, seed=1)
    assert len(validation.videos) == 20
    assert set(train.videos) | set(validation.videos) == set(rows(100).videos)
    assert split(rows(100), 0.2, seed=1) == (train, validation)
    assert split(rows(100), 0.2, seed=2)[1] != validation
    assert split(rows(100), 0, seed=1)[1].videos == ()
    names = [storage.name(video.uri) for video in validation.videos]
    moved = split(rows(100, "/elsewhere"), 0.2, seed=1)[1].videos
    assert [storage.name(video.uri) for video in moved] == names


def test_the_description_counts_and_names():
    bad = Rejected("/v/x.mp4", "unreadable", "/v/x.mp4: no")
    assert Manifest(rows(2).videos, (bad,)).describe() == (
        "2 videos, 20 frames; 1 rejected: x.mp4 (unreadable)"
    )


@pytest.mark.cluster
def test_bad_files_among_good_ones_are_counted_and_named(ray_cluster, damaged_folder: Path):
    manifest = build_manifest(list_videos(str(damaged_folder)))
    assert [storage.stem(video.uri) for video in manifest.videos] == list("abcde")
    assert [storage.name(bad.uri) for bad in manifest.rejected] == [
        "beginning.mp4",
        "noise.mov",
        "nothing.mp4",
        "text.mp4",
    ]


@pytest.mark.cluster
def test_none_left_is_an_error(ray_cluster, tmp_path: Path):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(EmptyBucketError, match=r"none of 1 videos.*text\.mp4"):
        build_manifest(list_videos(str(tmp_path)))


@pytest.mark.cluster
def test_storage_that_is_away_is_told_as_such(ray_cluster, monkeypatch):
    def group(uris, *_):
        from pipelines.storage import StorageError

        raise StorageError(f"{uris[0]}: no answer", transient=True)

    monkeypatch.setattr(manifest_module, "_probe_group", group)
    with pytest.raises(StorageError, match=r"^/v/a\.mp4: no answer$") as caught:
        build_manifest(["/v/a.mp4"])
    assert type(caught.value) is StorageError


@pytest.mark.cluster
def test_a_decoder_that_crashes_or_hangs_costs_only_its_file(
    ray_cluster, tmp_path: Path, video_folder: Path, monkeypatch
):
    for name in ("a.mp4", "crash.mp4", "hang.mp4", "z.mp4"):
        shutil.copy(video_folder / "a.mp4", tmp_path / name)
    honest = manifest_module.probe_video

    def probe(uri: str, s3_endpoint: str | None = None):
        if uri.endswith("crash.mp4"):
            os.abort()
        if uri.endswith("hang.mp4"):
            time.sleep(600)
        return honest(uri, s3_endpoint)

    def group(uris, s3_endpoint, seconds, in_new):
        # (the task is pickled by value, so that its worker sees the faulty decoder)
        from pipelines.manifest import _end_process_after

        results = []
        for uri in uris:
            with _end_process_after(seconds):
                results.append(probe(uri, s3_endpoint))
        return results

    monkeypatch.setattr(manifest_module, "_probe_group", group)
    manifest = build_manifest(list_videos(str(tmp_path)), seconds_per_file=4)
    assert [storage.name(video.uri) for video in manifest.videos] == ["a.mp4", "z.mp4"]
    assert [(storage.name(bad.uri), bad.reason) for bad in manifest.rejected] == [
        ("crash.mp4", "crashed"),
        ("hang.mp4", "crashed"),
    ]


@pytest.mark.cluster
def test_a_process_that_a_file_broke_is_not_taken_at_its_word(
    ray_cluster, video_folder: Path, monkeypatch
):
    """What a decoder overwrote in memory may make every later file seem bad."""
    honest = manifest_module._probe_group

    def group(*arguments):  # (pickled by value, so that its worker sees the faulty decoder)
        from pipelines import manifest as module

        plain = module.probe

        def probe(path):
            if path.name == "b.mp4":
                module.broken = True  # (stays with the process)
            if getattr(module, "broken", False):
                raise SystemError("0-7f864c@() method: bad call flags")
            return plain(path)

        module.probe = probe
        try:
            return honest(*arguments)
        finally:
            module.probe = plain

    monkeypatch.setattr(manifest_module, "_probe_group", group)
    manifest = build_manifest(list_videos(str(video_folder)))
    assert [storage.name(video.uri) for video in manifest.videos] == [
        "a.mp4",
        "c.mp4",
        "d.mp4",
        "e.mp4",
    ]
    (bad,) = manifest.rejected
    assert (storage.name(bad.uri), bad.reason) == ("b.mp4", "unreadable")
    assert "SystemError: 0-7f864c@() method" in bad.message
