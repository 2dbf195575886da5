"""A stage is named by all that decides its outcome, and told apart from others in words."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import pytest

from cssta.config import ModelConfig
from pipelines import storage
from pipelines.checkpoints import Checkpoints
from pipelines.config import JobConfig
from pipelines.data_config import MasksConfig
from pipelines.manifest import Manifest, Rejected, VideoRow
from pipelines.stage_clips import with_pools
from pipelines.stage_identity import (
    RECORD,
    decisive_parts,
    differences,
    digest_of,
    keep_decisive,
    unlike_the_newest,
)
from pipelines.storage import StorageError
from pipelines.train_stage import Videos

TINY = ModelConfig.preset("tiny")
MANIFEST = Manifest(tuple(VideoRow(f"/v/{n}.mp4", 12, 48, 64, Fraction(24)) for n in "abc"))


def make_config(storage: Path) -> JobConfig:
    return JobConfig.parse({"data": {"videos": "/v"}, "cluster": {"storage": str(storage)}})


def test_a_stage_is_named_by_what_decides_its_outcome(tmp_path):
    cfg = make_config(tmp_path)

    def digest(cfg=cfg, name="im2im", model=TINY, weights=None, videos=MANIFEST) -> str:
        return digest_of(decisive_parts(cfg, name, model, weights or {}, videos))

    def pooled(name: str = "im2im") -> str:
        """With pictures and mask sequences, as they are found now."""
        masks = MasksConfig(kind="mixed", objects=str(tmp_path / "masks"))
        data = {"images": str(tmp_path / "places"), "masks": masks}
        both = but("data", **data)
        pools = with_pools(both.data, name, Videos(MANIFEST, Manifest(()))).pools
        return digest_of(decisive_parts(both, name, TINY, {}, MANIFEST, pools))

    def put(name: str, size: int) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)

    def but(section: str, **update) -> JobConfig:
        changed = getattr(cfg, section).model_copy(update=update)
        return cfg.model_copy(update={section: changed})

    longer = cfg.stages.model_copy(
        update={"im2im": cfg.stages.im2im.model_copy(update={"steps": 401})}
    )
    other = {
        "steps": digest(cfg.model_copy(update={"stages": longer})),
        "losses": digest(but("losses", lambda_g=0.5)),
        "data": digest(but("data", max_stride=2)),
        "seed": digest(cfg.model_copy(update={"seed": 1})),
        "workers": digest(but("cluster", workers=2)),
        "name": digest(name="inpainter"),
        "model": digest(model=ModelConfig.preset("small")),
        "weights": digest(weights={"im2im": b"1"}),
        "other weights": digest(weights={"im2im": b"2"}),
        "videos": digest(videos=Manifest(MANIFEST.videos[:2])),
        "frames": digest(videos=Manifest(MANIFEST.videos, digest="prepared")),
    }
    assert len({digest(), *other.values()}) == len(other) + 1
    same = (
        but("data", prepared="/elsewhere", max_failures=3),
        but("inference", output="/elsewhere"),
        but("evaluate", clips=3),
        but("tracking", experiment="other"),
        but("registry", alias="other"),
        but("cluster", storage="/elsewhere"),
        but("cluster", restarts=9),
    )
    assert {digest(one) for one in same} == {digest()}
    for key in ("log_every", "checkpoint_every", "validate_every"):
        often = cfg.stages.im2im.model_copy(update={key: 7})
        assert digest(but("stages", im2im=often)) == digest()
    put("places/a/1.jpg", 3)
    put("masks/cat/0.png", 3)
    found = {name: {pooled(name)} for name in ("im2im", "inpainter")}
    put("masks/dog/0.png", 3)  # another sequence to draw from: other clips
    for name, digests in found.items():
        digests.add(pooled(name))
        assert len(digests) == 2
    for number in range(2, 7):
        put(f"places/a/{number}.jpg", 3)
    assert pooled() not in found["im2im"] and pooled("inpainter") in found["inpainter"]
    found["im2im"].add(pooled())
    put("places/a/1.jpg", 4)  # replaced
    assert pooled() not in found["im2im"] and pooled("inpainter") in found["inpainter"]
    rejected = Manifest(MANIFEST.videos, (Rejected("x", "unreadable", "x"),))
    assert digest(videos=rejected) == digest()


def decisive(videos: Manifest = MANIFEST, weights: dict | None = None, **sections) -> dict:
    cfg = JobConfig.parse({"data": {"videos": "/v", **sections.pop("data", {})}, **sections})
    return decisive_parts(cfg, "inpainter", TINY, weights or {"im2im": b"1"}, videos)


def of(names: str, frames: int = 12, digest: str = "") -> Manifest:
    rows = tuple(VideoRow(f"/v/{n}.mp4", frames, 48, 64, Fraction(24)) for n in names)
    return Manifest(rows, digest=digest)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (decisive(), []),
        (decisive(of("abcd", digest="x")), ["1 videos more (d.mp4)"]),
        (decisive(of("ad")), ["1 videos more (d.mp4)", "2 videos less (b.mp4, c.mp4)"]),
        (decisive(of("abc", 13)), ["3 videos of another length or size (a.mp4, b.mp4, c.mp4)"]),
        (decisive(of("abc", digest="x")), ["the content of videos"]),
        (decisive(weights={"im2im": b"2"}), ["the weights that it builds on or starts from"]),
        (decisive(seed=3, data={"max_stride": 9}), ["data.max_stride 5, now 9", "seed 0, now 3"]),
        (
            decisive(stages={"inpainter": {"steps": 7, "log_every": 3}}),
            ["settings.steps 1000, now 7"],
        ),
    ],
)
def test_what_differs_is_told_in_words(now: dict, told: list[str]):
    assert differences(json.loads(json.dumps(decisive())), now) == told


def begin(stages: Path, parts: dict, step: int, when: float) -> Path:
    """A stage of that kind, `step` steps on, begun at a time in seconds."""
    folder = stages / f"{parts['stage']}-{digest_of(parts)}"
    keep_decisive(parts, str(folder))
    os.utime(folder / RECORD, (when, when))
    if step:
        local = stages.parent / "local"
        local.mkdir(exist_ok=True)
        (local / "network.safetensors").write_bytes(b"network")
        Checkpoints(str(folder)).save(local, step, {})
    return folder


def test_a_stage_that_starts_anew_names_the_one_that_was_begun_last(tmp_path: Path):
    stages = tmp_path / "stages"
    own = str(stages / f"inpainter-{digest_of(decisive())}")
    assert unlike_the_newest(decisive(), own) is None, "there is no other"
    begin(stages, decisive(of("a")), step=700, when=1000)
    newest = begin(stages, decisive(of("abcd")), step=400, when=2000)
    begin(stages, decisive() | {"stage": "im2im"}, step=5, when=3000)
    begin(stages, decisive(), step=0, when=4000)
    assert unlike_the_newest(decisive(), own) == (
        f"stage inpainter starts at step 0: {newest}, at step 400, is of another kind. "
        "What differs: 1 videos less (d.mp4)"
    )


def test_what_cannot_be_compared_keeps_no_stage_from_starting(tmp_path: Path, monkeypatch):
    stages = tmp_path / "stages"
    own = str(stages / f"inpainter-{digest_of(decisive())}")
    other = begin(stages, decisive(of("a")), step=0, when=1000)
    for content in ("{", "[]", "{}"):
        (other / RECORD).write_text(content)
        assert unlike_the_newest(decisive(), own) is None

    def away(*_):
        raise StorageError("s3://bucket: no answer", transient=True)

    monkeypatch.setattr(storage, "read_bytes", away)
    assert unlike_the_newest(decisive(), own) is None
