"""The formulas of training/intervals.py against figures that were worked out elsewhere."""

import math

import pytest

from ftq_worker.training.intervals import gain_interval, macro_f1, ratio_interval, t_95, wilson


def test_wilson_equals_published_values():
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (without continuity correction).
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_wilson_knows_its_ends():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(20, 20)[1] == 1.0


def test_ratio_weights_rows_by_their_tokens():
    assert ratio_interval([20.0, 1.0], [10, 1])[0] == pytest.approx(21 / 11)


def test_equal_counts_give_the_interval_of_a_mean():
    values = [1.0, 2.0, 4.0, 5.0]
    mean = 3.0
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / 3)
    half = 3.1824 * deviation / math.sqrt(4)  # Student's t with 3 degrees of freedom
    ratio, ends = ratio_interval(values, [1] * 4)
    assert ratio == mean
    assert ends == pytest.approx((mean - half, mean + half), abs=1e-4)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    # Fisher, Yates 1963, Statistical Tables, table III; the last is the normal distribution's.
    [
        (1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (7, 2.365), (10, 2.228),
        (19, 2.093), (29, 2.045), (60, 2.000), (120, 1.980), (10**6, 1.960),
    ],
)  # fmt: skip
def test_students_t_equals_the_tables(freedom, quantile):
    assert t_95(freedom) == pytest.approx(quantile, abs=6e-4)


@pytest.mark.parametrize(
    ("sums", "counts"),
    [
        ([1.0], [1]),
        ([3.0], [40]),
        ([0.5] * 20, [1] * 20),
        ([0.0] * 20, [7] * 20),
        ([10.0, 1.0], [10, 1]),  # both rows have the same ratio
        ([0.1 * 3, 0.3, 0.1 + 0.2], [1, 1, 1]),  # equal but for rounding
    ],
)
def test_where_no_spread_can_be_seen_there_is_no_interval(sums, counts):
    ratio, ends = ratio_interval(sums, counts)
    assert ratio == pytest.approx(sum(sums) / sum(counts))
    assert ends is None


def test_an_accuracy_is_never_certain():
    for trials in (1, 2, 30, 10_000):
        for right in (0, trials):
            low, high = wilson(right, trials)
            assert 0 <= low < high <= 1


def test_a_gain_is_seen_through_the_differences_of_the_rows():
    """Rows that are hard before are hard after: the spread of the rows hides nothing."""
    before = [0.1 * i for i in range(1, 31)]
    after = [loss - 0.05 - 0.001 * (i % 3) for i, loss in enumerate(before)]
    gain, ends = gain_interval(before, after, [1] * 30)
    assert gain == pytest.approx(0.051)
    assert ends is not None
    assert 0.05 < ends[0] < gain < ends[1] < 0.052
    _, wide = ratio_interval(before, [1] * 30)
    assert wide is not None
    assert wide[1] - wide[0] > 0.5  # the unpaired interval would hide it
    mixed = [loss + (0.4 if i % 2 else -0.5) for i, loss in enumerate(before)]
    gain, ends = gain_interval(before, mixed, [1] * 30)
    assert gain > 0
    assert ends is not None
    assert ends[0] < 0 < ends[1]


def test_interval_covers_the_truth_about_as_often_as_it_says():
    import random

    pick, covered = random.Random(0), 0
    for _ in range(400):
        counts = [pick.randrange(1, 40) for _ in range(100)]
        sums = [sum(pick.expovariate(0.5) for _ in range(c)) for c in counts]  # true ratio 2
        _, ends = ratio_interval(sums, counts)
        assert ends is not None
        covered += ends[0] <= 2.0 <= ends[1]
    assert 0.91 <= covered / 400 <= 0.98


def test_the_interval_of_a_few_rows_covers_the_truth_as_often():
    import random

    pick, covered = random.Random(1), 0
    for _ in range(1000):
        _, ends = ratio_interval([pick.gauss(2, 1) for _ in range(4)], [1] * 4)
        assert ends is not None
        covered += ends[0] <= 2.0 <= ends[1]
    assert 0.93 <= covered / 1000 <= 0.97


def test_no_tokens_are_not_a_number():
    ratio, ends = ratio_interval([], [])
    assert math.isnan(ratio)
    assert ends is None


def test_macro_f1_counts_every_label_once():
    # label 0: F1 2*2/(2*2+0+1) = 0.8; label 1: 2*1/(2*1+1+0) = 2/3
    assert macro_f1([0, 0, 1, 1], [0, 0, 0, 1]) == pytest.approx((0.8 + 2 / 3) / 2)
    assert macro_f1([], []) == 0.0
