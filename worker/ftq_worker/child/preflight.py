"""Try a card: allocate, multiply, compare. What is wrong with it is the last line printed.

    CUDA_VISIBLE_DEVICES=UUID python -m ftq_worker.child.preflight

Exit code 0: the card computes. A process of its own for each card: where one is broken, CUDA may
refuse them all, and what a driver does to a process stays there.
"""

import sys

SIDE = 512  # of the matrices: small integers, so that float32 sums are exact
BYTES = 64 * 2**20  # that must be free


def fault() -> str:
    """Return why the only visible card cannot be used, '' when it computes right."""
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return f"torch {torch.__version__} was built for the CPU only: install the build for CUDA"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        room = torch.empty(BYTES, dtype=torch.uint8, device="cuda")
        matrix = torch.arange(SIDE * SIDE, dtype=torch.float32).reshape(SIDE, SIDE) % 7
        product = (matrix.cuda() @ matrix.cuda()).cpu()
        del room
    except (RuntimeError, AssertionError) as error:  # what torch raises for a driver's errors
        lines = str(error).strip().splitlines()
        return lines[0] if lines else repr(error)
    return "" if torch.equal(product, matrix @ matrix) else "it multiplies two matrices wrongly"


if __name__ == "__main__":
    if found := fault():
        print(found)  # noqa: T201  read by the agent
        sys.exit(1)
