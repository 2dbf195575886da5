from __future__ import annotations

import numpy as np
import pytest

from cssta.exemplar import BESIDE, RADIUS, SIDE, STRATA, Exemplar, spread


def scene(height: int = 40, width: int = 48, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    hole = np.zeros((height, width), bool)
    hole[15:24, 18:29] = True
    return rng.uniform(0, 255, (height, width, 3)).astype(np.float32), hole


def patch(image: np.ndarray, y: int, x: int) -> np.ndarray:
    padded = np.pad(image, ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0)), mode="symmetric")
    return padded[y : y + SIDE, x : x + SIDE]


def plain_cost(image: np.ndarray, hole: np.ndarray, y: int, x: int, shift) -> float:
    """By the definition, one patch at a time."""
    height, width = hole.shape
    to_y, to_x = y + shift[0], x + shift[1]
    rows, columns = (slice(at - RADIUS, at + RADIUS + 1) for at in (to_y, to_x))
    inside = RADIUS <= to_y < height - RADIUS and RADIUS <= to_x < width - RADIUS
    if not inside or hole[rows, columns].any():
        return np.inf
    difference = patch(image, y, x) - patch(image, to_y, to_x)
    away = STRATA * (shift[0] / height) ** 2 + BESIDE * (shift[1] / width) ** 2
    return float((difference**2).mean() + away)


def test_the_cost_is_that_of_the_definition():
    image, hole = scene()
    exemplar = Exemplar(image, hole)
    shifts = np.random.default_rng(1).integers(-30, 31, (len(exemplar.y), 2))
    wanted = [
        plain_cost(image, hole, *where, shift)
        for *where, shift in zip(exemplar.y, exemplar.x, shifts, strict=True)
    ]
    np.testing.assert_allclose(exemplar.cost(shifts), wanted, rtol=1e-4)
    assert 0 < np.isinf(wanted).sum() < len(wanted)


def test_the_search_finds_the_least_cost_of_all():
    image, hole = scene(18, 20)
    hole[:] = False
    hole[8:10, 9:11] = True
    exemplar = Exemplar(image, hole)
    found = exemplar.cost(exemplar.search())
    for number, (y, x) in enumerate(zip(exemplar.y, exemplar.x, strict=True)):
        costs = [plain_cost(image, hole, y, x, source - (y, x)) for source in exemplar.sources]
        assert found[number] == pytest.approx(min(costs), rel=1e-4)


def test_without_trust_the_hole_does_not_matter():
    image, hole = scene()
    first = Exemplar(image, hole).search(trust=0)
    image[hole] = 77
    edge = Exemplar(image, hole)
    same = (edge.search(trust=0) == first).all(axis=1)
    assert same[~hole[edge.y, edge.x]].all()  # (patches all in the hole have nothing to go by)
    assert (Exemplar(image, hole).search(trust=1) != first).any()


def test_a_pattern_goes_on_through_the_hole():
    y, x = np.mgrid[:60, :64]
    truth = np.stack([128 + 100 * np.sin(x / 2), 128 + 100 * np.cos(y / 3), 255 * (x % 8 < 4)], -1)
    hole = np.zeros(truth.shape[:2], bool)
    hole[24:36, 26:40] = True
    image = truth.astype(np.float32)
    image[hole] = 128
    exemplar = Exemplar(image, hole)
    for trust in (0.01, 0.1, 1, 1):
        shifts = exemplar.search(trust)
        exemplar.paint(shifts, exemplar.cost(shifts))
    np.testing.assert_array_equal(exemplar.image[~hole], truth.astype(np.float32)[~hole])
    error = np.abs(exemplar.image - truth)[hole].mean()
    assert error < 0.2 * np.abs(image - truth)[hole].mean()


def test_improving_only_ever_lowers_the_cost_and_needs_the_asked_gain():
    image, hole = scene()
    exemplar = Exemplar(image, hole)
    drawn = np.random.default_rng(2).integers(len(exemplar.sources), size=len(exemplar.y))
    start = exemplar.sources[drawn] - np.stack([exemplar.y, exemplar.x], 1)
    before = exemplar.cost(start)
    for gain in (1.0, 0.6):
        rng = np.random.default_rng(3)
        better = exemplar.improve(start, rng, rounds=2, radius=20, gain=gain)
        after = exemplar.cost(better)
        changed = (better != start).any(axis=1)
        assert changed.any() and (after[changed] < gain * before[changed]).all()
    lost = exemplar.improve(np.full_like(start, 1000), np.random.default_rng(4), rounds=3, radius=2)
    assert np.isfinite(exemplar.cost(lost)).mean() > 0.9


def test_painting_says_what_a_common_shift_says():
    image, hole = scene()
    exemplar = Exemplar(image, hole)
    shift = np.tile([[0, -16]], (len(exemplar.y), 1))
    exemplar.paint(shift)
    y, x = hole.nonzero()
    np.testing.assert_allclose(exemplar.image[y, x], image[y, x - 16], rtol=1e-5)


def test_all_hole_has_no_sources():
    assert not Exemplar(np.zeros((20, 20, 3)), np.ones((20, 20), bool)).has_sources


def test_spreading_takes_the_nearest():
    where = np.zeros((9, 9), bool)
    where[2, 2] = where[6, 7] = True
    field = spread(np.array([[1], [2]]), where)[..., 0]
    assert field[0, 0] == field[3, 3] == 1 and field[8, 8] == field[5, 6] == 2
