"""What training would do first, tried without weights: model, adapter, tokenizer, sample rows.

The libraries themselves are asked, with the very functions that prepare and train call, so that
what they would refuse after the queue is refused here.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftq_shared.errors import Refused
from ftq_shared.spec import Task
from ftq_worker.data.cleaning import RowProblem, Rule
from ftq_worker.data.columns import ColumnLayout
from ftq_worker.data.examples import Example, example_maker
from ftq_worker.data.fields import Message
from ftq_worker.data.formatted_text import refuse_marked
from ftq_worker.data.ledger import LIMIT, Ledger, refuse_unused
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import ModelFacts
from ftq_worker.validation.weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LABELS = ["a", "b"]  # stand for the job's own, which are not known before all rows are read


@dataclass(frozen=True)
class Sample:
    """A few rows, and how they are read."""

    layout: ColumnLayout
    columns: Sequence[str]
    values: Sequence[dict[str, Any]]


def rehearse_model(
    ctx: PhaseContext, facts: ModelFacts, weights: Weights, task: Task
) -> tuple[bool, str]:
    """Build the model and its adapter without numbers; return True and what they are.

    Raises Refused (`broken_model`, `no_lm_head`, `lora_mismatch`, `method_not_supported`,
    `packing_not_supported`).
    """
    # Only here: where the training stack is not preloaded, its import takes seconds.
    from ftq_worker.data.hub import fetch_text_files
    from ftq_worker.job.quiet import quiet_libraries
    from ftq_worker.training.attention import look_at_model, refuse_packing
    from ftq_worker.training.base_model import OTHER_PROBLEMS, refuse_unfit, said_problem
    from ftq_worker.training.blueprint import blueprint, rehearse_load

    quiet_libraries()
    folder = fetch_text_files(ctx, facts)
    model = blueprint(folder, task, LABELS)
    if ctx.spec.train.packing is True:
        refuse_packing(task, look_at_model(model))
    if task is not Task.CLASSIFICATION:
        _refuse_headless(ctx.spec.model, facts, weights, model)
    elif what := OTHER_PROBLEMS.get(said_problem(folder) or ""):
        ctx.warn(
            f"the model's own head gives {what}; it is replaced by a new one, for one label per "
            "text"
        )
    every = ctx.spec.train.gradient_checkpointing
    if every not in ("auto", "none") and not model.supports_gradient_checkpointing:
        raise Refused(
            f"transformers cannot checkpoint the activations of a {facts.architecture}",
            code="method_not_supported",
            hint="--set train.gradient_checkpointing=none, and a smaller train.micro_batch",
            field="train.gradient_checkpointing",
        )
    if weights.tensors:
        found = rehearse_load(model, {name: it.shape for name, it in weights.tensors.items()})
        refuse_unfit(task, found)
        _warn_of_unread(ctx, facts, weights, task, found["unexpected_keys"])
    return True, _adapted(ctx, facts, model, task)


def _warn_of_unread(
    ctx: PhaseContext, facts: ModelFacts, weights: Weights, task: Task, names: Iterable[str]
) -> None:
    """Say which weights of the files are no part of the model; a classifier has its own head."""
    from ftq_worker.training.base_model import LAYER

    def is_weight(name: str) -> bool:
        """Return False for masks that old files hold: numbers with no or four dimensions."""
        return name not in weights.tensors or 1 <= len(weights.tensors[name].shape) <= 3

    unread = sorted(name for name in names if task is not Task.CLASSIFICATION or LAYER.search(name))
    if unread := list(filter(is_weight, unread)):
        ctx.warn(
            f"{len(unread):,} weights in the model's files are no part of a {facts.architecture} as"
            f" transformers builds it, and are not used, for example {unread[0]}",
            hint="is config.json that of these weights? Without them it may answer otherwise",
        )


def _refuse_headless(
    given: str, facts: ModelFacts, weights: Weights, model: "PreTrainedModel"
) -> None:
    """Refuse a model whose output layer would be drawn at random."""
    head: Any = model.get_output_embeddings()
    if head is None or not weights.names or model.config.get_text_config().tie_word_embeddings:
        return
    name = next(name for name, module in model.named_modules() if module is head)
    if f"{name}.weight" in _as_loaded(model, weights.names):
        return
    raise Refused(
        f"{given} is a {facts.architecture}: its weights have no {name}.weight, the layer "
        "that writes text, which would be drawn at random",
        code="no_lm_head",
        hint="name the language model that it was made from, usually a ...ForCausalLM; for labels "
        "map data.columns.text and data.columns.label",
        field="model",
    )


def _as_loaded(model: "PreTrainedModel", names: Iterable[str]) -> set[str]:
    """Return the names of tensors as the model has them: older files name some differently."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    changes = get_model_conversion_mapping(model)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    return {rename_source_key(name, renamings, converters)[0] for name in names}


def _adapted(ctx: PhaseContext, facts: ModelFacts, model: "PreTrainedModel", task: Task) -> str:
    """Put LoRA on the model as training will; return what stands to be trained."""
    from peft import get_peft_model

    from ftq_worker.training.adapters import allowed_dropout, lora_config, unreached

    method, lora = ctx.spec.train.method, ctx.spec.train.lora
    what = f"{facts.architecture} can be built"
    if method == "full" or (method == "auto" and facts.kind == "encoder"):
        return what
    try:
        lora = lora.model_copy(update={"dropout": allowed_dropout(lora, model)})
        kind = "SEQ_CLS" if task is Task.CLASSIFICATION else "CAUSAL_LM"
        config = lora_config(lora, kind, model)
        adapted = get_peft_model(model, config)
    except Exception as error:  # whatever peft raises, it says of this model and these settings
        given = lora.target_modules
        raise Refused(
            f"LoRA cannot be put on a {facts.architecture}: {str(error).splitlines()[0][:300]}",
            code="lora_mismatch",
            hint="--set train.method=full"
            if given == "auto"
            else "--set train.lora.target_modules=auto, or name layers that this model has",
            field="train.lora.target_modules",
        ) from error
    trained, numbers = adapted.get_nb_trainable_parameters()
    if lora.target_modules == "auto" and (left := unreached(model, config)):
        names = list(left)
        ctx.warn(
            f"peft does not adapt all layers of a {facts.architecture}:"
            f" {sum(left.values()) / (numbers - trained):.0%} of its numbers stay as they are"
            f" ({', '.join(names[:4])}{', ...' * (len(names) > 4)})",
            hint="--set train.method=full trains them as well",
        )
    return f"{what}, LoRA trains {trained:,} numbers"


def rehearse_rows(
    ctx: PhaseContext, facts: ModelFacts, task: Task, sample: Sample
) -> tuple[int, str]:
    """Render and tokenize a few rows as prepare will; return the longest's tokens, and what came.

    Raises Refused: for the tokenizer and the template as prepare does, `untrainable` where the
    template takes none of the rows, `unused_columns` where it leaves out what matters of them.
    """
    from ftq_worker.data.hub import fetch_text_files, load_tokenizer_files
    from ftq_worker.data.token_checks import check_eos
    from ftq_worker.data.tokenizing import choose_format, make_encoder

    tokenizer = load_tokenizer_files(fetch_text_files(ctx, facts), facts)
    spec, format_ = ctx.spec, "plain"
    if task in (Task.SFT, Task.PREFERENCE):
        format_, _ = choose_format(spec.data.format, tokenizer, spec.data.chat_template)
    encoder = make_encoder(tokenizer, task, format_, spec, vocab_size=facts.vocab_size)
    ledger = Ledger()
    examples = list(_examples(spec.data.row_template, sample, ledger))
    records = encoder.records(examples, [0] * len(examples))
    if "unused_columns" not in spec.data.allow and spec.data.row_template is None:
        refuse_unused(ledger.unused(sample.layout.columns, task, encoder.render))
    problems = [r for r in records if isinstance(r, RowProblem) and r.rule is Rule.UNTRAINABLE]
    if problems and len(problems) == len(records):
        raise _untrainable(problems[0], len(problems), tokenizer, format_)
    check_eos(tokenizer, encoder, examples)
    if format_ == "chat" and "formatted_text" not in spec.data.allow:
        refuse_marked(ledger.odd.marked, ledger.odd.rows, ledger.odd.mark)
    if format_ == "chat" and task is Task.SFT:
        _warn_of_template(ctx, tokenizer, examples)
    lengths = [record["length"] for record in records if not isinstance(record, RowProblem)]
    return max(lengths, default=0), f"{len(examples)} rows in format {format_}"


def _warn_of_template(
    ctx: PhaseContext, tokenizer: "PreTrainedTokenizerBase", examples: "list[Example]"
) -> None:
    """Tell what a template for a reasoning model makes of the rows."""
    from ftq_worker.data.render import ChatRenderer

    renderer = ChatRenderer(tokenizer, ctx.spec.data.chat_template)
    left, opened, silent = 0, 0, Counter[str]()
    for example in examples:
        try:
            rendered = renderer(example)
        except RowProblem:
            continue
        said = {m["role"] for m in example.messages if _is_left_out(m, rendered.text)}
        silent.update(f"or changes what messages of the {role} say" for role in said)
        silent.update(["calls of tools"] * bool(rendered.lost_calls))
        left += bool(rendered.untrained_answers)
        prompt = renderer.prompt(example.messages[:-1], example.tools)
        opened += prompt.rstrip().endswith("<think>") and not rendered.text.startswith(prompt)
    for what, rows in silent.items():
        message = (
            f"the chat template leaves out {what}, in {rows} of the first {len(examples)} rows"
        )
        hint = "give a data.chat_template that writes them, or --set data.format=plain"
        if rows <= LIMIT * len(examples) or "unused_columns" in ctx.spec.data.allow:
            ctx.warn(message, hint=hint)
            continue
        raise Refused(
            message,
            code="unused_columns",
            hint=f"{hint}; to leave them out: --set data.allow=unused_columns",
            field="data.chat_template",
        )
    if left:
        ctx.warn(
            f"the chat template writes earlier answers differently from the last: in {left} of the "
            f"first {len(examples)} rows only the last answer is trained",
            hint="to train every answer, give one row per answer, or a data.chat_template that "
            "keeps earlier turns as they were",
        )
    if opened:
        ctx.warn(
            f"the model's prompts end with <think>, but {opened} of the first {len(examples)} rows "
            "have no thoughts: their answers are trained without any",
            hint="put the thoughts in front of the answers, as <think>...</think>, or choose a "
            "model that answers at once",
        )


def _is_left_out(message: Message, text: str) -> bool:
    """Return whether what a message says is not in the text; answers are looked for elsewhere."""
    return message["role"] != "assistant" and str(message["content"]).strip() not in text


def _examples(template: str | None, sample: Sample, ledger: Ledger) -> "list[Example]":
    """Return the rows that can be read; what is wrong with the others is prepare's to tell."""
    make = example_maker(sample.layout, template, sample.columns, {})
    found = []
    for values in sample.values:
        try:
            made = make(values)
        except RowProblem:
            continue
        ledger.add(values, made)
        found.append(made.example)
    return found


def _untrainable(
    problem: RowProblem, rows: int, tokenizer: "PreTrainedTokenizerBase", format_: str
) -> Refused:
    return Refused(
        f"none of the first {rows} rows can be trained: {problem.what}",
        code="untrainable",
        hint="change the rows as the template wants them, give another one with data.chat_template,"
        " or --set data.format=plain"
        if format_ == "chat"
        else "look at the rows: nothing of them is left to learn",
        field="data.format",
    )
