"""How many rows a held-out set needs before its figures decide anything."""

# The working rule for the intervals of a ratio: more than 30 rows, else the normal approximation
# is not to be trusted (Cochran 1977, Sampling Techniques, 3rd ed., chapter 6).
FEWEST_TO_JUDGE = 30
TOO_FEW_TO_JUDGE = "too few rows to judge"


def rows_in_words(count: int) -> str:
    """Return `1 row` or `12 rows`."""
    return f"{count:,} row{'' if count == 1 else 's'}"
