"""All benchmarks, one after the other: `make bench`. Takes a quarter of an hour on two cores."""

from benchmarks import client_weight, cost_of_watching, warm_start

for part in (client_weight, warm_start, cost_of_watching):
    print(f"== {part.__name__.rpartition('.')[2]}")
    part.main()
