"""Confidence intervals of the figures that ftq reports, all at 95 %.

Every held-out set is a sample: a difference smaller than its interval is no difference. No
interval has a width of zero: where no spread can be seen, there is none.
"""

import math
from collections.abc import Sequence

Z_95 = 1.959964  # two-sided 95 % quantile of the standard normal distribution


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion, both ends within 0 and 1.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22;
    recommended over the normal interval by Brown, Cai, DasGupta 2001, Statistical Science 16(2).
    No trials give (0.0, 1.0): nothing is known.
    """
    if trials == 0:
        return 0.0, 1.0
    p, z2 = successes / trials, Z_95**2
    center = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z_95 / (1 + z2 / trials) * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    return max(0.0, center - half), min(1.0, center + half)


Interval = tuple[float, float]  # low, high

# Relative spread below which float32 cannot tell figures from equal ones.
_RESOLUTION = 1e-7


def ratio_interval(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, Interval | None]:
    """Return sum(sums) / sum(counts), where one row gives one pair, and its interval.

    Tokens of one row depend on each other, so rows are the sampling unit. The variance is the
    linearised one of a ratio estimator with residuals d_i = sums_i - ratio * counts_i:
    Var = n / (n - 1) * sum(d_i^2) / sum(counts)^2 (Cochran 1977, Sampling Techniques, 3rd ed.,
    section 6.4, without the correction for finite populations), the quantile that of Student's t
    with n - 1 degrees of freedom. The interval is None for fewer than two rows and for rows that
    are all equal: no spread can be seen then. No counts give NaN and None.
    """
    total = sum(counts)
    if total == 0:
        return math.nan, None
    ratio, rows = sum(sums) / total, len(sums)
    if rows < 2:
        return ratio, None
    residuals = sum((s - ratio * c) ** 2 for s, c in zip(sums, counts, strict=True))
    half = t_95(rows - 1) * math.sqrt(rows / (rows - 1) * residuals) / total
    if half <= _RESOLUTION * abs(ratio):
        return ratio, None
    return ratio, (ratio - half, ratio + half)


def gain_interval(
    before: Sequence[float], after: Sequence[float], counts: Sequence[int]
) -> tuple[float, Interval | None]:
    """Return how much lower the loss is after than before on the same rows, and its interval.

    The rows are paired: what makes a row hard stays the same in both, so only the differences
    d_i = before_i - after_i vary, and the gain is the ratio sum(d_i) / sum(counts_i) with the
    interval of `ratio_interval` (the paired t-test, Student 1908, Biometrika 6(1), on a ratio).
    """
    return ratio_interval([b - a for b, a in zip(before, after, strict=True)], counts)


def t_95(freedom: int) -> float:
    """Return the two-sided 95 % quantile of Student's t with `freedom` degrees, 1 or more.

    Hill 1970, "Algorithm 396: Student's t-quantiles", Communications of the ACM 13(10); exact for
    1 and 2 degrees, else within 1e-4 of the tables.
    """
    p, n = 0.05, float(freedom)
    if freedom == 1:
        return 1 / math.tan(p * math.pi / 2)
    if freedom == 2:
        return math.sqrt(2 / (p * (2 - p)) - 2)
    a = 1 / (n - 0.5)
    b = 48 / a**2
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * n
    y = (d * p) ** (2 / n)
    if y > 0.05 + a:
        x = -Z_95
        y = x * x
        if freedom < 5:
            c += 0.3 * (n - 4.5) * (x + 0.6)
        c += (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = math.expm1(a * y * y)
    else:
        y = (
            (1 / (((n + 6) / (n * y) - 0.089 * d - 0.822) * (n + 2) * 3) + 0.5 / (n + 4)) * y - 1
        ) * (n + 1) / (n + 2) + 1 / y
    return math.sqrt(n * y)


def macro_f1(predicted: Sequence[int], actual: Sequence[int]) -> float:
    """Return the mean F1 over the labels that occur in either sequence; 0.0 for no rows."""
    labels = set(predicted) | set(actual)
    if not labels:
        return 0.0
    pairs = list(zip(predicted, actual, strict=True))
    scores = []
    for label in labels:
        hits = sum(p == label == a for p, a in pairs)
        seen = sum((p == label) + (a == label) for p, a in pairs)
        scores.append(2 * hits / seen)  # F1 = 2 TP / (2 TP + FP + FN)
    return sum(scores) / len(scores)
