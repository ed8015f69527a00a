"""ftq's small additions to TRL's SFTTrainer and transformers' Trainer, shared by both."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback
from trl import SFTTrainer

from ftq_worker.training.best import best_step, gain_figures
from ftq_worker.training.end_of_turn import IGNORED
from ftq_worker.training.layer_rates import lower_rates
from ftq_worker.training.packed_steps import PackedOrder
from ftq_worker.training.sampling import LengthGroupedOrder
from ftq_worker.training.scoring import OnRows, OnScores, RowScore, Scorer
from ftq_worker.training.sharded import assemble, is_sharded, save_parts, shard_on_cpu, skeleton_of


class FtqParts:
    """Mixed into a trainer: order of rows, scoring, and nothing written but the checkpoint."""

    order: LengthGroupedOrder | PackedOrder
    scorer: Scorer
    best_rows: list[float]  # summed loss of each validation row at the best evaluation so far
    losses: list[float]  # of the steps since the last evaluation
    skeleton: torch.nn.Module  # of a model that is sharded: what it is put together in
    is_scoring = False  # also where scoring has failed
    saved_rate: float | None = None  # peak learning rate of the schedule in the checkpoint
    has_blanks = False  # whether rows of the training set are left out, see `left_out`
    step_is_empty = False  # no row of this step is trained
    _there, _kept = 0, 0  # rows of this step, and those that are trained, over all ranks
    layer_decay = 1.0  # of each layer's rate by the next one's
    class_weights: torch.Tensor | None = None  # of a classification, by label
    # Set by the session: given the rows to score, what is told of each batch.
    watch_scoring: Callable[[int], OnRows] = staticmethod(lambda rows: lambda count: None)
    # As well: given what is to be saved and its bytes; raises where there is no room.
    before_save: Callable[[str, int], None] = staticmethod(lambda what, size_bytes: None)

    def add_parts(
        self, order: LengthGroupedOrder | PackedOrder, scorer: Scorer, layer_decay: float
    ) -> None:
        """Set the order of rows, the scorer, the layers' rates; to be called before `train`."""
        self.order, self.scorer, self.layer_decay = order, scorer, layer_decay
        self.best_rows, self.losses = [], []
        # It prints every log to stdout, which belongs to the events.
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]

        me: Any = self
        if isinstance(me.model, PeftModel):  # peft writes a card beside every checkpoint
            me.model.create_or_update_model_card = lambda *_: None
        if me.is_fsdp_enabled:
            self.skeleton = skeleton_of(me.model)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        shard_on_cpu(self)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Return the trainer's own optimizer, with a rate for each layer where asked for."""
        me: Any = self
        new = me.optimizer is None
        made: torch.optim.Optimizer = super().create_optimizer(model)  # type: ignore[misc]
        if new and self.layer_decay != 1:
            lower_rates(made, me.model if model is None else model, self.layer_decay)
        return made

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

    def leave_out(self) -> None:
        """Reckon with rows that are left out: to be called before `train`."""
        self.has_blanks = True
        self.add_callback(_NoEmptyUpdate(self))  # type: ignore[attr-defined]

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Return a step's batches, and look how much of it is left where rows are left out."""
        batches, items = super().get_batch_samples(  # type: ignore[misc]
            epoch_iterator, num_batches, device
        )
        if self.has_blanks or self.class_weights is not None:
            self._count(batches, device)
        return batches, items

    def _count(self, batches: list[Any], device: torch.device) -> None:
        me: Any = self
        labels = [batch["labels"] for batch in batches]
        there = sum(it.numel() for it in labels)
        # The first token of a text has no loss; the labels of a classification have one dimension.
        kept = sum(int((it if it.dim() == 1 else it[..., 1:]).ne(IGNORED).sum()) for it in labels)
        counted = torch.tensor([[there, kept]], device=device)
        if me.args.world_size > 1:
            counted = me.accelerator.gather(counted)
        self._there, self._kept = counted.sum(dim=0).tolist()
        self.step_is_empty = self._kept == 0

    def log(self, logs: dict[str, Any], *args: Any, **options: Any) -> None:
        """Log as the trainer does, and note the loss of a step; None where nothing was trained."""
        if "loss" in logs and "learning_rate" in logs:
            if self.step_is_empty:
                logs = {**logs, "loss": None}
            else:
                self.losses.append(float(logs["loss"]))
        super().log(logs, *args, **options)  # type: ignore[misc]

    def score(self, rows: Dataset, on_rows: OnRows, on_scores: OnScores) -> dict[str, float]:
        """Score rows with the model as it is; memory that runs out here is no fault of a step's."""
        me: Any = self
        self.is_scoring = True
        figures = self.scorer(me.model, rows, on_rows, on_scores=on_scores)
        self.is_scoring = False
        return figures

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
        figures = self.score(rows, watch, scores.extend)
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

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load them as the trainer does; the rate may have been lowered since they were saved."""
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        me: Any = self
        if checkpoint and self.saved_rate and self.saved_rate != me.args.learning_rate:
            scale_rate(me.optimizer, me.lr_scheduler, me.args.learning_rate / self.saved_rate)

    def save_weights(self, folder: Path) -> None:
        """Write the weights as a checkpoint has them; all ranks call it."""
        me: Any = self
        with self._saving("the best model", bytes_of_weights(me.model)):
            if is_sharded(me.model):
                save_parts(me, folder)
            else:
                me.save_model(str(folder), _internal_call=True)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        # TRL writes a model card beside every checkpoint; ftq writes the card at the end.
        me: Any = self
        size = bytes_of_weights(me.model)
        if not me.args.save_only_model:
            size += bytes_of_state(me.optimizer)
        with self._saving("the checkpoint", size):
            Trainer._save_checkpoint(self, model, trial)

    @contextmanager
    def _saving(self, what: str, size_bytes: int) -> Iterator[None]:
        """Ask for room before a save, and give back that of one which was cut off."""
        me: Any = self
        if me.args.should_save:
            self.before_save(f"{what} of step {me.state.global_step}", size_bytes)
        try:
            yield
        except Exception as error:
            shutil.rmtree(me.args.output_dir, ignore_errors=True)  # a full disk gets its room back
            if _could_not_write(error):
                raise OSError(errno.ENOSPC, f"{what} could not be written") from error
            raise

    def _send_telemetry(self) -> None:
        """Send nothing: what runs here is nobody else's business."""


class _AtStart(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Does something before the first step."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._work()


class _NoEmptyUpdate(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Lets no optimizer move weights, by its memory of earlier steps, where no row is trained."""

    def __init__(self, trainer: FtqParts) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        if self._trainer.step_is_empty:
            for weight in model.parameters():
                weight.grad = None  # a weight without a gradient is passed over


class FtqSFTTrainer(FtqParts, SFTTrainer):  # type: ignore[misc]  # TRL has no types
    """TRL's SFTTrainer with ftq's parts."""


class FtqTrainer(FtqParts, Trainer):  # type: ignore[misc]  # transformers has no types
    """transformers' Trainer with ftq's parts."""

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **options: Any
    ) -> Any:
        """Return the loss as the trainer does; with rows left out or weighed, their share of it.

        The model averages over a micro-batch, and those are then not alike: each row counts as one
        of all that the step has, times the weight of its label.
        """
        if self.class_weights is None and (not self.has_blanks or self._kept == self._there):
            return super().compute_loss(model, inputs, *args, **options)
        me: Any = self
        labels = inputs["labels"]
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        summed = torch.nn.functional.cross_entropy(
            outputs.logits.view(-1, outputs.logits.shape[-1]),
            labels.view(-1),
            weight=None if self.class_weights is None else self.class_weights.to(labels.device),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=me.args.label_smoothing_factor,
        )
        # The trainer divides by the passes of a step, and ranks are averaged.
        return (
            summed
            * me.current_gradient_accumulation_steps
            * me.args.world_size
            / max(self._kept, 1)
        )


def bytes_of_weights(model: torch.nn.Module) -> int:
    """Return the bytes of the weights that are saved: of an adapter, those that are trained."""
    whole = not isinstance(model, PeftModel)
    return sum(w.nbytes for w in model.parameters() if whole or w.requires_grad)


def bytes_of_state(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of what an optimizer keeps for its weights."""
    kept = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in kept if isinstance(value, torch.Tensor))


def scale_rate(optimizer: torch.optim.Optimizer, scheduler: Any, factor: float) -> None:
    """Multiply every learning rate, now and in the rest of the schedule."""
    for group in optimizer.param_groups:
        group["lr"] *= factor
        group["initial_lr"] *= factor
    inner = getattr(scheduler, "scheduler", scheduler)  # accelerate wraps it
    inner.base_lrs = [rate * factor for rate in getattr(inner, "base_lrs", [])]
    inner._last_lr = [rate * factor for rate in inner._last_lr]


def _could_not_write(error: Exception) -> bool:
    """Return whether torch's writer was refused by the disk; it drops the system's own words.

    `[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534` is a full disk.
    """
    return isinstance(error, RuntimeError) and "inline_container.cc" in str(error)
