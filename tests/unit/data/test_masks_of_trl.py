"""Random conversations on known chat templates: the mask is TRL's, but for named differences."""

import pytest
from tests.support.chat_templates import STYLES
from tests.support.mask_comparison import Comparison, Difference, random_row

# All that may differ on a template; `python -m benchmarks.masks` counts them in 2,000 rows each.
ALLOWED = {
    "smollm2": {Difference.BORDER},
    "qwen2_5": {Difference.AFTER, Difference.OPENING, Difference.BORDER},
    "qwen3": {Difference.AFTER, Difference.EARLIER},
    "llama3": set(),
    "gemma": {Difference.AFTER, Difference.BOTH_REFUSE},
    "mistral": set(),
    "phi3": {Difference.CLOSING, Difference.BORDER},
    "r1": {Difference.OPENING, Difference.BORDER, Difference.EARLIER, Difference.THOUGHTS},
}


@pytest.mark.parametrize("name", STYLES)
def test_the_mask_is_that_of_trl(name: str) -> None:
    comparison = Comparison(name)
    for seed in range(60):
        row = random_row(seed, comparison.writes_calls)
        assert comparison.differences(row) <= ALLOWED[name] | {Difference.WEIGHT}, seed
