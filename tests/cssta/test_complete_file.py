from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cssta import complete_file as module
from cssta.complete_file import FileJob, complete_file
from cssta.progress import Progress
from cssta.video import Box, MaskSpec, SegmentWriter, VideoError, assemble, open_source
from cssta.work_folder import WorkFolder
from tests.cssta.media import clip, make_video
from tests.cssta.painter import Painter
from tests.cssta.side_by_side import other_facts, video_facts

SEGMENT = 5
BOX = MaskSpec(boxes=(Box(10, 12, 14, 10),))


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def video(tmp_path) -> Path:
    """A scene of 12 frames and another of 9, with sound."""
    scenes = [clip(12, 48, 64, seed=1), 255 - clip(9, 48, 64, seed=7)]
    return make_video(tmp_path / "in.mp4", np.concatenate(scenes), audio=["aac"])


def job(video: Path, name: str = "out.mp4", **options) -> FileJob:
    return FileJob(video, video.parent / name, BOX, **options)


def run(task: FileJob, painter: Painter, **options):
    return complete_file(task, load=lambda *_, **__: painter, segment_frames=SEGMENT, **options)


def left(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_no_frame_borrows_across_a_cut(video, painter):
    outcome = run(job(video), painter)
    assert (outcome.frames, outcome.scenes, outcome.segments) == (21, 2, 5)
    edges = {0: (0, 12), 1: (0, 12), 2: (0, 12), 3: (12, 21), 4: (12, 21)}
    for number, given in enumerate(painter.seen):
        start, stop = edges[number]
        assert all(start <= n < stop for n in given["references"])
        assert given["start"] >= start
        assert given["start"] + len(given["frames"]) <= stop
    one = Painter()
    assert run(job(video, "one.mp4", scene_cuts=False), one).scenes == 1
    assert any(max(given["references"]) > 12 > min(given["references"]) for given in one.seen)


def test_a_segment_knows_what_is_around_it(video, painter):
    run(job(video), painter)
    truth = [frame.rgb() for frame in open_source(video).frames()]
    middle = painter.seen[1]  # frames 4 to 7 of the first scene
    first = middle["start"]
    assert first == 0 and first + len(middle["frames"]) >= 8 + painter.lookahead
    for number, frame in enumerate(middle["frames"], first):
        np.testing.assert_array_equal(frame, truth[number])


def test_segments_do_not_show(video, painter):
    run(job(video, "parts", lossless=False), painter)
    complete_file(job(video, "whole"), load=lambda *_, **__: Painter())
    parts = np.stack([frame.rgb() for frame in open_source(video.with_name("parts")).frames()])
    whole = np.stack([frame.rgb() for frame in open_source(video.with_name("whole")).frames()])
    np.testing.assert_array_equal(parts, whole)


def test_texture_goes_on_from_segment_to_segment(tmp_path, tiny_model):
    """Nobody ever sees behind a box that stands still before a camera that does."""
    still = np.repeat(clip(1, 48, 64, seed=3), 9, axis=0)
    video = make_video(tmp_path / "still.mkv", still, codec="ffv1", pix_fmt="yuv444p")

    def frames(name: str, **options) -> np.ndarray:
        task = job(video, name, model=tiny_model, device="cpu")
        complete_file(task, **options)
        return np.stack([frame.rgb() for frame in open_source(task.output).frames()])

    whole = frames("whole", segment_frames=9)
    np.testing.assert_array_equal(frames("parts", segment_frames=3), whole)
    task = job(video, "smooth", model=tiny_model, device="cpu", texture=False)
    complete_file(task)
    smooth = np.stack([frame.rgb() for frame in open_source(task.output).frames()])
    assert (smooth != whole).any()
    resumed = job(video, "resumed", model=tiny_model, device="cpu")
    with pytest.raises(KeyboardInterrupt):
        complete_file(resumed, After(6), segment_frames=3)
    complete_file(replace(resumed, resume=True), segment_frames=3)
    result = np.stack([frame.rgb() for frame in open_source(resumed.output).frames()])
    np.testing.assert_array_equal(result, whole)


class After(Progress):
    """Ctrl-C after so many completed frames."""

    def __init__(self, frames: int) -> None:
        self.name, self.left = "", frames

    def phase(self, name, frames, done=0):
        self.name = name

    def advance(self, frames=1):
        self.left -= self.name == "complete"
        if self.left < 0:
            raise KeyboardInterrupt


def test_scenes_without_a_hole_need_no_model(video, painter):
    mask = MaskSpec(boxes=(Box(10, 12, 14, 10, 0.0, 0.3),))
    outcome = run(replace(job(video), mask=mask), painter)
    assert outcome.completed == 8 and len(painter.seen) == 3
    mask = MaskSpec(boxes=(Box(10, 12, 14, 10, 0.84, 0.86),))
    task = replace(job(video, "none.mp4"), mask=mask)
    assert complete_file(task, load=None).device == "none"


def test_progress_counts_every_frame_of_all_passes(video, painter):
    class Watch(Progress):
        def __init__(self):
            self.phases, self.counts = [], []

        def phase(self, name, frames, done=0):
            self.phases.append((name, frames, done))
            self.counts.append(done)

        def advance(self, frames=1):
            self.counts[-1] += frames

    for name in ("out.mp4", "out.mkv", "out"):
        watch = Watch()
        run(job(video, name, lossless=name != "out.mp4"), painter, progress=watch)
        assert watch.phases == [(phase, 21, 0) for phase in ("survey", "complete", "verify")]
        assert watch.counts == [21, 21, 21]


class Stopping(Painter):
    """Ends the way it is told in the middle of its third segment."""

    def __init__(self, end) -> None:
        super().__init__()
        self.end = end

    def stream(self, pairs, **options):
        for number, frame in enumerate(super().stream(pairs, **options)):
            if len(self.seen) == 3 and number == 2:
                self.end()
            yield frame


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out"])
def test_an_interrupted_job_goes_on_to_the_same_bytes(video, painter, tmp_path, name):
    task = job(video, name)
    with pytest.raises(KeyboardInterrupt):
        run(task, Stopping(interrupt))
    assert left(tmp_path) == [f".{name}.cssta", "in.mp4"]
    outcome = run(replace(task, resume=True), painter)
    assert (outcome.resumed, outcome.segments, len(painter.seen)) == (2, 5, 3)
    run(job(video, f"straight{task.output.suffix}"), Painter())
    assert left(tmp_path) == sorted(["in.mp4", name, f"straight{task.output.suffix}"])
    assert contents(task.output) == contents(tmp_path / f"straight{task.output.suffix}")


def contents(path: Path) -> list[bytes]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file.read_bytes() for file in files]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.cssta.test_complete_file import Stopping, job, run
run(job(Path(sys.argv[1])), Stopping(lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""


def test_a_killed_job_goes_on_to_the_same_bytes(video, painter, tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, str(video)], cwd=root, env=os.environ)
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "out.mp4").exists()
    assert run(job(video, resume=True), painter).resumed == 2
    run(job(video, "straight.mp4"), Painter())
    assert contents(tmp_path / "out.mp4") == contents(tmp_path / "straight.mp4")


def test_without_resume_it_starts_over_and_with_other_options_it_says_so(
    video, painter, tmp_path, monkeypatch
):
    with pytest.raises(KeyboardInterrupt):
        run(job(video), Stopping(interrupt))
    with pytest.raises(VideoError, match="another options") as caught:
        run(job(video, resume=True, feather=2), painter)
    assert caught.value.reason == "resume" and WorkFolder(tmp_path / "out.mp4").path.exists()
    with pytest.raises(VideoError, match="another mask"):
        run(replace(job(video, resume=True), mask=replace(BOX, dilate=1)), painter)
    monkeypatch.setattr(module, "code_digest", lambda: "another")
    with pytest.raises(VideoError, match="another version"):
        run(job(video, resume=True), painter)
    assert run(job(video), painter).resumed == 0
    assert left(tmp_path) == ["in.mp4", "out.mp4"]


def test_a_segment_that_was_lost_is_done_again(video, painter, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(job(video), Stopping(interrupt))
    segment = WorkFolder(tmp_path / "out.mp4").segment(0)
    segment.write_bytes(b"")
    assert run(job(video, resume=True), painter).resumed == 1
    run(job(video, "straight.mp4"), Painter())
    assert contents(tmp_path / "out.mp4") == contents(tmp_path / "straight.mp4")


def test_two_at_work_on_one_output_do_not_meet(video, painter, tmp_path):
    """The kernel, not a file that a crash leaves behind, says who is at work."""

    def meanwhile():
        for resume in (False, True):
            with pytest.raises(VideoError, match="another process is at work"):
                run(job(video, resume=resume), Painter())
        run(job(video, "other.mp4"), Painter())

    outcome = run(job(video), Stopping(meanwhile))
    assert outcome.frames == 21 and left(tmp_path) == ["in.mp4", "other.mp4", "out.mp4"]


def test_a_damaged_work_folder_is_named(video, painter, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(job(video), Stopping(interrupt))
    (WorkFolder(tmp_path / "out.mp4").path / "job.json").write_text("")
    with pytest.raises(VideoError, match="Leave out --resume"):
        run(job(video, resume=True), painter)


def test_resuming_what_never_began_just_begins(video, painter):
    assert run(job(video, resume=True), painter).resumed == 0


def test_an_output_that_is_not_whole_gets_no_name(video, painter, tmp_path, monkeypatch):
    class Forgetful(SegmentWriter):
        count = 0

        def write(self, frame):
            Forgetful.count += 1
            if Forgetful.count != 7:
                super().write(frame)

    monkeypatch.setattr("cssta.output.SegmentWriter", Forgetful)
    with pytest.raises(VideoError) as caught:
        run(job(video), painter)
    assert caught.value.reason == "unverified" and not (tmp_path / "out.mp4").exists()


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def repaint(file: Path) -> None:
    pixels = cv2.imread(str(file))
    pixels[0, 0] ^= 1
    cv2.imwrite(str(file), pixels)


@pytest.mark.parametrize("fault", [damage, repaint, Path.unlink])
def test_pictures_that_changed_on_the_disk_get_no_name(video, painter, tmp_path, fault):
    with pytest.raises(KeyboardInterrupt):
        run(job(video, "out"), Stopping(interrupt))
    fault(WorkFolder(tmp_path / "out").frames / "00003.png")
    with pytest.raises(VideoError, match=r"00003\.png") as caught:
        run(job(video, "out", resume=True), painter)
    assert caught.value.reason == "unverified" and not (tmp_path / "out").exists()


def test_an_older_output_stays_until_the_new_one_is_whole(video, painter, tmp_path):
    output = tmp_path / "out.mp4"
    output.write_text("older")
    with pytest.raises(KeyboardInterrupt):
        run(job(video, overwrite=True), Stopping(interrupt))
    assert output.read_text() == "older"
    run(job(video, overwrite=True, resume=True), painter)
    assert open_source(output).info.frames == 21


def test_a_disk_that_is_full_when_all_is_done(video, painter, tmp_path, monkeypatch):
    def on_a_full_disk(*arguments):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            assemble(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr("cssta.output.assemble", on_a_full_disk)
    with pytest.raises(VideoError, match=r"Make room on its disk") as caught:
        run(job(video), painter)
    assert (caught.value.reason, caught.value.path) == ("unwritable", tmp_path / "out.mp4")
    monkeypatch.undo()
    assert run(job(video, resume=True), Painter()).resumed == 5  # nothing is lost


def test_a_place_that_cannot_be_written(video, painter, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VideoError) as caught:
        run(job(video, "file/out.mp4"), painter)
    assert caught.value.reason == "unwritable"


def test_damage_in_the_middle_leaves_nothing_behind(video, painter, tmp_path):
    data = bytearray(video.read_bytes())
    start = data.rindex(b"mdat")
    data[start + 2000 : start + 4000] = bytes(2000)
    video.write_bytes(data)
    with pytest.raises(VideoError):
        run(job(video), painter)
    assert left(tmp_path) == ["in.mp4"]


def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch):
    """Frames alive at once, counted: the same for 80 frames as for 160."""
    most = {}
    for length in (80, 160):
        frames = np.concatenate([clip(40, 48, 64, seed=1)] * (length // 40))
        video = make_video(tmp_path / f"{length}.mp4", frames, options={"g": "20"})
        alive = Alive()
        complete_file(
            job(video, f"{length}-out.mp4"), load=lambda *_, a=alive, **__: a, segment_frames=40
        )
        most[length] = alive.most
    assert most[160] == most[80] < 12


class Alive(Painter):
    """Counts how many frames it has been given and not yet given back."""

    most = 0

    def stream(self, pairs, **options):
        held = 0

        def counted():
            nonlocal held
            for pair in pairs:
                held += 1
                self.most = max(self.most, held)
                yield pair

        for frame in super().stream(counted(), **options):
            held -= 1
            yield frame


def test_the_default_model_is_part_of_what_must_not_change(video, painter, monkeypatch, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(job(video), Stopping(interrupt))
    other = tmp_path / "model"
    other.mkdir()
    (other / "config.yaml").write_text("another")
    monkeypatch.setattr(module, "DEFAULT_MODEL", other)
    with pytest.raises(VideoError, match="another model"):
        run(job(video, resume=True), painter)


@pytest.mark.parametrize("name", ["balancedav_0518.mp4", "anyv2v_0611.mp4"])
def test_real_clips_keep_everything_but_the_hole(shared_dir, tmp_path, painter, name):
    source = shared_dir / "clips" / name
    task = FileJob(source, tmp_path / name, BOX)
    outcome = complete_file(task, load=lambda *_, **__: painter)
    ours, theirs = video_facts(task.output), video_facts(source)
    assert ours == theirs and other_facts(task.output) == other_facts(source)
    assert outcome.completed == len(theirs["times"])


def test_real_frames_are_exact_outside_a_real_mask(shared_dir, tmp_path, painter):
    """DAVIS, whose masks are indexed annotations."""
    folders = [shared_dir / "davis" / kind / "480p/dog" for kind in ("JPEGImages", "Annotations")]
    for folder, name in zip(folders, ("frames", "masks"), strict=True):
        (tmp_path / name).mkdir()
        for file in sorted(folder.iterdir())[:4]:
            (tmp_path / name / file.name).symlink_to(file)
    mask = MaskSpec(path=tmp_path / "masks")
    complete_file(
        FileJob(tmp_path / "frames", tmp_path / "out", mask), load=lambda *_, **__: painter
    )
    for source, holes, result in zip(
        sorted((tmp_path / "frames").iterdir()),
        sorted((tmp_path / "masks").iterdir()),
        sorted((tmp_path / "out").iterdir()),
        strict=True,
    ):
        hole = cv2.imread(str(holes), cv2.IMREAD_UNCHANGED) > 0
        hole = hole.any(axis=-1) if hole.ndim == 3 else hole
        before, after = cv2.imread(str(source)), cv2.imread(str(result))
        np.testing.assert_array_equal(after[~hole], before[~hole])
        assert hole.any() and not after[hole].any()
