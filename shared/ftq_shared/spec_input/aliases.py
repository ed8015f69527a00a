"""The right name for a wrong one: names that people bring from other tools, then the nearest.

The table covers transformers' Trainer, TRL, Axolotl, LLaMA-Factory, Unsloth, torchtune and
OpenAI. It comes first because difflib answers most of these wrongly (`save_steps` is nearer to
`max_steps` than to `save_every`).
"""

import difflib

from ftq_shared.spec_input.schema import fields, leaves

_BATCH = "counts the examples of one optimizer step, accumulation and all GPUs included"
_ALWAYS = "ftq does it by itself; leave it out"
_EVERY_STEP = "every step is an event; leave it out"
_NOT_HERE = "a token never stands in a spec; set HF_TOKEN, or use --token-stdin"

# wrong name, in lower case with underscores -> (right name or "", what to know)
ALIASES: dict[str, tuple[str, str]] = {
    # model and data
    "model_name_or_path": ("model", ""),
    "model_name": ("model", ""),
    "model_id": ("model", ""),
    "base_model": ("model", ""),
    "pretrained_model_name_or_path": ("model", ""),
    "model_revision": ("model", "write id@revision"),
    "revision": ("model", "write id@revision"),
    "revision_of_model": ("model", "write id@revision"),
    "tokenizer": ("", "the model's own tokenizer is used"),
    "tokenizer_config": ("", "the model's own tokenizer is used"),
    "tokenizer_type": ("", "the model's own tokenizer is used"),
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
    "dataset_text_field": ("data.columns.text", ""),
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
    "num_train_epochs": ("train.epochs", ""),
    "num_epochs": ("train.epochs", ""),
    "n_epochs": ("train.epochs", ""),
    "epoch": ("train.epochs", ""),
    "max_epochs": ("train.epochs", ""),
    "max_steps_per_epoch": ("train.max_steps", ""),
    "total_steps": ("train.max_steps", ""),
    "lr": ("train.learning_rate", ""),
    "learning_rate_multiplier": ("train.learning_rate", "the rate itself, for example 2e-4"),
    "per_device_train_batch_size": (
        "train.micro_batch",
        f"or only train.batch_size, which {_BATCH}",
    ),
    "micro_batch_size": ("train.micro_batch", f"or only train.batch_size, which {_BATCH}"),
    "train_batch_size": ("train.batch_size", f"it {_BATCH}"),
    "per_device_eval_batch_size": ("train.micro_batch", "evaluation uses the same"),
    "eval_batch_size": ("train.micro_batch", "evaluation uses the same"),
    "gradient_accumulation_steps": ("train.batch_size", f"it {_BATCH}; accumulation follows"),
    "global_batch_size": ("train.batch_size", f"it {_BATCH}"),
    "auto_find_batch_size": ("train.micro_batch", "auto is the default"),
    "max_seq_length": ("train.max_length", ""),
    "max_seq_len": ("train.max_length", ""),
    "sequence_len": ("train.max_length", ""),
    "model_max_length": ("train.max_length", ""),
    "cutoff_len": ("train.max_length", "longer rows are dropped and counted, never cut"),
    "block_size": ("train.max_length", ""),
    "context_length": ("train.max_length", ""),
    "sample_packing": ("train.packing", ""),
    "neat_packing": ("train.packing", ""),
    "padding_free": ("train.packing", ""),
    "pad_to_sequence_len": ("", _ALWAYS),
    "group_by_length": ("", "rows are grouped by length where they are not packed"),
    "save_steps": ("train.save_every", "steps such as 500, or a time such as 10m"),
    "save_strategy": ("train.save_every", "steps such as 500, or a time such as 10m"),
    "saves_per_epoch": ("train.save_every", "steps such as 500, or a time such as 10m"),
    "eval_steps": ("train.eval_every", "in steps"),
    "evals_per_epoch": ("train.eval_every", "in steps"),
    "eval_strategy": ("train.eval_every", "in steps"),
    "evaluation_strategy": ("train.eval_every", "in steps"),
    "save_total_limit": ("", "the newest and the best checkpoint are kept"),
    "load_best_model_at_end": ("", "the best checkpoint is always the result"),
    "resume_from_checkpoint": ("", "jobs resume by themselves; see `ftq retry`"),
    "auto_resume_from_checkpoints": ("", "jobs resume by themselves; see `ftq retry`"),
    "random_state": ("train.seed", ""),
    "random_seed": ("train.seed", ""),
    "data_seed": ("train.seed", "one seed for everything"),
    # method and numbers
    "finetuning_type": ("train.method", "full, lora or qlora"),
    "adapter": ("train.method", "full, lora or qlora"),
    "use_peft": ("train.method", "lora"),
    "use_lora": ("train.method", "lora"),
    "full_finetuning": ("train.method", "full"),
    "load_in_4bit": ("train.method", "qlora"),
    "quantization_bit": ("train.method", "qlora is 4 bit"),
    "load_in_8bit": ("train.method", "8 bit is not offered; qlora is 4 bit"),
    "bf16": ("train.precision", "bf16"),
    "fp16": ("train.precision", "fp16"),
    "tf32": ("train.precision", "auto, bf16, fp16 or fp32"),
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
    "gradient_checkpointing": ("train.args.activation_checkpointing", ""),
    "use_gradient_checkpointing": ("train.args.activation_checkpointing", ""),
    "activation_checkpointing": ("train.args.activation_checkpointing", ""),
    "dataloader_num_workers": ("", "ftq sets it; leave it out"),
    "deepspeed": ("", "not offered by this version; resources.gpus sets the number of GPUs"),
    "fsdp": ("", "not offered by this version; resources.gpus sets the number of GPUs"),
    "ddp_timeout": ("", _ALWAYS),
    "flash_attention": ("", "the fastest attention of the host is used"),
    "attn_implementation": ("", "the fastest attention of the host is used"),
    "use_unsloth": ("", "not offered"),
    "trust_remote_code": ("", "code from the Hub is never run"),
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
    "use_cpu": ("resources.gpus", "0 forces the CPU"),
    "no_cuda": ("resources.gpus", "0 forces the CPU"),
    "device": ("resources.gpus", "0 forces the CPU"),
    "timeout": ("resources.max_runtime", "for example 2h"),
    "max_time": ("resources.max_runtime", "for example 2h"),
    "retries": ("resources.max_attempts", ""),
    "max_retries": ("resources.max_attempts", ""),
    # where the result goes, who hears of it
    "hub_model_id": ("publish.repo", ""),
    "publish_to": ("publish.repo", ""),
    "push_to_hub_model_id": ("publish.repo", ""),
    "repo_id": ("publish.repo", ""),
    "push_to_hub": ("publish.repo", "name the repo; null publishes nowhere"),
    "hub_private_repo": ("publish.private", ""),
    "hub_strategy": ("publish.repo", "the best model is pushed once, at the end"),
    "merge_adapter": ("publish.format", "merged"),
    "save_method": ("publish.format", "adapter or merged"),
    "output_dir": ("", "ftq keeps the files of a job; `ftq fetch JOB DIR` brings the result"),
    "logging_dir": ("", "every step is an event; leave it out"),
    "overwrite_output_dir": ("publish.overwrite", "for the target repo"),
    "run_name": ("name", ""),
    "suffix": ("name", ""),
    "job_name": ("name", ""),
    "wandb_project": ("report_to", "not connected yet; every step is an event"),
    "use_wandb": ("report_to", "not connected yet; every step is an event"),
    "use_tensorboard": ("", "every step is an event; leave it out"),
    "logging_steps": ("", _EVERY_STEP),
    "log_every_n_steps": ("", _EVERY_STEP),
    "logging_strategy": ("", _EVERY_STEP),
    "disable_tqdm": ("", _ALWAYS),
    "hub_token": ("", _NOT_HERE),
    "hf_token": ("", _NOT_HERE),
    "hf_hub_token": ("", _NOT_HERE),
    "push_to_hub_token": ("", _NOT_HERE),
    "token": ("", _NOT_HERE),
    "use_auth_token": ("", _NOT_HERE),
    "api_key": ("", _NOT_HERE),
}

# Fields of the trainer that carry no spec name of their own but that ftq sets.
OWNED_ARGS = frozenset(
    {
        "do_train", "do_eval", "do_predict", "learning_rate", "max_steps", "seed", "packing",
        "max_length", "epochs", "eval_packing", "metric_for_best_model", "greater_is_better",
        "logging_nan_inf_filter", "logging_first_step", "include_num_input_tokens_seen",
        "model_init_kwargs", "hub_always_push", "hub_revision", "local_rank", "report_to",
        "save_only_model", "batch_size",
    }
)  # fmt: skip


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
    """Say what to write instead of a trainer field; None when it may be passed as it is."""
    right, note = ALIASES.get(_normal(name), ("", ""))
    if right == f"train.args.{name}":
        return None
    if right.startswith("train.args."):
        return f"the trainer knows it no more; {_right_name(right, note)}"
    if right or note:
        return f"ftq sets it; {_right_name(right, note)}"
    if name not in OWNED_ARGS:
        return None
    near = [leaf for leaf in leaves() if leaf.rpartition(".")[2] == name]
    return f"ftq sets it; here it is {near[0]}" if near else "ftq sets it by itself; leave it out"
