"""Reading a job spec from YAML, flags, `--set` and plain mappings.

    raw = merge(load_yaml("job.yaml"), {"model": "org/name"})
    spec = parse_spec(apply_sets(raw, ["train.epochs=2"]))

All errors are found at once and told with the right names.
"""

from ftq_shared.spec_input.layers import apply_sets, load_yaml, merge, nested
from ftq_shared.spec_input.parse import parse_spec

__all__ = [
    "apply_sets",
    "load_yaml",
    "merge",
    "nested",
    "parse_spec",
]
