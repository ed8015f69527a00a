"""How many bytes of tensors live at once: counted by their storages, with numbers or without.

Views share a storage, which counts once; one that autograd keeps for backward lives until it is
let go. So the most that ever lives in a step is what a device must hold of it.
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Counts while it is entered; what was there before is added with `add`."""

    def __init__(self, each: Callable[[], object] = lambda: None) -> None:
        """`each` is called after every operation."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.gradients = 0  # of these, gradients of parameters; `add_gradient` tells of them
        self.trace: list[tuple[int, int]] = []  # (now, gradients) after each operation
        self._each = each
        self._alive: dict[int, weakref.ref[Any]] = {}

    @property
    def peak(self) -> int:
        """The most bytes that lived at once."""
        return max(now for now, _ in self.trace)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        self.trace.append((self.now, self.gradients))
        self._each()
        return made

    def add(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, once, until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._alive:
            self._alive[key] = weakref.ref(storage, partial(self._freed, key, size))
            self.now += size

    def add_gradient(self, parameter: torch.Tensor) -> None:
        """Note that a parameter's gradient is there from now on."""
        if parameter.grad is not None:
            self.gradients += parameter.grad.untyped_storage().nbytes()

    def _freed(self, key: int, size: int, _: Any) -> None:
        del self._alive[key]
        self.now -= size
