"""Is the memory of a training step what is counted for it? Real steps of small random models.

    python -m benchmarks.memory [TRIALS] [SEED]

Each trial (100) is a kind of model, full or LoRA, a precision, a length, a micro-batch, with or
without checkpointing. It is trained for two steps on the CPU as ftq trains, and the most that
torch's allocator gave out at once is compared with what `memory_count` says without weights.
"""

import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.support.memory_trials import make_model, small_tiles, train_and_count, trials

from ftq_worker.job.quiet import quiet_libraries
from ftq_worker.training.memory_count import count

MOST_OFF = 0.05


def main(number: int = 100, seed: int = 0) -> None:
    """Compare and print each; a count that is off by more, or too low, ends the run badly."""
    quiet_libraries()
    warnings.simplefilter("ignore")  # what libraries say of models so small
    errors, seconds = [], []
    with tempfile.TemporaryDirectory() as folder, small_tiles():
        models: dict[str, Path] = {}
        for trial in trials(number, seed):
            if trial.kind not in models:
                models[trial.kind] = make_model(Path(folder, trial.kind), trial.kind)
            start = time.process_time()  # the machine has other work
            counted = count(models[trial.kind], trial.setup).tensors
            seconds.append(time.process_time() - start)
            real = train_and_count(trial, models[trial.kind], Path(folder, "run"))
            errors.append(counted / real - 1)
            print(
                f"{trial!s:<66} counted {counted / 1e6:7.2f} MB, real {real / 1e6:7.2f} MB,"
                f" {errors[-1]:+.2%}, {seconds[-1]:.1f} s",
                flush=True,
            )
    print(
        f"{number} trials: off by {statistics.median(map(abs, errors)):.2%} (median), at worst"
        f" {min(errors):+.2%} and {max(errors):+.2%}; seconds of the CPU that a count took:"
        f" {statistics.median(seconds):.1f} (median), at most {max(seconds):.1f}"
    )
    if max(map(abs, errors)) > MOST_OFF:
        sys.exit(1)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
