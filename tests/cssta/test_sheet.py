from __future__ import annotations

import cv2
import numpy as np
import pytest

from cssta.sheet import CELL_WIDTH, contact_sheet, mask_rows, tint
from tests.cssta.media import clip

SHOT = clip(25, 48, 64)


def test_tint_marks_the_hole_and_nothing_else():
    masks = np.zeros(SHOT.shape[:3], bool)
    masks[:, 10:20, 30:40] = True
    tinted = tint(SHOT, masks)
    np.testing.assert_array_equal(tinted[~masks], SHOT[~masks])
    redness = tinted[masks].astype(int) @ [2, -1, -1] - SHOT[masks].astype(int) @ [2, -1, -1]
    assert tinted.dtype == np.uint8 and redness.mean() > 50


def test_mask_rows_are_white_holes():
    masks = np.zeros((2, 3, 4), bool)
    masks[0, 1, 2] = True
    rows = mask_rows(masks)
    assert rows.shape == (2, 3, 4, 3) and rows.dtype == np.uint8
    assert (rows[0, 1, 2] == 255).all() and rows.sum() == 3 * 255


def test_every_tenth_frame_in_one_row_per_entry(tmp_path):
    rows = {"input": SHOT, "a very long label": SHOT, "truth": SHOT}
    path = contact_sheet(tmp_path / "deep" / "sheet.png", rows)
    sheet = cv2.imread(str(path))[..., ::-1]
    assert (sheet[:10] == 255).all() and (sheet[:, -10:] == 255).all(), "margins"
    height = round(48 * CELL_WIDTH / 64)
    for index in (0, 10, 20):
        cell = cv2.resize(SHOT[index], (CELL_WIDTH, height), interpolation=cv2.INTER_CUBIC)
        found = cv2.matchTemplate(sheet[..., ::1].copy(), cell, cv2.TM_SQDIFF)
        assert (found < 1).sum() == 3, f"frame {index} once in each row"
    assert [entry.name for entry in path.parent.iterdir()] == ["sheet.png"]


def test_no_more_than_max_columns(tmp_path):
    narrow = cv2.imread(str(contact_sheet(tmp_path / "a.png", {"x": SHOT}, 1, max_columns=2)))
    wide = cv2.imread(str(contact_sheet(tmp_path / "b.png", {"x": SHOT}, 1, max_columns=4)))
    assert wide.shape[1] - narrow.shape[1] > 2 * CELL_WIDTH


@pytest.mark.parametrize("rows", [{}, {"a": SHOT, "b": SHOT[:3]}, {"a": SHOT[:0]}])
def test_rows_that_do_not_belong_together(tmp_path, rows):
    with pytest.raises(ValueError, match="one length"):
        contact_sheet(tmp_path / "sheet.png", rows)
    assert not list(tmp_path.iterdir())
