"""The trainer's fields that `train.args` does not take: ftq sets them, or they go by another name.

The trainer is transformers' `TrainingArguments` for classification, TRL's `SFTConfig` else. The
client refuses these fields at submit; the worker refuses them again, and those that the installed
trainer does not have.
"""

# Answers that names from other tools get as well.
BATCH = "counts the examples of one optimizer step, accumulation and all GPUs included"
ALWAYS = "ftq does it by itself; leave it out"
EVERY_STEP = "every step is an event; leave it out"
NOT_HERE = "a token never stands in a spec; set HF_TOKEN, or use --token-stdin"
RESUMES = "jobs resume by themselves; see `ftq retry`"
SAVE = "steps such as 500, or a time such as 10m"
TOKENIZER = "the model's own tokenizer is used"
_PUSHED = "the best model is pushed once, at the end"
_BY_LENGTH = "rows are grouped by length where they are not packed"
_LOSS = "the completion is trained; task text trains every token"
_BEST = "the best checkpoint is always the result"
_GPUS = "not offered by this version; resources.gpus sets the number of GPUs"

# field of the trainer -> (where the spec says the same or "", what to know)
TRAINER_FIELDS: dict[str, tuple[str, str]] = {
    # how long, how much
    "num_train_epochs": ("train.epochs", ""),
    "max_steps": ("train.max_steps", ""),
    "learning_rate": ("train.learning_rate", ""),
    "per_device_train_batch_size": (
        "train.micro_batch",
        f"or only train.batch_size, which {BATCH}",
    ),
    "per_device_eval_batch_size": ("train.micro_batch", "evaluation uses the same"),
    "gradient_accumulation_steps": ("train.batch_size", f"it {BATCH}; accumulation follows"),
    "auto_find_batch_size": ("train.micro_batch", "auto is the default"),
    "max_length": ("train.max_length", ""),
    "seed": ("train.seed", ""),
    "data_seed": ("train.seed", "one seed for everything"),
    # numbers and devices
    "bf16": ("train.precision", "bf16"),
    "fp16": ("train.precision", "fp16"),
    "tf32": ("train.precision", "auto, bf16, fp16 or fp32"),
    "use_cpu": ("resources.gpus", "0 forces the CPU"),
    "local_rank": ("", ALWAYS),
    "ddp_timeout": ("", ALWAYS),
    "deepspeed": ("", _GPUS),
    "fsdp": ("", _GPUS),
    "gradient_checkpointing": (
        "train.args.activation_checkpointing",
        "the trainer's newer name for it",
    ),
    # model and tokenizer
    "model_init_kwargs": ("", "ftq loads the model by itself; leave it out"),
    "trust_remote_code": ("", "code from the Hub is never run"),
    "chat_template_path": ("data.chat_template", "the template itself"),
    "eos_token": ("", TOKENIZER),
    "pad_token": ("", TOKENIZER),
    # rows
    "packing": ("train.packing", ""),
    "packing_strategy": ("train.packing", "packed rows are never cut"),
    "padding_free": ("train.packing", ""),
    "eval_packing": ("", "validation rows are never packed"),
    "dataset_text_field": ("data.columns.text", ""),
    "dataset_kwargs": ("", "rows are tokenized before training; leave it out"),
    "assistant_only_loss": ("", _LOSS),
    "completion_only_loss": ("", _LOSS),
    "shuffle_dataset": ("", "rows are shuffled by train.seed"),
    "remove_unused_columns": ("", ALWAYS),
    "train_sampling_strategy": ("", _BY_LENGTH),
    "length_column_name": ("", _BY_LENGTH),
    "dataloader_num_workers": ("", ALWAYS),
    # checkpoints and evaluations
    "output_dir": ("", "ftq keeps the files of a job; `ftq fetch JOB DIR` brings the result"),
    "do_train": ("", ALWAYS),
    "do_eval": ("", ALWAYS),
    "do_predict": ("", ALWAYS),
    "save_strategy": ("train.save_every", SAVE),
    "save_steps": ("train.save_every", SAVE),
    "save_total_limit": ("", "the newest and the best checkpoint are kept"),
    "save_only_model": ("", "a checkpoint holds all that a resume needs"),
    "eval_strategy": ("train.eval_every", "in steps"),
    "eval_steps": ("train.eval_every", "in steps"),
    "eval_on_start": ("", "the golden set is scored before training; leave it out"),
    "load_best_model_at_end": ("", _BEST),
    "metric_for_best_model": ("", _BEST),
    "greater_is_better": ("", _BEST),
    "resume_from_checkpoint": ("", RESUMES),
    "ignore_data_skip": ("", RESUMES),
    "enable_jit_checkpoint": ("", RESUMES),
    "restore_callback_states_from_checkpoint": ("", RESUMES),
    # who hears of it
    "run_name": ("name", ""),
    "report_to": ("", EVERY_STEP),
    "logging_strategy": ("", EVERY_STEP),
    "logging_steps": ("", EVERY_STEP),
    "logging_first_step": ("", EVERY_STEP),
    "logging_nan_inf_filter": ("", "a loss that is not finite is always told; leave it out"),
    "include_num_input_tokens_seen": ("", "tokens are always counted; leave it out"),
    "disable_tqdm": ("", ALWAYS),
    # where the result goes
    "push_to_hub": ("publish.repo", "name the repo; null publishes nowhere"),
    "hub_model_id": ("publish.repo", ""),
    "hub_private_repo": ("publish.private", ""),
    "hub_strategy": ("publish.repo", _PUSHED),
    "hub_always_push": ("publish.repo", _PUSHED),
    "hub_revision": ("publish.repo", "its main branch is pushed to"),
    "hub_token": ("", NOT_HERE),
}
