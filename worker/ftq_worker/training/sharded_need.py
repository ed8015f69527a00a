"""What a training step needs of each card where the model is sharded over several."""

from dataclasses import replace

from ftq_worker.training.facts import RunFacts
from ftq_worker.training.memory_need import Need, Setup

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}


def on_each_card(need: Need, setup: Setup, facts: RunFacts) -> Need:
    """Return what is needed of each of the cards, from what one would need of it all.

    Weights, gradients and optimizer state are shared out; the buckets of DDP, and the copies in
    half precision that autocast keeps of all trained weights, are not there. Not counted but worked
    out from the model's sizes is what is gathered of them: both ends of the model and two layers at
    a time, and the gradients of one of these in float32, before they are shared out again.
    """
    ranks, model = facts.device.world_size, facts.model
    end = model.vocab_size * model.hidden_size
    layer = (model.parameters or 12 * model.layers * model.hidden_size**2) // model.layers
    gathered = BYTES[setup.precision] * 2 * (end + layer) + 4 * max(end, layer)
    buckets = need.trained if setup.ranks > 1 else 0
    copies = need.trained // 2 if setup.method == "full" and setup.precision != "fp32" else 0
    return replace(
        need,
        base=need.base // ranks,
        trained=need.trained // ranks,
        optimizer=need.optimizer // ranks,
        gradients=need.gradients // ranks,
        activations=max(0, need.activations - copies),
        working=max(0, need.working - buckets) + gathered,
    )
