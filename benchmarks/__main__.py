"""All benchmarks, one after the other: `make bench`. Takes about an hour on two cores."""

from benchmarks import (
    cancelling,
    client_weight,
    cost_of_watching,
    masks,
    near_duplicates,
    silence,
    warm_start,
)

PARTS = (client_weight, masks, near_duplicates, warm_start, cost_of_watching, silence, cancelling)

for part in PARTS:
    print(f"== {part.__name__.rpartition('.')[2]}")
    part.main()
