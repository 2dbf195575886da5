"""Contact sheets: a clip's stages side by side, to be judged by eye."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from cssta.video import VideoError

CELL_WIDTH = 288  # pixels; wider frames are scaled down, narrower ones up
MARGIN = 24
GAP = 8
PAPER, INK, PALE_INK = (255, 255, 255), (40, 40, 40), (120, 120, 120)
FONT, FONT_SCALE = cv2.FONT_HERSHEY_DUPLEX, 0.6
HOLE_COLOUR = np.array([255, 40, 90])


def tint(frames: np.ndarray, masks: np.ndarray, strength: float = 0.55) -> np.ndarray:
    """Frames uint8 (T, H, W, 3) with their holes, bool (T, H, W), tinted red."""
    tinted = frames * (1 - strength) + HOLE_COLOUR * strength
    return np.where(masks[..., None], np.rint(tinted), frames).astype(np.uint8)


def mask_rows(masks: np.ndarray) -> np.ndarray:
    """Masks bool (T, H, W) as pictures uint8 (T, H, W, 3): the hole white."""
    return np.repeat(masks[..., None], 3, axis=-1).astype(np.uint8) * 255


def contact_sheet(
    path: str | Path, rows: dict[str, np.ndarray], every: int = 10, max_columns: int = 8
) -> Path:
    """Write a PNG with one labelled row for each entry of `rows`, and every `every`-th frame.

    Args:
        rows: label -> uint8 (T, H, W, 3) RGB; the same T in all, sizes may differ.
        max_columns: at most that many frames, the first ones.

    Raises:
        ValueError: no rows, or rows of different length.
        VideoError: the picture cannot be written.
    """
    lengths = {label: len(frames) for label, frames in rows.items()}
    if not lengths or len(set(lengths.values())) != 1 or min(lengths.values()) == 0:
        raise ValueError(f"a contact sheet needs rows of one length above 0, not {lengths}")
    shown = range(0, next(iter(lengths.values())), every)[:max_columns]
    cells = {label: [_cell(np.asarray(frames[i])) for i in shown] for label, frames in rows.items()}

    label_width = max(_text_size(label)[0] for label in rows)
    left = MARGIN + label_width + 2 * GAP
    header = _text_size("frame")[1] + 2 * GAP
    heights = [max(cell.shape[0] for cell in row) for row in cells.values()]
    width = left + len(shown) * (CELL_WIDTH + GAP) - GAP + MARGIN
    height = MARGIN + header + sum(heights) + GAP * (len(heights) - 1) + MARGIN
    sheet = np.full((height, width, 3), PAPER, np.uint8)

    for column, index in enumerate(shown):
        _text(sheet, f"frame {index}", left + column * (CELL_WIDTH + GAP), MARGIN, PALE_INK)
    top = MARGIN + header
    for (label, row), row_height in zip(cells.items(), heights, strict=True):
        _text(sheet, label, MARGIN, top + (row_height - _text_size(label)[1]) // 2, INK)
        for column, cell in enumerate(row):
            x = left + column * (CELL_WIDTH + GAP)
            sheet[top : top + cell.shape[0], x : x + CELL_WIDTH] = cell
        top += row_height + GAP
    return _save(Path(path), sheet)


def _cell(frame: np.ndarray) -> np.ndarray:
    height = max(1, round(frame.shape[0] * CELL_WIDTH / frame.shape[1]))
    shrinks = frame.shape[1] > CELL_WIDTH
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(frame, (CELL_WIDTH, height), interpolation=method)


def _text_size(text: str) -> tuple[int, int]:
    (width, height), below = cv2.getTextSize(text, FONT, FONT_SCALE, 1)
    return width, height + below


def _text(sheet: np.ndarray, text: str, x: int, y: int, colour: tuple[int, int, int]) -> None:
    """Write with the upper left corner of the text at (x, y)."""
    (_, height), _ = cv2.getTextSize(text, FONT, FONT_SCALE, 1)
    cv2.putText(sheet, text, (x, y + height), FONT, FONT_SCALE, colour, 1, cv2.LINE_AA)


def _save(path: Path, sheet: np.ndarray) -> Path:
    ok, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    if not ok:
        raise VideoError(path, "unwritable", "the contact sheet cannot be encoded", "Show less")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(data.tobytes())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
