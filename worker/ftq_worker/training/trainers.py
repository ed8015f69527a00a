"""ftq's small additions to TRL's SFTTrainer and transformers' Trainer, shared by both."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback
from trl import SFTTrainer

from ftq_worker.training.best import best_step, gain_figures
from ftq_worker.training.packed_steps import PackedOrder
from ftq_worker.training.sampling import LengthGroupedOrder
from ftq_worker.training.scoring import OnRows, RowScore, Scorer
from ftq_worker.training.sharded import assemble, is_sharded, shard_on_cpu, skeleton_of


class FtqParts:
    """Mixed into a trainer: order of rows, scoring, and nothing written but the checkpoint."""

    order: LengthGroupedOrder | PackedOrder
    scorer: Scorer
    best_rows: list[float]  # summed loss of each validation row at the best evaluation so far
    losses: list[float]  # of the steps since the last evaluation
    skeleton: torch.nn.Module  # of a model that is sharded: what it is put together in
    # Set by the session: given the rows to score, what is told of each batch.
    watch_scoring: Callable[[int], OnRows] = staticmethod(lambda rows: lambda count: None)

    def add_parts(self, order: LengthGroupedOrder | PackedOrder, scorer: Scorer) -> None:
        """Set the order of rows and the scorer; to be called before `train`."""
        self.order, self.scorer = order, scorer
        self.best_rows, self.losses = [], []
        # It prints every log to stdout, which belongs to the events.
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]

        me: Any = self
        if me.is_fsdp_enabled:
            self.skeleton = skeleton_of(me.model)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        shard_on_cpu(self)

    def before_steps(self, work: Callable[[], None]) -> None:
        """Do something with the untrained model: now, or as soon as it is sharded and fits."""
        me: Any = self
        if me.is_fsdp_enabled:
            me.callback_handler.callbacks.insert(0, _AtStart(work))
        else:
            work()

    def load(self, checkpoint: Path) -> None:
        """Load the weights of a checkpoint."""
        me: Any = self
        if me.is_fsdp_enabled and not is_sharded(me.model):  # nothing was trained in this attempt
            me._prepare_for_training(me.args.max_steps, None, None)
        me._load_from_checkpoint(str(checkpoint))

    def whole_model(self) -> torch.nn.Module:
        """Return the model to be saved by rank 0; to be called by all."""
        me: Any = self
        return assemble(me.model, self.skeleton) if is_sharded(me.model) else me.model

    def _get_train_sampler(self, *_: Any, **__: Any) -> LengthGroupedOrder | PackedOrder:
        return self.order

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return the trainer's own loader, or one that yields whole sequences of packed rows."""
        me: Any = self
        if not isinstance(self.order, PackedOrder):
            loader: DataLoader[Any] = super().get_train_dataloader()  # type: ignore[misc]
            return loader
        loader = DataLoader(
            me.train_dataset,
            batch_sampler=self.order,
            collate_fn=me.data_collator,
            num_workers=me.args.dataloader_num_workers,
            pin_memory=me.args.dataloader_pin_memory,
        )
        prepared: DataLoader[Any] = me.accelerator.prepare(loader)
        return prepared

    def log(self, logs: dict[str, float], *args: Any, **options: Any) -> None:
        """Log as the trainer does, and note the loss of a step."""
        if "loss" in logs and "learning_rate" in logs:
            self.losses.append(float(logs["loss"]))
        super().log(logs, *args, **options)  # type: ignore[misc]

    def evaluate(self, eval_dataset: Dataset | None = None, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation set with the same code that scores the golden set.

        The trainer's own loop averages batch means instead of tokens and takes random numbers
        from the generator that training uses, so that the number of evaluations would change what
        is trained.
        """
        me: Any = self
        rows = me.eval_dataset if eval_dataset is None else eval_dataset
        scores: list[RowScore] = []
        watch = self.watch_scoring(len(rows))
        figures = self.scorer(me.model, rows, watch, on_scores=scores.extend)
        losses = [score.loss for score in scores]
        metrics = {f"eval_{name}": value for name, value in figures.items()}
        metrics |= gain_figures(self.best_rows, losses, [score.count for score in scores])
        if self.losses:
            metrics["eval_train_loss"] = sum(self.losses) / len(self.losses)
            self.losses = []
        me.log(metrics)
        if best_step(me.state) == me.state.global_step:
            self.best_rows = losses
        me.control = me.callback_handler.on_evaluate(me.args, me.state, me.control, metrics)
        return metrics

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        # TRL writes a model card beside every checkpoint; ftq writes the card at the end.
        me: Any = self
        try:
            Trainer._save_checkpoint(self, model, trial)
        except Exception as error:
            shutil.rmtree(me.args.output_dir, ignore_errors=True)  # a full disk gets its room back
            if _could_not_write(error):
                raise OSError(errno.ENOSPC, "the checkpoint could not be written") from error
            raise

    def _send_telemetry(self) -> None:
        """Send nothing: what runs here is nobody else's business."""


class _AtStart(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Does something before the first step."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._work()


class FtqSFTTrainer(FtqParts, SFTTrainer):  # type: ignore[misc]  # TRL has no types
    """TRL's SFTTrainer with ftq's parts."""


class FtqTrainer(FtqParts, Trainer):  # type: ignore[misc]  # transformers has no types
    """transformers' Trainer with ftq's parts."""


def _could_not_write(error: Exception) -> bool:
    """Return whether torch's writer was refused by the disk; it drops the system's own words.

    `[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534` is a full disk.
    """
    return isinstance(error, RuntimeError) and "inline_container.cc" in str(error)
