"""The job spec: one schema for flags, YAML, the questions and the SDK.

`JobSpec` is the schema; every field has one line that says what it means, and docs/spec.md is
checked against it. Reading input, with all errors at once and the right names for wrong keys,
is in `spec_input`.
"""

import hashlib
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ftq_shared.duration import parse_duration

Auto = Literal["auto"]


class Task(StrEnum):
    """What kind of fine-tune it is."""

    AUTO = "auto"  # follow from the columns and the model
    SFT = "sft"  # prompt and completion, or a conversation
    CLASSIFICATION = "classification"  # text and label
    PREFERENCE = "preference"  # prompt, chosen, rejected
    TEXT = "text"  # plain text, every token trained


class Priority(StrEnum):
    """The order in the queue; within one priority, first come first served."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


Duration = Annotated[float, Field(gt=0), BeforeValidator(parse_duration)]


class Section(BaseModel):
    """Base of all parts: unknown keys are refused, values never change."""

    # Built at first use, and only what is used: most commands never look at a spec.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Columns(Section):
    """Which column plays which part; null where the column is found by its name."""

    prompt: str | None = Field(None, description="column with the prompt")
    completion: str | None = Field(None, description="column with the answer that is trained")
    text: str | None = Field(None, description="column with plain text, or the text to classify")
    label: str | None = Field(
        None, description="column with the label; beside an answer, whether it is learned"
    )
    messages: str | None = Field(None, description="column with a list of chat messages")
    system: str | None = Field(None, description="column with the system prompt")
    context: str | None = Field(None, description="column with text that follows the prompt")
    history: str | None = Field(None, description="column with earlier turns, as pairs")
    reasoning: str | None = Field(None, description="column with the thoughts before the answer")
    tools: str | None = Field(None, description="column with the tools that the chat template gets")
    text_pair: str | None = Field(None, description="column with the second text to classify")
    chosen: str | None = Field(None, description="column with the preferred answer")
    rejected: str | None = Field(None, description="column with the answer that is not preferred")


class Golden(Section):
    """The golden set: chosen first, scored only before and after training."""

    size: Auto | Annotated[int, Field(ge=1)] = Field(
        "auto", description="rows; auto is 5 %, 100 to 500, and up to 1,000 from a test split"
    )


Allowed = Literal["unused_columns", "dropped_rows", "unread_files", "formatted_text"]


def _listed(value: Any) -> Any:
    """Take one name, or several with commas, for a list of them."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


class Data(Section):
    """Which rows are used and how they are read."""

    split: str = Field("train", description="split that is trained on")
    validation: str = Field("auto", description="split for validation; auto, none or a name")
    test: str = Field("auto", description="split the golden set is taken from; auto, none, a name")
    columns: Columns = Field(default_factory=Columns, description="which column plays which part")
    row_template: str | None = Field(
        None, description="prompt built from columns, for example 'Q: {question}'"
    )
    format: Literal["auto", "chat", "plain"] = Field(
        "auto", description="chat where the tokenizer has a template, else plain"
    )
    chat_template: str | None = Field(
        None, description="Jinja template that replaces the model's, or the name of one of its own"
    )
    max_rows: Annotated[int, Field(ge=1)] | None = Field(None, description="read at most so many")
    group_by: str | None = Field(None, description="column whose values stay on one side of splits")
    dedupe: Literal["exact", "near", "none"] = Field(
        "exact", description="drop equal rows, nearly equal rows as well, or none"
    )
    on_bad_row: Literal["drop", "fail"] = Field(
        "drop", description="what happens to a row that cannot be used"
    )
    allow: Annotated[list[Allowed], BeforeValidator(_listed)] = Field(
        default_factory=list,
        description="what may be left out beyond the limits; several with commas",
    )
    golden: Golden = Field(default_factory=Golden, description="the set that judges the model")
    select: None = Field(None, description="reserved for choosing a training subset")


LEAST_RANK = 16  # that `train.lora.r: auto` comes to


class Lora(Section):
    """LoRA's own settings; Hu et al. 2021, https://arxiv.org/abs/2106.09685."""

    r: Auto | Annotated[int, Field(ge=1, le=1024)] = Field("auto", description="rank")
    alpha: Annotated[float, Field(gt=0)] = Field(32, description="scale, divided by the rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.05, description="dropout before A")
    use_rslora: bool = Field(
        False, description="the scale is divided by the rank's root; arXiv 2312.03732"
    )
    use_dora: bool = Field(
        False, description="size and direction of the weights apart; arXiv 2402.09353"
    )
    target_modules: Auto | list[str] = Field(
        "auto", description="names of the layers; auto is every linear layer but the head"
    )

    @property
    def rank(self) -> int:
        """The rank; the least that `auto` comes to where it is not resolved."""
        return LEAST_RANK if self.r == "auto" else self.r


class Parallel(Section):
    """How several GPUs share the work."""

    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        "auto", description="ddp: the whole model on each GPU; fsdp: a part of it on each"
    )


SaveEvery = Auto | Annotated[int, Field(ge=1)] | str


def check_every(value: Any) -> Any:
    """Accept auto, a number of steps, or a duration such as 10m; raises ValueError."""
    if isinstance(value, str) and value != "auto":
        if value.isdigit():
            return int(value)
        parse_duration(value)
    return value


class Train(Section):
    """How it is trained; `auto` is resolved by the phase that knows enough."""

    method: Literal["auto", "full", "lora", "qlora"] = Field(
        "auto", description="auto: full for encoders, LoRA for decoders"
    )
    epochs: Auto | Annotated[float, Field(gt=0)] = Field("auto", description="passes over the rows")
    max_steps: Annotated[int, Field(ge=1)] | None = Field(
        None, description="stop after so many optimizer steps"
    )
    learning_rate: Auto | Annotated[float, Field(gt=0, lt=1)] = Field(
        "auto", description="peak learning rate"
    )
    layerwise_lr_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="a layer's rate by that of the next one; 1 is the same for all"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="of a classification: balanced lets each label count as much, however few"
        " its rows",
    )
    batch_size: Auto | Annotated[int, Field(ge=1)] = Field(
        "auto", description="examples per optimizer step, over all GPUs, packed or not"
    )
    micro_batch: Auto | Annotated[int, Field(ge=1)] = Field(
        "auto", description="examples per forward pass on one device"
    )
    gradient_checkpointing: Literal["auto", "none", "all"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="layers computed twice to save memory: none, all, or every so many"
    )
    max_length: Auto | Annotated[int, Field(ge=8)] = Field(
        "auto", description="tokens per row; longer rows are dropped and counted"
    )
    packing: Auto | bool = Field("auto", description="several short rows in one sequence")
    attention: Literal[
        "auto",
        "flash_attention_2",
        "flash_attention_3",
        "flash_attention_4",
        "varlen",
        "flex_attention",
        "sdpa",
        "eager",
    ] = Field("auto", description="how attention is computed")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="number format of the computation"
    )
    lora: Lora = Field(default_factory=Lora, description="LoRA's own settings")
    parallel: Parallel = Field(
        default_factory=Parallel, description="how several GPUs share the work"
    )
    save_every: Annotated[SaveEvery, BeforeValidator(check_every)] = Field(
        "auto", description="steps (500) or time (10m) between checkpoints"
    )
    eval_every: Auto | Annotated[int, Field(ge=1)] = Field(
        "auto", description="steps between evaluations on the validation set"
    )
    on_divergence: Literal["rollback", "stop"] = Field(
        "rollback",
        description="of a loss that is no number, or leaps and stays: rollback goes on from the "
        "last good checkpoint with a quarter of the rate, once; stop ends the job",
    )
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(42, description="seed of everything random")
    args: dict[str, Any] = Field(
        default_factory=dict, description="any field of the trainer that ftq does not own"
    )


class Resources(Section):
    """What the train phase needs, and when to give up."""

    gpus: Auto | Annotated[int, Field(ge=0, le=64)] | str = Field(
        "auto", description="2, or h100:2 for a kind of card; 0 forces the CPU"
    )
    min_vram_gb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="memory that each GPU must have, in GB"
    )
    max_runtime: Duration | None = Field(
        None, description="time that training may take over all attempts, for example 2h"
    )
    max_attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        3, description="how often an interrupted phase is started"
    )
    priority: Priority = Field(Priority.NORMAL, description="high, normal or low")


class Publish(Section):
    """Where the model goes."""

    repo: str | None = Field(None, description="Hub repo, for example me/qwen-gsm8k; null: nowhere")
    private: bool = Field(True, description="make a new repo private")
    format: Literal["auto", "adapter", "merged"] = Field(
        "auto", description="auto: an adapter for LoRA, the whole model otherwise"
    )
    overwrite: bool = Field(False, description="push into a repo that holds something else")
    card_samples: bool = Field(False, description="show sample rows in the model card")


class JobSpec(Section):
    """Everything a person decides about a job."""

    name: str | None = Field(None, description="a name for people; shown in lists")
    model: str = Field(
        description="Hub id, id@revision; ./path is the client's, worker:/path theirs"
    )
    dataset: str = Field(description="Hub id[:config][@revision], or a file, folder or glob")
    task: Task = Field(Task.AUTO, description="auto, sft, classification, preference or text")
    data: Data = Field(default_factory=Data, description="which rows, and how they are read")
    train: Train = Field(default_factory=Train, description="how it is trained")
    resources: Resources = Field(default_factory=Resources, description="what training needs")
    publish: Publish = Field(default_factory=Publish, description="where the model goes")
    report_to: list[Literal["wandb", "trackio", "mlflow"]] = Field(
        default_factory=list, description="trackers that get the metrics as well"
    )

    def canonical(self) -> str:
        """Return the spec as JSON with every default filled in; equal specs give equal text."""
        return self.model_dump_json()

    def sha256(self) -> str:
        """Return the hash that the record, the secrets and the model card name."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()


class GpuRequest(Section):
    """`resources.gpus` taken apart."""

    count: int
    kind: str | None = None  # lower-case words of the card's name, for example h100

    @classmethod
    def parse(cls, value: int | str) -> "GpuRequest":
        """Read 2, '2', 'h100' or 'h100:2'; `auto` means one. Raises ValueError."""
        if isinstance(value, int):
            return cls(count=value)
        if value == "auto":
            return cls(count=1)
        kind, _, count = value.rpartition(":")
        if not count.isdigit():
            kind, count = value, "1"
        if not kind and not count.isdigit():
            raise ValueError(f"{value!r} is no GPU request; write 2 or h100:2")
        return cls(count=int(count), kind=kind.lower() or None)
