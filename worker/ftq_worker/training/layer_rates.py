"""A lower learning rate for the layers nearer to the input, which have learned what is general.

Discriminative fine-tuning: Howard & Ruder 2018 (arXiv 1801.06146, section 3.2); as a factor for
each layer, Clark et al. 2020, ELECTRA (arXiv 2003.10555, appendix B).
"""

import re

import torch
from torch import nn

_NUMBER = re.compile(r"\.(\d+)\.")


def rate_shares(model: nn.Module, decay: float) -> dict[str, float]:
    """Return the share of the learning rate by name of each weight.

    The head, a pooler and the last layer have all of it, each layer before it `decay` times that of
    the next, embeddings that of a layer before the first. Where the layers cannot be told apart
    (ALBERT's share their weights), all have all of it.
    """
    names = [name for name, _ in model.named_parameters()]
    if not (layers := _layers(model)):
        return dict.fromkeys(names, 1.0)
    path, count = layers
    shares = {}
    for name in names:
        if name.startswith(f"{path}."):
            found = _NUMBER.match(name, len(path))
            below = count - 1 - int(found[1]) if found else 0
        else:
            below = count if "embed" in name else 0
        shares[name] = decay**below
    return shares


def _layers(model: nn.Module) -> tuple[str, int] | None:
    """Return the name of the list of layers, and how many there are."""
    count = getattr(getattr(model, "config", None), "num_hidden_layers", 0)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count > 1:
            return name, count
    return None


def lower_rates(optimizer: torch.optim.Optimizer, model: nn.Module, decay: float) -> None:
    """Give every weight its share of the optimizer's learning rate; the first group keeps all.

    To be called before the first step and before a schedule is made.
    """
    shares = rate_shares(model, decay)
    share_of = {id(weight): shares[name] for name, weight in model.named_parameters()}
    groups: dict[tuple[float, int], dict[str, object]] = {}
    for number, group in enumerate(optimizer.param_groups):
        for weight in group["params"]:
            share = share_of.get(id(weight), 1.0)
            made = groups.setdefault(
                (-share, number), {**group, "lr": group["lr"] * share, "params": []}
            )
            made["params"].append(weight)  # type: ignore[attr-defined]
    optimizer.param_groups.clear()
    for _, made in sorted(groups.items(), key=lambda item: item[0]):
        optimizer.add_param_group(made)
