"""The right name for a wrong one: names that people bring from other tools, then the nearest.

The table covers transformers' Trainer, TRL, Axolotl, LLaMA-Factory, Unsloth, torchtune and
OpenAI. It comes first because difflib answers most of these wrongly (`save_steps` is nearer to
`max_steps` than to `save_every`).
"""

import difflib

from ftq_shared.spec_input.schema import fields, leaves
from ftq_shared.trainer_fields import (
    ALWAYS,
    BATCH,
    EVERY_STEP,
    NOT_HERE,
    RESUMES,
    SAVE,
    TOKENIZER,
    TRAINER_FIELDS,
)

# wrong name, in lower case with underscores -> (right name or "", what to know)
_ELSEWHERE: dict[str, tuple[str, str]] = {
    # model and data
    "model_name_or_path": ("model", ""),
    "model_name": ("model", ""),
    "model_id": ("model", ""),
    "base_model": ("model", ""),
    "pretrained_model_name_or_path": ("model", ""),
    "model_revision": ("model", "write id@revision"),
    "revision": ("model", "write id@revision"),
    "revision_of_model": ("model", "write id@revision"),
    "tokenizer": ("", TOKENIZER),
    "tokenizer_config": ("", TOKENIZER),
    "tokenizer_type": ("", TOKENIZER),
    "model_type": ("", "the type is read from the model's config.json"),
    "datasets": ("dataset", "one dataset; several files as a folder or glob"),
    "dataset_name": ("dataset", ""),
    "dataset_id": ("dataset", ""),
    "dataset_path": ("dataset", ""),
    "training_file": ("dataset", ""),
    "train_file": ("dataset", ""),
    "data_path": ("dataset", ""),
    "data_files": ("dataset", ""),
    "dataset_config": ("dataset", "write dataset:config"),
    "dataset_config_name": ("dataset", "write dataset:config"),
    "train_split": ("data.split", ""),
    "dataset_train_split": ("data.split", ""),
    "dataset_test_split": ("data.test", ""),
    "eval_split": ("data.validation", ""),
    "valid_split": ("data.validation", ""),
    "eval_dataset": ("data.validation", "a split of the dataset; auto holds 2 % out"),
    "validation_file": ("data.validation", "a split of the dataset; auto holds 2 % out"),
    "test_datasets": ("data.test", "a split of the dataset"),
    "val_set_size": ("data.validation", "the name of a split; auto holds 2 % out"),
    "val_size": ("data.validation", "the name of a split; auto holds 2 % out"),
    "test_size": ("data.golden.size", ""),
    "column_mapping": ("data.columns", ""),
    "text_column": ("data.columns.text", ""),
    "text_field": ("data.columns.text", ""),
    "prompt_column": ("data.columns.prompt", ""),
    "field_instruction": ("data.columns.prompt", ""),
    "field_output": ("data.columns.completion", ""),
    "response_column": ("data.columns.completion", ""),
    "answer": ("data.columns.completion", ""),
    "question": ("data.columns.prompt", ""),
    "label_column": ("data.columns.label", ""),
    "target_column": ("data.columns.label", ""),
    "field_messages": ("data.columns.messages", ""),
    "formatting_func": ("data.row_template", ""),
    "prompt_template": ("data.row_template", ""),
    "prompt_style": ("data.row_template", ""),
    "template": ("data.chat_template", ""),
    "max_train_samples": ("data.max_rows", ""),
    "max_samples": ("data.max_rows", ""),
    "max_rows": ("data.max_rows", ""),
    "dataset_exact_deduplication": ("data.dedupe", "exact is the default"),
    "streaming": ("", "datasets are always streamed from disk"),
    "shuffle": ("", "rows are shuffled by train.seed"),
    # how long, how much
    "num_epochs": ("train.epochs", ""),
    "n_epochs": ("train.epochs", ""),
    "epoch": ("train.epochs", ""),
    "max_epochs": ("train.epochs", ""),
    "max_steps_per_epoch": ("train.max_steps", ""),
    "total_steps": ("train.max_steps", ""),
    "lr": ("train.learning_rate", ""),
    "learning_rate_multiplier": ("train.learning_rate", "the rate itself, for example 2e-4"),
    "micro_batch_size": ("train.micro_batch", f"or only train.batch_size, which {BATCH}"),
    "train_batch_size": ("train.batch_size", f"it {BATCH}"),
    "eval_batch_size": ("train.micro_batch", "evaluation uses the same"),
    "global_batch_size": ("train.batch_size", f"it {BATCH}"),
    "max_seq_length": ("train.max_length", ""),
    "max_seq_len": ("train.max_length", ""),
    "sequence_len": ("train.max_length", ""),
    "model_max_length": ("train.max_length", ""),
    "cutoff_len": ("train.max_length", "longer rows are dropped and counted, never cut"),
    "block_size": ("train.max_length", ""),
    "context_length": ("train.max_length", ""),
    "sample_packing": ("train.packing", ""),
    "neat_packing": ("train.packing", ""),
    "pad_to_sequence_len": ("", ALWAYS),
    "group_by_length": ("", "rows are grouped by length where they are not packed"),
    "saves_per_epoch": ("train.save_every", SAVE),
    "evals_per_epoch": ("train.eval_every", "in steps"),
    "evaluation_strategy": ("train.eval_every", "in steps"),
    "auto_resume_from_checkpoints": ("", RESUMES),
    "random_state": ("train.seed", ""),
    "random_seed": ("train.seed", ""),
    # method and numbers
    "finetuning_type": ("train.method", "full, lora or qlora"),
    "adapter": ("train.method", "full, lora or qlora"),
    "use_peft": ("train.method", "lora"),
    "use_lora": ("train.method", "lora"),
    "full_finetuning": ("train.method", "full"),
    "load_in_4bit": ("train.method", "qlora"),
    "quantization_bit": ("train.method", "qlora is 4 bit"),
    "load_in_8bit": ("train.method", "8 bit is not offered; qlora is 4 bit"),
    "mixed_precision": ("train.precision", "auto, bf16, fp16 or fp32"),
    "dtype": ("train.precision", "auto, bf16, fp16 or fp32"),
    "torch_dtype": ("train.precision", "auto, bf16, fp16 or fp32"),
    "lora_r": ("train.lora.r", ""),
    "lora_rank": ("train.lora.r", ""),
    "rank": ("train.lora.r", ""),
    "lora_alpha": ("train.lora.alpha", ""),
    "lora_dropout": ("train.lora.dropout", ""),
    "lora_target_modules": ("train.lora.target_modules", ""),
    "lora_target": ("train.lora.target_modules", ""),
    "lora_target_linear": ("train.lora.target_modules", "auto is every linear layer"),
    "lora_attn_modules": ("train.lora.target_modules", ""),
    # fields of the trainer that go through train.args
    "warmup_ratio": ("train.args.warmup_steps", "below 1 it is a share of all steps"),
    "warmup_steps": ("train.args.warmup_steps", "below 1 it is a share of all steps"),
    "lr_scheduler": ("train.args.lr_scheduler_type", ""),
    "lr_scheduler_type": ("train.args.lr_scheduler_type", ""),
    "weight_decay": ("train.args.weight_decay", ""),
    "optim": ("train.args.optim", ""),
    "optimizer": ("train.args.optim", ""),
    "max_grad_norm": ("train.args.max_grad_norm", ""),
    "gradient_clipping": ("train.args.max_grad_norm", ""),
    "neftune_noise_alpha": ("train.args.neftune_noise_alpha", ""),
    "label_smoothing_factor": ("train.args.label_smoothing_factor", ""),
    "use_gradient_checkpointing": ("train.args.activation_checkpointing", ""),
    "activation_checkpointing": ("train.args.activation_checkpointing", ""),
    "flash_attention": ("", "the fastest attention of the host is used"),
    "attn_implementation": ("", "the fastest attention of the host is used"),
    "use_unsloth": ("", "not offered"),
    # task
    "stage": ("task", "sft, classification, preference or text"),
    "task_type": ("task", "sft, classification, preference or text"),
    "rl": ("task", "preference"),
    "training_type": ("task", "sft, classification, preference or text"),
    # resources
    "num_gpus": ("resources.gpus", ""),
    "n_gpus": ("resources.gpus", ""),
    "gpu": ("resources.gpus", ""),
    "num_processes": ("resources.gpus", ""),
    "nproc_per_node": ("resources.gpus", ""),
    "accelerator": ("resources.gpus", "2, or h100:2"),
    "no_cuda": ("resources.gpus", "0 forces the CPU"),
    "device": ("resources.gpus", "0 forces the CPU"),
    "timeout": ("resources.max_runtime", "for example 2h"),
    "max_time": ("resources.max_runtime", "for example 2h"),
    "retries": ("resources.max_attempts", ""),
    "max_retries": ("resources.max_attempts", ""),
    # where the result goes, who hears of it
    "publish_to": ("publish.repo", ""),
    "push_to_hub_model_id": ("publish.repo", ""),
    "repo_id": ("publish.repo", ""),
    "merge_adapter": ("publish.format", "merged"),
    "save_method": ("publish.format", "adapter or merged"),
    "logging_dir": ("", EVERY_STEP),
    "overwrite_output_dir": ("publish.overwrite", "for the target repo"),
    "suffix": ("name", ""),
    "job_name": ("name", ""),
    "wandb_project": ("report_to", "not connected yet; every step is an event"),
    "use_wandb": ("report_to", "not connected yet; every step is an event"),
    "use_tensorboard": ("", EVERY_STEP),
    "log_every_n_steps": ("", EVERY_STEP),
    "hf_token": ("", NOT_HERE),
    "hf_hub_token": ("", NOT_HERE),
    "push_to_hub_token": ("", NOT_HERE),
    "token": ("", NOT_HERE),
    "use_auth_token": ("", NOT_HERE),
    "api_key": ("", NOT_HERE),
}

_OURS = {name.rpartition(".")[2] for name in leaves()}
# A field that has the same name here needs no entry: the spec's own keys are looked at as well.
ALIASES = _ELSEWHERE | {k: answer for k, answer in TRAINER_FIELDS.items() if k not in _OURS}


def _normal(name: str) -> str:
    return name.strip().lstrip("-").replace("-", "_").lower()


def suggest(dotted: str, allowed: list[str]) -> str:
    """Say what to write instead of an unknown key; `allowed` are the keys of its section."""
    last = _normal(dotted.rpartition(".")[2])
    if last in ALIASES and ALIASES[last][0] != dotted:
        right, note = ALIASES[last]
        return _right_name(right, note)
    if near := _nearest(dotted, last, allowed):
        return f"did you mean {' or '.join(near)}?"
    return f"allowed here: {', '.join(allowed)}"


def _right_name(right: str, note: str) -> str:
    if not right:
        return note
    return f"here it is {right}" + (f" ({note})" if note else "")


def _nearest(dotted: str, last: str, allowed: list[str]) -> list[str]:
    """Return up to two names: one beside it, the same last part elsewhere, what difflib finds."""
    section = dotted.rpartition(".")[0]
    if beside := difflib.get_close_matches(last, allowed, n=1, cutoff=0.75):
        return [f"{section}.{beside[0]}" if section else beside[0]]
    if same := [name for name in leaves() if name.rpartition(".")[2] == last]:
        return same[:2]
    by_last = {name.rpartition(".")[2]: name for name in reversed(fields())}
    near = difflib.get_close_matches(last, by_last, n=2, cutoff=0.75)
    found = [by_last[name] for name in near]
    found += difflib.get_close_matches(_normal(dotted), list(fields()), n=2, cutoff=0.8)
    return list(dict.fromkeys(found))[:2]


def owned_arg(name: str) -> str | None:
    """Say what to write instead of a key of `train.args`; None when the trainer may have it."""
    key = _normal(name)
    if key in TRAINER_FIELDS:
        right, note = TRAINER_FIELDS[key]
        ours = right and not right.startswith("train.args.")
        return ("ftq sets it; " if ours else "") + _right_name(right, note)
    same = f"train.{key}" if f"train.{key}" in fields() else ""
    right, note = ALIASES.get(key, (same, ""))
    if right == f"train.args.{name}" or not (right or note):
        return None
    return f"the trainer has no such field; {_right_name(right, note)}"
