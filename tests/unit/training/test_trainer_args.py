"""The table of trainer fields against the trainer that is installed."""

import inspect

import pytest

from ftq_shared.errors import Refused
from ftq_shared.spec import Task
from ftq_shared.spec_input.aliases import ALIASES, owned_arg
from ftq_shared.spec_input.dotted_fields import fields
from ftq_shared.trainer_fields import TRAINER_FIELDS
from ftq_worker.training import trainer_args
from ftq_worker.training.trainer_args import check_trainer_args, trainer_fields


def test_every_entry_is_a_field_of_the_trainer():
    assert TRAINER_FIELDS.keys() <= trainer_fields(Task.SFT)
    assert trainer_fields(Task.CLASSIFICATION) <= trainer_fields(Task.SFT)


@pytest.mark.parametrize("name", sorted(TRAINER_FIELDS))
def test_every_answer_leads_somewhere_else(name):
    right, note = TRAINER_FIELDS[name]
    assert right or note
    assert right != f"train.args.{name}"
    if right.startswith("train.args."):
        assert owned_arg(right.rpartition(".")[2]) is None
        assert right.rpartition(".")[2] in trainer_fields(Task.SFT)
    elif right:
        assert right in fields()


def test_what_is_said_to_be_no_field_is_none():
    known = trainer_fields(Task.SFT)
    for name in ALIASES:
        assert "no such field" not in (owned_arg(name) or "") or name not in known, name


def test_what_ftq_sets_is_in_the_table_or_may_be_set_over():
    """`common_args` lays the person's own fields over its own: only these may win."""
    source = inspect.getsource(trainer_args.common_args)
    names = {name for name in trainer_fields(Task.SFT) if f'"{name}":' in source}
    assert names - TRAINER_FIELDS.keys() == {
        "dataloader_pin_memory",
        "lr_scheduler_type",
        "warmup_steps",
    }


@pytest.mark.parametrize("task", [Task.SFT, Task.CLASSIFICATION])
@pytest.mark.parametrize(
    ("args", "bad"),
    [
        ({"weight_decay": "abc"}, {"weight_decay": "a valid number"}),
        ({"max_grad_norm": True}, {"max_grad_norm": "a valid number"}),
        ({"optim": 5, "adam_beta1": []}, {"optim": "5", "adam_beta1": "[]"}),
        ({"weight_decy": 0.1, "adam_beta2": "x"}, {"weight_decy": "no such", "adam_beta2": "x"}),
        ({"adam_beta1": 1.5, "weight_decay": 0.1}, {"adam_beta1": "1.5"}),
        (
            {"optim": "foo", "lr_scheduler_type": "bar"},
            {"optim": "foo", "lr_scheduler_type": "bar"},
        ),
        ({"lr_scheduler_kwargs": {"powr": 2}}, {"lr_scheduler_kwargs": "powr"}),
        ({"optim_args": "foo"}, {"optim_args": ""}),
        ({"torch_compile_backend": "nope"}, {"torch_compile_backend": "NOPE"}),
        ({"warmup_steps": -4}, {"warmup_steps": ">= 0"}),
    ],
)
def test_all_that_the_trainer_cannot_work_with_is_refused_at_once(task, args, bad):
    with pytest.raises(Refused) as refused:
        check_trainer_args(task, args)
    problems = refused.value.message
    for key, why in bad.items():
        assert f"train.args.{key}: " in problems
        assert why in problems
    for key in args.keys() - bad.keys():
        assert f"train.args.{key}: " not in problems


@pytest.mark.parametrize("task", [Task.SFT, Task.CLASSIFICATION])
@pytest.mark.parametrize(
    "args",
    [
        {"weight_decay": 0.1, "max_grad_norm": 1, "warmup_steps": 5},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 2}},
        {"lr_scheduler_type": "reduce_lr_on_plateau"},
        {"optim": "adafactor"},
        {"neftune_noise_alpha": 5.0},
        {"optim_target_modules": "all-linear"},
    ],
)
def test_what_the_trainer_takes_is_let_through(task, args, capfd):
    check_trainer_args(task, args)
    assert capfd.readouterr().out == ""


def test_arguments_that_only_fit_apart_are_named_together():
    args = {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"num_cycles": 0.5}}
    for key, value in args.items():
        check_trainer_args(Task.SFT, {key: value})
    both = r"train\.args\.lr_scheduler_type, lr_scheduler_kwargs: .*num_cycles"
    with pytest.raises(Refused, match=both):
        check_trainer_args(Task.SFT, args)
