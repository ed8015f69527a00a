"""All benchmarks, one after the other: `make bench`. Takes about an hour on two cores."""

from benchmarks import (
    cancelling,
    client_weight,
    cost_of_watching,
    masks,
    memory,
    near_duplicates,
    silence,
    steps,
    style,
    validating,
    warm_start,
)

PARTS = (
    client_weight,
    masks,
    memory,
    near_duplicates,
    warm_start,
    validating,
    cost_of_watching,
    silence,
    steps,
    style,
    cancelling,
)

for part in PARTS:
    print(f"== {part.__name__.rpartition('.')[2]}")
    part.main()
