"""Confidence intervals of the figures that ftq reports, all at 95 %.

Every held-out set is a sample: a difference smaller than its interval is no difference.
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


def ratio_interval(sums: Sequence[float], counts: Sequence[int]) -> tuple[float, float, float]:
    """Return (ratio, low, high) of sum(sums) / sum(counts), where one row gives one pair.

    Tokens of one row depend on each other, so rows are the sampling unit. The variance is the
    linearised one of a ratio estimator with residuals d_i = sums_i - ratio * counts_i:
    Var = n / (n - 1) * sum(d_i^2) / sum(counts)^2 (Cochran 1977, Sampling Techniques, 3rd ed.,
    section 6.4, without the correction for finite populations). One row gives an interval of
    width zero around the ratio, as no spread can be seen; no counts give NaN.
    """
    total = sum(counts)
    if total == 0:
        return math.nan, math.nan, math.nan
    ratio, rows = sum(sums) / total, len(sums)
    if rows < 2:
        return ratio, ratio, ratio
    residuals = sum((s - ratio * c) ** 2 for s, c in zip(sums, counts, strict=True))
    half = Z_95 * math.sqrt(rows / (rows - 1) * residuals) / total
    return ratio, ratio - half, ratio + half


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
