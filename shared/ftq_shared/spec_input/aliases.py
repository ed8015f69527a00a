"""The right name for a wrong one: names that people bring from other tools, then the nearest.

The table covers transformers' Trainer, TRL, Axolotl, LLaMA-Factory, Unsloth, torchtune and
OpenAI. It comes first because difflib answers most of these wrongly (`save_steps` is nearer to
`max_steps` than to `save_every`).
"""

import difflib

from ftq_shared.spec_input.dotted_fields import fields, leaves
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

# right name or "", what to know, wrong names in lower case with underscores
_ANSWERS = (
    # model and data
    (
        "model",
        "",
        "model_name_or_path model_name model_id base_model pretrained_model_name_or_path",
    ),
    ("model", "write id@revision", "model_revision revision revision_of_model"),
    ("", TOKENIZER, "tokenizer tokenizer_config tokenizer_type"),
    ("", "the type is read from the model's config.json", "model_type"),
    ("dataset", "one dataset; several files as a folder or glob", "datasets"),
    (
        "dataset",
        "",
        "dataset_name dataset_id dataset_path training_file train_file data_path data_files",
    ),
    ("dataset", "write dataset:config", "dataset_config dataset_config_name"),
    ("data.split", "", "train_split dataset_train_split"),
    ("data.test", "", "dataset_test_split"),
    ("data.validation", "", "eval_split valid_split"),
    (
        "data.validation",
        "a split of the dataset; auto holds 2 % out",
        "eval_dataset validation_file",
    ),
    ("data.test", "a split of the dataset", "test_datasets"),
    ("data.validation", "the name of a split; auto holds 2 % out", "val_set_size val_size"),
    ("data.golden.size", "", "test_size"),
    ("data.columns", "", "column_mapping"),
    ("data.columns.text", "", "text_column text_field"),
    ("data.columns.prompt", "", "prompt_column field_instruction question"),
    ("data.columns.completion", "", "field_output response_column answer"),
    ("data.columns.label", "", "label_column target_column"),
    ("data.columns.messages", "", "field_messages"),
    ("data.row_template", "", "formatting_func prompt_template prompt_style"),
    ("data.chat_template", "", "template"),
    ("data.max_rows", "", "max_train_samples max_samples max_rows"),
    ("data.dedupe", "exact is the default", "dataset_exact_deduplication"),
    ("", "datasets are always streamed from disk", "streaming"),
    ("", "rows are shuffled by train.seed", "shuffle"),
    # how long, how much
    ("train.epochs", "", "num_epochs n_epochs epoch max_epochs"),
    ("train.max_steps", "", "max_steps_per_epoch total_steps"),
    ("train.learning_rate", "", "lr"),
    ("train.learning_rate", "the rate itself, for example 2e-4", "learning_rate_multiplier"),
    ("train.micro_batch", f"or only train.batch_size, which {BATCH}", "micro_batch_size"),
    ("train.batch_size", f"it {BATCH}", "train_batch_size global_batch_size"),
    ("train.micro_batch", "evaluation uses the same", "eval_batch_size"),
    (
        "train.max_length",
        "",
        "max_seq_length max_seq_len sequence_len model_max_length block_size context_length",
    ),
    ("train.max_length", "longer rows are dropped and counted, never cut", "cutoff_len"),
    ("train.packing", "", "sample_packing neat_packing"),
    ("", ALWAYS, "pad_to_sequence_len"),
    ("", "rows are grouped by length where they are not packed", "group_by_length"),
    ("train.save_every", SAVE, "saves_per_epoch"),
    ("train.eval_every", "in steps", "evals_per_epoch evaluation_strategy"),
    ("", RESUMES, "auto_resume_from_checkpoints"),
    ("train.seed", "", "random_state random_seed"),
    # method and numbers
    ("train.method", "full, lora or qlora", "finetuning_type adapter"),
    ("train.method", "lora", "use_peft use_lora"),
    ("train.method", "full", "full_finetuning"),
    ("train.method", "qlora", "load_in_4bit"),
    ("train.method", "qlora is 4 bit", "quantization_bit"),
    ("train.method", "8 bit is not offered; qlora is 4 bit", "load_in_8bit"),
    ("train.precision", "auto, bf16, fp16 or fp32", "mixed_precision dtype torch_dtype"),
    ("train.layerwise_lr_decay", "", "llrd layer_decay layer_lr_decay layerwise_decay"),
    ("train.class_weights", "none or balanced", "class_weight"),
    ("train.lora.r", "", "lora_r lora_rank rank"),
    ("train.lora.alpha", "", "lora_alpha"),
    ("train.lora.dropout", "", "lora_dropout"),
    ("train.lora.use_rslora", "", "use_rslora rslora lora_use_rslora peft_use_rslora"),
    ("train.lora.use_dora", "", "use_dora dora lora_use_dora peft_use_dora"),
    ("train.lora.target_modules", "", "lora_target_modules lora_target lora_attn_modules"),
    ("train.lora.target_modules", "auto is every linear layer", "lora_target_linear"),
    # fields of the trainer that go through train.args
    ("train.args.warmup_steps", "below 1 it is a share of all steps", "warmup_ratio warmup_steps"),
    ("train.args.lr_scheduler_type", "", "lr_scheduler lr_scheduler_type"),
    ("train.args.weight_decay", "", "weight_decay"),
    ("train.args.optim", "", "optim optimizer"),
    ("train.args.max_grad_norm", "", "max_grad_norm gradient_clipping"),
    ("train.args.neftune_noise_alpha", "", "neftune_noise_alpha"),
    ("train.args.label_smoothing_factor", "", "label_smoothing_factor"),
    (
        "train.gradient_checkpointing",
        "none, all, or every so many layers",
        "use_gradient_checkpointing",
    ),
    (
        "train.attention",
        "auto is the fastest that the host has",
        "flash_attention flash_attn attn_implementation use_flash_attention_2",
    ),
    ("", "not offered", "use_unsloth"),
    # task
    ("task", "sft, classification, preference or text", "stage task_type training_type"),
    ("task", "preference", "rl"),
    # resources
    ("resources.gpus", "", "num_gpus n_gpus gpu num_processes nproc_per_node"),
    ("resources.gpus", "2, or h100:2", "accelerator"),
    ("resources.gpus", "0 forces the CPU", "no_cuda device"),
    ("resources.max_runtime", "for example 2h", "timeout max_time"),
    ("resources.max_attempts", "", "retries max_retries"),
    # where the result goes, who hears of it
    ("publish.repo", "", "publish_to push_to_hub_model_id repo_id"),
    ("publish.format", "merged", "merge_adapter"),
    ("publish.format", "adapter or merged", "save_method"),
    ("", EVERY_STEP, "log_every_n_steps"),
    ("", "its files are always written", "logging_dir use_tensorboard"),
    ("publish.overwrite", "for the target repo", "overwrite_output_dir"),
    ("name", "", "suffix job_name"),
    ("report_to", "[wandb]; the project: --secret WANDB_PROJECT", "wandb_project use_wandb"),
    ("", NOT_HERE, "hf_token hf_hub_token push_to_hub_token token use_auth_token api_key"),
)
_ELSEWHERE = {wrong: (right, note) for right, note, names in _ANSWERS for wrong in names.split()}

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
