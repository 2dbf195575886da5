from __future__ import annotations

import cv2
import numpy as np

from cssta import mask_gallery


def test_the_picture_shows_every_kind_of_mask(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (mask_gallery.FRAMES, 60, 108, 3), np.uint8)
    objects = np.zeros(noise.shape[:3], bool)
    objects[:, 20:40, 30:50] = True
    monkeypatch.setattr(mask_gallery, "SIZE", (60, 108))
    monkeypatch.setattr(mask_gallery, "render", lambda *_: (noise, objects))
    rows = mask_gallery.gallery()
    holes = [(frames[..., 0] != frames[..., 1]) for frames in rows.values()]  # (else all is grey)
    for hole, ((low, high), moving) in zip(holes, mask_gallery.BUCKETS.items(), strict=False):
        assert low - 0.02 < hole.mean() < high + 0.02
        assert (hole != hole[:1]).any() == moving
    assert len(holes) == len(mask_gallery.BUCKETS) + 1 and holes[-1].any(axis=(1, 2)).all()
    path = tmp_path / "masks.png"
    assert mask_gallery.main([str(path)]) == 0
    assert cv2.imread(str(path)).shape[1] > 4 * 288
