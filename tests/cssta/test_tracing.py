from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cssta.tracing import Step, sample, trace

HEIGHT, WIDTH = 12, 20


def constant(dx: float, dy: float, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.broadcast_to(np.float32([dx, dy]), (height, width, 2)).copy()


def ramp() -> np.ndarray:
    """Red says x, green says y."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    return np.stack([x, y, np.zeros_like(x)], axis=-1)


def hole(*columns: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, list(columns)] = True
    return mask


@given(
    st.floats(-3, WIDTH + 3, width=32), st.floats(-3, HEIGHT + 3, width=32), st.integers(1, 9000)
)
@settings(max_examples=30, deadline=None)
def test_samples_are_bilinear_and_the_border_repeats(x, y, count):
    found = sample(ramp(), np.full(count, x, np.float32), np.full(count, y, np.float32))
    assert found.shape == (count, 3)
    expected = [min(max(x, 0), WIDTH - 1), min(max(y, 0), HEIGHT - 1), 0]
    np.testing.assert_allclose(found, [expected] * count, atol=1 / 32)


def test_a_pixel_goes_on_until_it_is_seen():
    path = [
        Step(constant(2, 1), constant(-2, -1), ramp(), hole(7)),  # 5 + 2: still hidden
        Step(constant(2, 1), constant(-2, -1), ramp(), hole(1)),
        Step(constant(2, 1), constant(-2, -1), ramp() * np.nan, hole()),  # never asked
    ]
    found = trace(np.array([5]), np.array([3]), path, tolerance=1)
    assert found.steps[0] == 2 and found.error[0] == 0
    np.testing.assert_allclose(found.colours[0], [9, 5, 0], atol=1e-5)


def test_half_a_hidden_pixel_is_hidden():
    step = Step(constant(0.5, 0), constant(-0.5, 0), ramp(), hole(6))
    assert np.isinf(trace(np.array([5]), np.array([3]), [step], tolerance=1).steps[0])


def test_pixels_that_leave_the_frame_or_whose_flows_disagree_are_lost():
    away = Step(constant(0, -4), constant(0, 4), ramp(), hole())
    assert np.isinf(trace(np.array([5]), np.array([3]), [away], tolerance=1).steps[0])
    torn = Step(constant(1, 0), constant(0, 0), ramp(), hole())
    assert np.isinf(trace(np.array([5]), np.array([3]), [torn], tolerance=1).steps[0])
    assert trace(np.array([5]), np.array([3]), [torn], tolerance=1.5).steps[0] == 1


def test_disagreement_adds_up_along_the_way():
    path = [Step(constant(1, 0), constant(-0.6, 0), ramp(), hole(6, 7, 8))] * 4
    found = trace(np.array([5]), np.array([3]), path, tolerance=1.0)
    assert found.error[0] == pytest.approx(1.2, abs=1e-5) and np.isinf(found.steps[0])


def test_the_path_is_walked_only_while_somebody_is_on_it():
    walked = []

    def path():
        for number in range(5):
            walked.append(number)
            yield Step(constant(1, 0), constant(-1, 0), ramp(), hole())

    trace(np.array([5, 6]), np.array([3, 3]), path(), tolerance=1)
    assert walked == [0]


def test_smaller_flow_means_the_same_way():
    full = Step(constant(4, 2), constant(-4, -2), ramp(), hole())
    half = [constant(sign * 2, sign * 1, HEIGHT // 2, WIDTH // 2) for sign in (1, -1)]
    x, y = np.array([5, 9]), np.array([3, 4])
    expected = trace(x, y, [full], tolerance=1)
    found = trace(x, y, [Step(*half, ramp(), hole())], tolerance=1)
    np.testing.assert_allclose(found.colours, expected.colours, atol=1e-4)


def test_nobody_to_follow():
    assert trace(np.zeros(0, int), np.zeros(0, int), [], tolerance=1).colours.shape == (0, 3)
