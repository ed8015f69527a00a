"""Trackers get every figure; one that fails, hangs or dies warns once and harms nothing."""

import json
import struct
import textwrap
import time

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tests.support.data_jobs import make_context, make_spec, write_jsonl
from tests.support.tiny_jobs import tiny_job

from ftq_shared.errors import Refused
from ftq_shared.events import EventType
from ftq_worker.host.data_roots import DataRoots
from ftq_worker.job.context import Interrupted, StopReason
from ftq_worker.phases import train, validate
from ftq_worker.training import trackers
from ftq_worker.training.trackers import tracked
from ftq_worker.training.trainer_args import EXAMPLE

# A tracker's package as wandb's is called, which keeps what it is given in a file.
WANDB = """
import json, os, time
class Settings:
    def __init__(self, **_): pass
class Run:
    url = None
    def define_metric(self, *_, **__): pass
    def log(self, figures):
        {log}
        with open("seen.jsonl", "a") as file: file.write(json.dumps(figures) + "\\n")
    def finish(self):
        {finish}
        open("finished", "w").write(os.environ["WANDB_MODE"])
def init(**given):
    print("wandb: a banner of its own")
    {init}
    with open("given.json", "w") as file:
        given.pop("settings")
        json.dump(given | {{"keys": sorted(k for k in os.environ if k.startswith("WANDB_"))}}, file)
    return Run()
"""


@pytest.fixture
def fake_wandb(tmp_path, monkeypatch):
    def make(init="", log="", finish="", module=WANDB):
        folder = tmp_path / "fakes"
        folder.mkdir(exist_ok=True)
        code = module.format(init=init or "pass", log=log or "pass", finish=finish or "pass")
        (folder / "wandb.py").write_text(textwrap.dedent(code))
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return make


def read_events(path):
    """Return the events of one file of TensorBoard's: length, checksum, bytes, checksum."""
    data, found = path.read_bytes(), []
    while data:
        (size,) = struct.unpack("Q", data[:8])
        found.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return found


def test_tensorboard_files_hold_every_step_also_after_a_resume(tmp_path, llama):
    job = tiny_job(tmp_path, llama, "sft", train={"max_steps": 6})

    def stop(type_, data):
        if type_ is EventType.STEP and data["step"] == 2:
            job.ctx.control.stop(StopReason.DRAIN)

    job.events.hook = stop
    with pytest.raises(Interrupted):
        train.run(job.ctx)
    last = job.again()
    train.run(last.ctx)
    told = {d["step"]: d["loss"] for one in (job, last) for d in one.events.of(EventType.STEP)}
    seen, starts = {}, []
    for path in sorted(job.ctx.paths.tensorboard.iterdir(), key=lambda one: one.suffix):
        for event in read_events(path):
            if event.session_log.status == SessionLog.START:
                starts.append(event.step)
            for value in event.summary.value:
                seen.setdefault(value.tag, {})[event.step] = value.simple_value
    assert seen["train/loss"] == pytest.approx(told, rel=1e-6)
    assert seen["train/lr"].keys() == seen["train/grad_norm"].keys() == told.keys()
    assert seen["validation/loss"].keys() == {4, 6}
    assert seen["golden/loss"].keys() == {0}
    assert starts == [0, 4]  # what the first attempt may have written from there on is void
    assert job.ctx.paths.tensorboard in job.ctx.paths.reports


def test_tensorboard_drops_the_steps_that_are_trained_again(tmp_path):
    ctx = make_context(tmp_path, make_spec())
    board = trackers.TensorBoard(ctx)
    for step in (1, 2, 3, 3, 2, 3):  # a step and its evaluation; then a roll-back
        board.log(step, {"train/loss": 1.0})
    board.finish(0.0)
    (file,) = ctx.paths.tensorboard.iterdir()
    events = read_events(file)
    starts = [e.step for e in events if e.session_log.status == SessionLog.START]
    assert starts == [1, 2]


def test_a_tracker_gets_every_figure_and_its_own_secrets(tmp_path, llama, fake_wandb, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "of-the-host")
    fake_wandb()
    job = tiny_job(tmp_path, llama, "sft", train={"max_steps": 4}, report_to=["wandb"])
    secrets = {"WANDB_PROJECT": "mine", "HF_TOKEN": "hf_x", "OTHER": "y"}
    train.run(job.again(secrets=secrets).ctx)
    folder = job.ctx.paths.trackers / "wandb"
    lines = [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "validation/loss" in line] == [4]
    given = json.loads((folder / "given.json").read_text())
    assert (given["project"], given["id"], given["resume"]) == ("mine", job.ctx.job, "allow")
    assert given["config"]["batch_size"] == 8
    # The host's own key is nobody else's: without one among the job's secrets all stays here.
    assert given["keys"] == ["WANDB_MODE", "WANDB_PROJECT"]
    assert (folder / "finished").read_text() == "offline"


BROKEN = {
    "raises_at_import": ({"module": "raise OSError('no such wheel')"}, "OSError: no such wheel"),
    "raises_at_start": ({"init": "raise ValueError('bad key')"}, "ValueError: bad key"),
    "raises_in_log": ({"log": "raise RuntimeError('rate limit')"}, "RuntimeError: rate limit"),
    "raises_at_end": ({"finish": "raise RuntimeError('not synced')"}, "not synced"),
    "dies": ({"log": "os.kill(os.getpid(), 9)"}, "ended with code -9"),
    "hangs_at_start": ({"init": "time.sleep(600)"}, "has not started in 0 s"),
    "hangs_in_log": ({"log": "time.sleep(600)"}, "has not ended"),
    "hangs_at_end": ({"finish": "time.sleep(600)"}, "has not ended"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_tracker_warns_once(tmp_path, llama, fake_wandb, monkeypatch, name):
    broken, words = BROKEN[name]
    fake_wandb(**broken)
    monkeypatch.setattr(trackers, "FINISH_S", 2.0)
    if name == "hangs_at_start":
        monkeypatch.setattr(trackers, "START_S", 0.2)
    job = tiny_job(tmp_path, llama, "sft", report_to=["wandb"])
    began = time.monotonic()
    with tracked(job.ctx, EXAMPLE) as ctx:
        for step in range(1, 8):
            ctx.emit(EventType.STEP, step=step, steps=7, loss=1.0, lr=0.1, epoch=0.1, step_s=0.1,
                     eta_s=0.0, tokens_per_s=1.0)  # fmt: skip
            time.sleep(0.1)
    assert time.monotonic() - began < 10
    (warning,) = job.events.of(EventType.WARNING)
    assert warning["message"].startswith("tracker wandb is given up: ")
    assert words in warning["message"]
    assert len(job.events.of(EventType.STEP)) == 7


def test_training_is_the_same_with_a_broken_tracker(tmp_path, llama, fake_wandb, monkeypatch):
    fake_wandb(log="raise RuntimeError('rate limit')")
    monkeypatch.setattr(trackers.TensorBoard, "log", lambda *_: 1 / 0)
    jobs = [
        tiny_job(tmp_path / name, llama, "sft", train={"max_steps": 4}, report_to=asked)
        for name, asked in (("without", []), ("with", ["wandb"]))
    ]
    for job in jobs:
        train.run(job.ctx)
    one, other = ([d["loss"] for d in job.events.of(EventType.STEP)] for job in jobs)
    assert one == other
    named = [w["message"].split(": ")[0] for w in jobs[1].events.of(EventType.WARNING)]
    assert sorted(named) == ["tracker tensorboard is given up", "tracker wandb is given up"]


def test_a_missing_package_is_refused_with_the_command():
    with pytest.raises(Refused) as caught:
        trackers.installed(["json", "no_such_tracker"])
    assert caught.value.code == "tracker_missing"
    assert "pip install no_such_tracker;" in caught.value.hint


def test_validate_refuses_it(tmp_path, llama, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    rows = [{"question": f"w{i} w1", "answer": f"w{i}"} for i in range(30)]
    spec = make_spec(
        model=f"worker:{llama}",
        dataset=f"worker:{write_jsonl(tmp_path / 'rows.jsonl', rows)}",
        report_to=["wandb", "mlflow"],
    )
    ctx = make_context(tmp_path / "job", spec, data_roots=DataRoots(open=("/",)))
    with pytest.raises(Refused) as caught:
        validate.run(ctx)
    assert "this worker has no package wandb and mlflow" in caught.value.message
    assert "pip install wandb mlflow;" in caught.value.hint
