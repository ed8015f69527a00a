"""Layers nearer to the input are trained with a lower rate, exactly as a resume needs it."""

import pytest
import torch
from tests.support.tiny_jobs import tiny_job
from transformers import AutoConfig, AutoModelForSequenceClassification

from ftq_worker.job.reports import Trained
from ftq_worker.phases import train
from ftq_worker.training.layer_rates import lower_rates, rate_shares


def encoder(kind: str) -> torch.nn.Module:
    config = AutoConfig.for_model(kind, num_labels=3)
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert", "deberta-v2"])
def test_each_layer_has_its_share(kind):
    model = encoder(kind)
    count = model.config.num_hidden_layers
    shares = rate_shares(model, 0.5)
    found = {}
    for name, share in shares.items():
        part = name.split("layer.")[-1] if ".layer." in name else name.split("layers.")[-1]
        if part != name:
            found.setdefault(int(part.split(".")[0]), set()).add(share)
    assert found == {layer: {0.5 ** (count - 1 - layer)} for layer in range(count)}
    heads = {s for name, s in shares.items() if name.startswith(("classifier", "head"))}
    assert heads == {1.0}
    assert {s for name, s in shares.items() if "word_emb" in name or "tok_emb" in name} == {
        0.5**count
    }


def test_shared_layers_all_have_the_whole_rate():
    assert set(rate_shares(encoder("albert"), 0.5).values()) == {1.0}


def test_the_groups_keep_weight_decay_and_the_first_has_the_whole_rate():
    model = encoder("distilbert")
    plain = [w for w in model.parameters() if w.dim() > 1]
    rest = [w for w in model.parameters() if w.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=1e-3
    )
    lower_rates(optimizer, model, 0.5)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    for group in optimizer.param_groups:
        assert {w.dim() > 1 for w in group["params"]} == {group["weight_decay"] == 0.1}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(plain) + len(rest)
    assert {g["lr"] for g in optimizer.param_groups} == {1e-3 * 0.5**n for n in range(7)}


def test_a_job_trains_with_them_and_says_so(tmp_path, bert):
    given = {"max_steps": 2, "layerwise_lr_decay": 0.9, "save_every": 1}
    job = tiny_job(tmp_path, bert, "classification", train=given)
    train.run(job.ctx)
    assert Trained.load(job.ctx.paths.train_report).settings["layerwise_lr_decay"] == 0.9
    state = torch.load(
        next(job.ctx.paths.root.rglob("checkpoint-1/optimizer.pt")), weights_only=True
    )
    layers = 2
    rates = {round(group["initial_lr"] / 1e-3, 6) for group in state["param_groups"]}
    assert rates == {round(0.9**n, 6) for n in range(layers + 1)}
