"""Is the label mask that of TRL? Random conversations on known chat templates, token by token.

    python -m benchmarks.masks [ROWS] [SEED]

Each template gets the same ROWS rows (2,000): system messages, tools and calls where the template
writes them, thoughts, answers of weight 0, blanks, several scripts. A difference without a name
ends the run. docs/training.md explains those that have one.
"""

import sys
from collections import Counter

from tests.support.chat_templates import STYLES
from tests.support.mask_comparison import Comparison, random_row


def main(rows: int = 2000, seed: int = 0) -> None:
    """Compare and print, for each template, how many rows are equal and why the others are not."""
    print(f"{rows:,} rows, seeds {seed} to {seed + rows - 1}")
    for name in STYLES:
        comparison, found, equal = Comparison(name), Counter[str](), 0
        for number in range(seed, seed + rows):
            differences = comparison.differences(random_row(number, comparison.writes_calls))
            found.update(differences)
            equal += not differences
        print(f"{name:<10} {equal:>6,} equal in every token and label")
        for what, count in found.most_common():
            print(f"{'':<10} {count:>6,} {what}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
