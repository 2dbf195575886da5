"""A batch's outcomes of every kind, for the tests of what is told about them."""

from __future__ import annotations

from pipelines.batch_record import ModelIdentity, VideoOutcome

MODEL = ModelIdentity("models:/cssta@champion", "models:/cssta/3", "ab" * 32)


def outcome(name: str, status: str = "done", **fields) -> VideoOutcome:
    """An outcome that took 2 s for 10 frames of 64x48, unless `fields` say otherwise."""
    usual = {"frames": 10, "hole_frames": 8, "height": 48, "width": 64, "seconds": 2.0}
    if status == "failed":
        usual = {"reason": "unreadable", "message": "is no video; re-encode it"}
    return VideoOutcome(name, f"/in/{name}", f"/out/{name}", status, **(usual | fields))


def batch() -> list[VideoOutcome]:
    """Two published, one of them bad; one held for review, one skipped, two quarantined."""
    return [
        outcome("good.mp4", quality={"seam": 1.0, "warping": 0.9, "self_test": 25.0}),
        outcome("poor.mp4", quality={"seam": 1.7, "warping": 1.0, "self_test": None}),
        outcome(
            "höhle <1> & #2.mp4",
            "review",
            quality={"seam": 4.0, "warping": 1.2, "self_test": 20.0},
            review="the hole's edge shows: seam 4.00 is above 1.8",
        ),
        outcome("old.mp4", "skipped", quality={"seam": 1.1, "warping": 1.1, "self_test": 30.0}),
        outcome("text.mp4", "failed"),
        outcome("lost.mp4", "failed", reason="mask-missing", message="has no mask"),
        outcome("lost too.mp4", "failed", reason="mask-missing", message="has no mask"),
    ]
