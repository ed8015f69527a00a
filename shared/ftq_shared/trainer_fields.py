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
_TOKENIZED = "rows are tokenized before training; leave it out"
_LOSS = "the completion is trained; task text trains every token"
_BEST = "the best checkpoint is always the result"
_GPUS = "not offered by this version; resources.gpus sets the number of GPUs"

# where the spec says the same or "", what to know, fields of the trainer
_ANSWERS = (
    # how long, how much
    ("train.epochs", "", "num_train_epochs"),
    ("train.max_steps", "", "max_steps"),
    ("train.learning_rate", "", "learning_rate"),
    (
        "train.micro_batch",
        f"or only train.batch_size, which {BATCH}",
        "per_device_train_batch_size",
    ),
    ("train.micro_batch", "evaluation uses the same", "per_device_eval_batch_size"),
    ("train.batch_size", f"it {BATCH}; accumulation follows", "gradient_accumulation_steps"),
    ("train.micro_batch", "auto is the default", "auto_find_batch_size"),
    ("train.max_length", "", "max_length"),
    ("train.seed", "", "seed"),
    ("train.seed", "one seed for everything", "data_seed"),
    # numbers and devices
    ("train.precision", "bf16", "bf16"),
    ("train.precision", "fp16", "fp16"),
    ("train.precision", "auto, bf16, fp16 or fp32", "tf32"),
    ("resources.gpus", "0 forces the CPU", "use_cpu"),
    ("", ALWAYS, "local_rank ddp_timeout ddp_backend"),
    ("train.parallel.strategy", "ddp or fsdp", "fsdp fsdp_config"),
    ("", _GPUS, "deepspeed parallelism_config accelerator_config"),
    (
        "train.gradient_checkpointing",
        "none, all, or every so many layers",
        "activation_checkpointing gradient_checkpointing activation_checkpointing_kwargs"
        " gradient_checkpointing_kwargs",
    ),
    # model and tokenizer
    ("", "ftq loads the model by itself; leave it out", "model_init_kwargs"),
    ("", "code from the Hub is never run", "trust_remote_code"),
    ("data.chat_template", "the template itself", "chat_template_path"),
    ("", TOKENIZER, "eos_token pad_token"),
    # rows
    ("train.packing", "", "packing padding_free"),
    ("train.packing", "packed rows are never cut", "packing_strategy"),
    ("", "validation rows are never packed", "eval_packing"),
    ("data.columns.text", "", "dataset_text_field"),
    ("", _TOKENIZED, "dataset_kwargs dataset_num_proc truncation_mode"),
    ("", _LOSS, "assistant_only_loss completion_only_loss"),
    ("", "rows are shuffled by train.seed", "shuffle_dataset"),
    ("", "no row is left out; leave it out", "dataloader_drop_last"),
    (
        "",
        ALWAYS,
        "remove_unused_columns label_names dataloader_num_workers dataloader_persistent_workers "
        "dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order",
    ),
    ("", _BY_LENGTH, "train_sampling_strategy length_column_name"),
    # checkpoints and evaluations
    ("", "ftq keeps the files of a job; `ftq fetch JOB DIR` brings the result", "output_dir"),
    ("", ALWAYS, "do_train do_eval do_predict"),
    ("train.save_every", SAVE, "save_strategy save_steps"),
    ("", "the newest and the best checkpoint are kept", "save_total_limit"),
    ("", "a checkpoint holds all that a resume needs", "save_only_model save_on_each_node"),
    ("train.eval_every", "in steps", "eval_strategy eval_steps"),
    ("", "the golden set is scored before training; leave it out", "eval_on_start"),
    (
        "",
        "sets are scored by ftq's own code, in the precision of training; leave it out",
        "eval_delay eval_accumulation_steps eval_do_concat_batches eval_use_gather_object "
        "batch_eval_metrics include_for_metrics prediction_loss_only bf16_full_eval "
        "fp16_full_eval",
    ),
    ("", _BEST, "load_best_model_at_end metric_for_best_model greater_is_better"),
    (
        "",
        RESUMES,
        "resume_from_checkpoint ignore_data_skip enable_jit_checkpoint "
        "restore_callback_states_from_checkpoint",
    ),
    # who hears of it
    ("name", "", "run_name"),
    ("report_to", "at the top of the spec", "report_to"),
    ("", EVERY_STEP, "logging_strategy logging_steps logging_first_step"),
    (
        "",
        "the worker's log has its own level, and a tracker its own process; leave it out",
        "log_level log_level_replica log_on_each_node project trackio_space_id trackio_bucket_id "
        "trackio_static_space_id debug skip_memory_metrics",
    ),
    ("", "a loss that is not finite is always told; leave it out", "logging_nan_inf_filter"),
    ("", "tokens are always counted; leave it out", "include_num_input_tokens_seen"),
    ("", ALWAYS, "disable_tqdm"),
    # where the result goes
    ("publish.repo", "name the repo; null publishes nowhere", "push_to_hub"),
    ("publish.repo", "", "hub_model_id"),
    ("publish.private", "", "hub_private_repo"),
    ("publish.repo", _PUSHED, "hub_strategy hub_always_push"),
    ("publish.repo", "its main branch is pushed to", "hub_revision"),
    ("", NOT_HERE, "hub_token"),
)
TRAINER_FIELDS = {
    field: (right, note) for right, note, names in _ANSWERS for field in names.split()
}
