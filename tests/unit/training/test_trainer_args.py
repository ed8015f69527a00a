"""The table of trainer fields against the trainer that is installed."""

import inspect

import pytest

from ftq_shared.spec import Task
from ftq_shared.spec_input.aliases import ALIASES, owned_arg
from ftq_shared.spec_input.dotted_fields import fields
from ftq_shared.trainer_fields import TRAINER_FIELDS
from ftq_worker.training import trainer_args
from ftq_worker.training.trainer_args import trainer_fields


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
        "activation_checkpointing",
        "dataloader_pin_memory",
        "lr_scheduler_type",
        "warmup_steps",
    }
