"""The formulas of training/intervals.py against figures that were worked out elsewhere."""

import math

import pytest

from ftq_worker.training.intervals import macro_f1, ratio_interval, wilson


def test_wilson_equals_published_values():
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (without continuity correction).
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_wilson_knows_its_ends():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(20, 20)[1] == 1.0


def test_ratio_weights_rows_by_their_tokens():
    ratio, low, high = ratio_interval([10.0, 1.0], [10, 1])
    assert ratio == low == high == 1.0  # both rows have the same ratio: no spread
    assert ratio_interval([20.0, 1.0], [10, 1])[0] == pytest.approx(21 / 11)


def test_equal_counts_give_the_interval_of_a_mean():
    values = [1.0, 2.0, 4.0, 5.0]
    mean = 3.0
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 3)
    half = 1.959964 * deviation / math.sqrt(4)
    assert ratio_interval(values, [1] * 4) == pytest.approx((mean, mean - half, mean + half))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    import random

    pick, covered = random.Random(0), 0
    for _ in range(400):
        counts = [pick.randrange(1, 40) for _ in range(100)]
        sums = [sum(pick.expovariate(0.5) for _ in range(c)) for c in counts]  # true ratio 2
        _, low, high = ratio_interval(sums, counts)
        covered += low <= 2.0 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_no_tokens_are_not_a_number():
    assert all(math.isnan(v) for v in ratio_interval([], []))


def test_macro_f1_counts_every_label_once():
    # label 0: F1 2*2/(2*2+0+1) = 0.8; label 1: 2*1/(2*1+1+0) = 2/3
    assert macro_f1([0, 0, 1, 1], [0, 0, 0, 1]) == pytest.approx((0.8 + 2 / 3) / 2)
    assert macro_f1([], []) == 0.0
