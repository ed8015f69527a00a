"""Many architectures: validate lets none through that training would break on."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from tests.support.data_jobs import make_context, make_spec, write_jsonl
from tests.support.tiny_jobs import tiny_job
from tests.support.zoo import DECODERS, ENCODERS, make_model

from ftq_shared.errors import Refused
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.job.reports import Trained
from ftq_worker.phases import train, validate

# One of each kind: dense, sliding window, Conv1D, experts, state space, hybrid, encoders.
ALWAYS = {"qwen3", "gemma3_text", "gpt2", "qwen3_moe", "mamba", "lfm2", "bert", "modernbert"}
# What validate refuses, with its reason; everything else trains.
REFUSED: dict[tuple[str, str], str] = {}
QA = [{"question": f"w{i} w1", "answer": f"w{i}"} for i in range(30)]
RATED = [{"text": f"w{i} w2", "label": "up" if i % 2 else "down"} for i in range(30)]


def cases() -> list[Any]:
    names = [*DECODERS, *ENCODERS]
    return [
        pytest.param(name, method, marks=[] if name in ALWAYS else pytest.mark.chaos)
        for name, method in itertools.product(names, ("lora", "full"))
    ]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = make_model(tmp_path_factory.mktemp("zoo") / name, name)
        return made[name]

    return get


# What libraries say of models so small, or of kernels that a CPU lacks.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "method"), cases())
def test_it_trains_or_is_refused_before(
    tmp_path: Path, models: Any, name: str, method: str
) -> None:
    base, task = models(name), "classification" if name in ENCODERS else "sft"
    file = write_jsonl(tmp_path / "rows.jsonl", RATED if name in ENCODERS else QA)
    ctx = make_context(
        tmp_path / "validate",
        make_spec(
            model=f"worker:{base}",
            dataset=f"worker:{file}",
            task=task,
            train={"method": method},
        ),
        data_roots=DataRoots(open=("/",)),
    )
    if reason := REFUSED.get((name, method)):
        with pytest.raises(Refused, match=reason):
            validate.run(ctx)
        return
    validate.run(ctx)
    job = tiny_job(tmp_path, base, task, train={"method": method, "max_steps": 2, "eval_every": 2})
    train.run(job.ctx)
    assert Trained.load(job.ctx.paths.train_report).steps == 2
