"""Jobs for the prepare phase without a broker: files, tiny tokenizers, a context, its events."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ftq_shared.events import EventType, make_body
from ftq_shared.paths import JobPaths
from ftq_shared.sources import Place
from ftq_shared.spec import JobSpec
from ftq_shared.states import Phase
from ftq_worker.data.columns import detect_layout
from ftq_worker.data.split_sources import columns_of, file_sources, sample_rows
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.reports import DatasetFacts, ModelFacts, Prepared, Validated
from ftq_worker.phases import prepare

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "How many apples are left? There are 12 apples left, so 3 + 4 = 7.",
    "user assistant system tool prompt answer question text label the quick brown fox",
]


def make_spec(**fields: Any) -> JobSpec:
    """Return a spec with the fields that matter to a test."""
    return JobSpec.model_validate({"model": "some/model", "dataset": "./rows.jsonl", **fields})


def make_tokenizer(
    corpus: Iterable[str] = CORPUS, *, eos: bool = True, chat: str | None = None, bos: bool = True
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer in milliseconds."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(corpus, trainer)
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", eos_token="</s>" if eos else None
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = chat
    return tokenizer


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any] | str]) -> Path:
    """Write rows as JSON lines; a string is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def qa(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return question and answer rows that all differ."""
    return [
        {"question": f"What is {i} plus {i}?", "answer": f"It is {2 * i}."}
        for i in range(start, start + count)
    ]


class Recorder:
    """Keeps events; undocumented fields raise, as in a real child."""

    def __init__(self) -> None:
        self.events: list[tuple[EventType, dict[str, Any]]] = []

    def __call__(self, type_: EventType, /, **data: Any) -> None:
        make_body(type_, data, attempt=1, host="here", phase=Phase.PREPARE)
        self.events.append((type_, data))


@dataclass
class Job:
    """A prepare job and everything it emitted."""

    ctx: PhaseContext
    validated: Validated

    def run(self) -> Prepared:
        """Run the phase; returns its report."""
        self.validated.save(self.ctx.paths.validated)
        prepare.run(self.ctx)
        return Prepared.load(self.ctx.paths.prepared_report)

    def load(self, name: str) -> Dataset:
        """Return a prepared set."""
        return load_from_disk(str(self.ctx.paths.prepared / name))

    def sent(self, type_: EventType) -> list[dict[str, Any]]:
        """Return the data of all events of a type."""
        assert isinstance(self.ctx.emit, Recorder)
        return [data for kind, data in self.ctx.emit.events if kind is type_]

    def rule(self, name: str) -> dict[str, Any]:
        """Return the cleaning event of a rule."""
        (entry,) = [data for data in self.sent(EventType.CLEANING) if data["rule"] == name]
        return entry

    def dropped(self) -> dict[str, int]:
        """Return how many rows each rule dropped, rules without any left out."""
        counts = {
            data["rule"]: data["rows_in"] - data["rows_out"]
            for data in self.sent(EventType.CLEANING)
        }
        return {rule: count for rule, count in counts.items() if count}


MakeJob = Callable[..., Job]


def job_maker(folder: Path) -> MakeJob:
    """Return a function that sets up a job over files, as validate would leave it."""

    def make(
        files: Path | list[Path],
        tokenizer: PreTrainedTokenizerBase,
        *,
        storage: str = "storage",
        max_positions: int | None = None,
        **fields: Any,
    ) -> Job:
        spec = make_spec(**fields)
        paths = [files] if isinstance(files, Path) else files
        tokenizer.save_pretrained(folder / "model")
        model = ModelFacts(
            place=Place.WORKER,
            name=str(folder / "model"),
            architecture="LlamaForCausalLM",
            model_type="llama",
            kind="decoder",
            hidden_size=8,
            layers=1,
            vocab_size=len(tokenizer),
            max_positions=max_positions,
        )
        return Job(make_context(folder / storage, spec), _validated(paths, spec, model))

    return make


def make_context(storage: Path, spec: JobSpec, **fields: Any) -> PhaseContext:
    """Return a context whose events are checked and kept in `ctx.emit.events`."""
    return PhaseContext(
        job="ft-test2222",
        phase=Phase.PREPARE,
        attempt=1,
        token_number=1,
        spec=spec,
        paths=JobPaths(storage, "ft-test2222"),
        emit=Recorder(),
        created="2026-01-02T03:04:05.678Z",
        **fields,
    )


def _validated(paths: list[Path], spec: JobSpec, model: ModelFacts) -> Validated:
    sources = file_sources(paths)
    sample = sample_rows(sources[spec.data.split]())
    columns = columns_of(sample)
    layout = detect_layout(columns, [row.values for row in sample], spec)
    return Validated(
        model=model,
        dataset=DatasetFacts(
            place=Place.WORKER,
            name="rows",
            files=[str(path.resolve()) for path in paths],
            splits=dict.fromkeys(sources),
            columns=columns,
        ),
        task=layout.task,
        shape=layout.name,
        columns=layout.columns,
        split=spec.data.split,
        validation_split="validation" if "validation" in sources else None,
        test_split="test" if "test" in sources else None,
    )
