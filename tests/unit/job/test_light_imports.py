"""Where the training stack is not preloaded, validate begins without it: it takes seconds."""

import subprocess
import sys


def test_validate_is_imported_without_the_training_stack() -> None:
    look = "import sys, ftq_worker.phases.validate; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets", "trl"} & set(done.stdout.split())
