"""A replay: a recorded step of a job that has ended is trained again, and its rows are looked at.

It is a job of its own, which reads the other one's folder and writes to its own. What it leaves are
its events: `replay_row` for each row of the step, and `replayed`.
"""

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_shared.job_record import Replay
from ftq_shared.paths import JobPaths, read_json
from ftq_worker.data.secret_texts import hide
from ftq_worker.host.linux import keep_freed_memory
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.prepared_sets import load_sets
from ftq_worker.job.quiet import quiet_libraries
from ftq_worker.job.reports import Prepared, Validated
from ftq_worker.job.row_sources import load_sources
from ftq_worker.training.base_model import fetch_base, load_tokenizer
from ftq_worker.training.checkpoints import data_id
from ftq_worker.training.device_errors import device_errors
from ftq_worker.training.facts import look_at_device
from ftq_worker.training.parallel import gang
from ftq_worker.training.replay import Material, Replayed, RowFigures, StepFigures, repeat
from ftq_worker.training.replay_plan import Plan, StepRecords, make_plan, read_steps
from ftq_worker.training.runs import read_runs, versions
from ftq_worker.training.scoring import rounded
from ftq_worker.training.session import one_voice

SHOWN = 200  # characters of a row
# Why numbers may differ where host and versions are the same.
_ON_CPU = "look whether the files of the job or of its model were changed"
_ON_CUDA = (
    "some CUDA kernels add up in no fixed order, so that last digits differ from run to run; where"
    " more differs, look whether the files of the job or of its model were changed"
)


def run(ctx: PhaseContext) -> None:
    """Replay the step that the context names, of a job whose files are in the same storage.

    Raises Refused where that step cannot be trained again as it was; JobCancelled and Interrupted
    after a stop.
    """
    assert ctx.replay, "no replay"
    with gang(ctx.devices):
        _run(one_voice(ctx), ctx.replay)


def _run(ctx: PhaseContext, wanted: Replay) -> None:
    quiet_libraries()
    other = JobPaths(ctx.paths.storage, wanted.job)
    _refuse_gone(other)
    ctx.doing("look for the step and its checkpoint")
    runs = read_runs(other, ctx.fresh_after)
    records = read_steps(other, runs, ctx.fresh_after)
    plan = make_plan(other, runs, records, wanted.step, data_id(other))
    device = look_at_device(ctx.devices).name
    if not ctx.devices.gpus:
        keep_freed_memory()
    _refuse_device(ctx, plan)
    _tell_plan(ctx, other, plan, device)

    validated, prepared = Validated.load(other.validated), Prepared.load(other.prepared_report)
    if other.base_files.exists():  # the Hub need not be asked what the model's files are
        ctx.paths.base_files.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(other.base_files, ctx.paths.base_files)
    sets = load_sets(other, prepared)
    base = fetch_base(ctx, validated.model)
    tokenizer = load_tokenizer(base, ctx.spec.data.chat_template)
    sources = load_sources(other, len(sets.train))
    material = Material(base, tokenizer, sets, prepared.labels, sources)
    with device_errors(plan.legs[-1].run.settings), _files_of(other):
        found = repeat(ctx, plan, material)
    _tell_rows(ctx, wanted, plan, material, found)
    _tell_way(ctx, plan, records, found)
    _tell_step(ctx, wanted, plan, found.steps[plan.step], device, len(found.rows), _ended(other))


def _refuse_gone(other: JobPaths) -> None:
    """Raise Refused (`pruned`) where a replay finds nothing to work with."""
    if not other.marker.exists():
        raise Refused(
            f"the files of {other.job} are not in this storage any more",
            code="pruned",
            hint=f"they were pruned, or removed by hand; `ftq retry {other.job} --from validate`"
            " makes them again",
        )
    if not other.prepared_report.exists() or not other.prepared.exists():
        raise Refused(
            f"the prepared rows of {other.job} are not there any more",
            code="pruned",
            hint="of a job that has succeeded they are kept for a day, and the model for longer:"
            f" `ftq submit --from {other.job}` trains it again",
        )


@contextmanager
def _files_of(other: JobPaths) -> Iterator[None]:
    """Raise Refused (`pruned`) where a file of the other job goes away meanwhile."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename is None or not str(error.filename).startswith(str(other.root)):
            raise
        raise Refused(
            f"a file of {other.job} went away: {Path(str(error.filename)).name}",
            code="pruned",
            hint=f"{other.job} was retried or pruned meanwhile; try again once it has ended",
        ) from error


def _refuse_device(ctx: PhaseContext, plan: Plan) -> None:
    """Raise Refused where this place cannot train what was trained."""
    for run in {leg.index: leg.run for leg in plan.legs}.values():
        settings = run.settings
        if not settings.on_cpu and not ctx.devices.gpus:
            raise Refused(
                f"step {plan.step} was trained on {run.device}, and this host has no GPU",
                code="other_device",
                hint="start the worker of this storage on a host with such a card",
            )
        if settings.world_size != ctx.devices.world_size:
            raise Refused(
                f"step {plan.step} was trained on {settings.world_size} devices together, and"
                f" {ctx.devices.world_size} were given to the replay",
                code="other_device",
                hint="a replay needs as many devices as the training had",
            )


def _tell_plan(ctx: PhaseContext, other: JobPaths, plan: Plan, device: str) -> None:
    words = _way_words(plan)
    if plan.start:
        path = plan.start.path.relative_to(other.root).as_posix()
        ctx.emit(EventType.RESUMED, step=plan.start.step, path=path, reason=words)
    else:
        line = f"no checkpoint before step {plan.step} is kept: it begins from the base model"
        ctx.emit(EventType.LOG, line=f"{line}; {words}")
    if plan.trained > 1:
        again = f"the job has trained step {plan.step} {plan.trained} times: the last one counts"
        ctx.emit(EventType.LOG, line=again)
    if odd := _differences(plan, device):
        ctx.warn(f"numbers may differ in their last digits: {odd}")


def _way_words(plan: Plan) -> str:
    if not plan.repeated:
        return f"step {plan.step} is the next"
    first, last = plan.after_step + 1, plan.step - 1
    steps = f"step {first} is" if first == last else f"steps {first} to {last} are"
    legs = len(plan.legs)
    settings = f", with the settings of {legs} runs" if legs > 1 else ""
    return f"{steps} repeated on the way to step {plan.step}{settings}"


def _differences(plan: Plan, device: str) -> str:
    """Return what is not as it was when the steps were trained."""
    now, odd = versions(), []
    for run in {leg.index: leg.run for leg in plan.legs}.values():
        if run.device != device and not run.settings.on_cpu:
            odd.append(f"it was trained on {run.device} and this is {device}")
        odd += [
            f"{name} was {old} and is {now[name]}"
            for name, old in run.versions.items()
            if name in now and now[name] != old
        ]
    return "; ".join(dict.fromkeys(odd))


def _tell_rows(
    ctx: PhaseContext, wanted: Replay, plan: Plan, material: Material, found: Replayed
) -> None:
    if material.sources is None:
        ctx.warn(
            "where the rows came from is not written down: an older version has prepared this job",
            hint=f"`ftq retry {wanted.job} --from prepare` prepares it again",
        )
    for row in found.rows:
        ctx.emit(EventType.REPLAY_ROW, step=plan.step, **_row_data(material, row))


def _row_data(material: Material, figures: RowFigures) -> dict[str, Any]:
    row = material.sets.train[figures.position]
    data: dict[str, Any] = {
        "tokens": figures.tokens,
        "text": _text(row["input_ids"], material.tokenizer),
        **rounded({"loss": figures.loss}),
    }
    if material.sources is not None:
        source = material.sources.at(figures.position)
        data |= {"file": source.ref.file, "row": source.ref.row}
        data |= {} if source.line is None else {"line": source.line}
    if figures.trained is not None:
        data["trained"] = figures.trained
    if figures.grad_norm is not None:
        data |= rounded({"grad_norm": figures.grad_norm})
    if "label" in row:
        data["label"] = material.labels[row["label"]]
    return data


def _text(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a row as the model sees it, a long one without its middle; secrets are hidden."""
    text = hide(str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)))
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"


def _tell_way(ctx: PhaseContext, plan: Plan, records: StepRecords, found: Replayed) -> None:
    """Warn of the first step on the way that came to other numbers than it had."""
    for step in range(plan.after_step + 1, plan.step):
        leg = next(leg for leg in plan.legs if step <= leg.until)
        recorded = records.last(step, leg.index)
        if recorded and step in found.steps and not _is_equal(found.steps[step], recorded.data):
            was, now = recorded.data.get("loss"), _figures(found.steps[step]).get("loss")
            ctx.warn(f"step {step}, on the way, came to a loss of {now}; recorded was {was}")
            return


def _tell_step(
    ctx: PhaseContext,
    wanted: Replay,
    plan: Plan,
    figures: StepFigures,
    device: str,
    rows: int,
    ended: str,
) -> None:
    recorded, now = plan.recorded.data, _figures(figures)
    equal, on_cpu = _is_equal(figures, recorded), plan.legs[-1].run.settings.on_cpu
    if not equal:
        ctx.warn(
            f"step {plan.step} came to other numbers than those that were recorded:"
            f" loss {now['loss']} instead of {recorded.get('loss')}",
            hint=_differences(plan, device) or (_ON_CPU if on_cpu else _ON_CUDA),
        )
    given = {"loss": figures.loss, "grad_norm": figures.grad_norm}
    numbers = rounded({name: value for name, value in given.items() if value is not None})
    optional = {"recorded_grad_norm": recorded["grad_norm"]} if "grad_norm" in recorded else {}
    ctx.emit(
        EventType.REPLAYED,
        job=wanted.job,
        step=plan.step,
        rows=rows,
        recorded_loss=recorded.get("loss"),
        equal=equal,
        lr=figures.learning_rate,
        after_step=plan.after_step,
        repeated=plan.repeated,
        trained=plan.trained,
        **{"loss": None, **numbers},
        **optional,
        **({"ended": ended} if ended else {}),
    )


def _ended(other: JobPaths) -> str:
    """Return how the other job has ended, '' where nobody has written it down."""
    try:
        return str((read_json(other.result) or {}).get("state", ""))
    except (ValueError, AttributeError):
        return ""


def _figures(figures: StepFigures) -> dict[str, float | None]:
    """Return the figures of a step as its event has them: rounded, None for what is not finite."""
    given = {"loss": figures.loss, "grad_norm": figures.grad_norm}
    known = rounded({name: value for name, value in given.items() if value is not None})
    finite = {name: value if math.isfinite(value) else None for name, value in known.items()}
    return {"loss": None, **finite}


def _is_equal(figures: StepFigures, recorded: Mapping[str, Any]) -> bool:
    now = _figures(figures)
    return all(now.get(name) == recorded.get(name) for name in ("loss", "grad_norm"))
