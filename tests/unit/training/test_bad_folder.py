"""A job's folder that was damaged: named, with what to do, never in a library's words alone."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.support.killing import live, zygote
from tests.support.tiny_jobs import TinyJob, tiny_job

from ftq_shared.errors import FtqError, Stale
from ftq_shared.paths import JobPaths, read_json, write_json
from ftq_worker.agent.child import Spawn
from ftq_worker.data.sets import RowSet
from ftq_worker.host.disk import disk_full
from ftq_worker.host.messages import Ending, Outcome
from ftq_worker.job import atomic_folders
from ftq_worker.job.prepared_sets import load_sets
from ftq_worker.job.reports import GoldenScores, Prepared, Trained, Validated, read_resolved
from ftq_worker.phases import prepare, train
from ftq_worker.training import checkpoints
from ftq_worker.training.trainers import Trainer

JOB = "ft-aaaaaaaa"
BROKEN = ["", "{", "[]", '{"rows": {}}', "null", "\xff\xfe", '"text"']


def error_of(action) -> FtqError:
    with pytest.raises(FtqError) as caught:
        action()
    assert type(caught.value) is FtqError
    return caught.value


class TestReports:
    @pytest.mark.parametrize("text", BROKEN)
    @pytest.mark.parametrize(
        ("kind", "name", "phase"),
        [
            (Validated, "validated.json", "validate"),
            (Prepared, "prepared.json", "prepare"),
            (Trained, "train.json", "train"),
        ],
    )
    def test_damaged(self, tmp_path, kind, name, phase, text):
        path = JobPaths(tmp_path, JOB).root / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="latin-1")
        error = error_of(lambda: kind.load(path))
        code = "missing_handover" if text == "null" else "damaged_handover"
        assert error.code == code
        assert error.message.startswith(f"{name} is ")
        assert "\n" not in error.message
        assert f"`ftq retry {JOB} --from {phase}`" in error.hint

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_cut_off_in_a_real_job(self, sft_job, share):
        path = sft_job.ctx.paths.prepared_report
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        error = error_of(lambda: train.run(sft_job.ctx))
        assert "prepared.json is damaged" in error.message

    @pytest.mark.parametrize("text", ["", "[1]", "{", "\xff"])
    def test_resolved(self, sft_job, text):
        sft_job.ctx.paths.resolved.write_text(text, encoding="latin-1")
        for action in (
            lambda: read_resolved(sft_job.ctx.paths),
            lambda: sft_job.ctx.resolve("task", "sft", "because"),
            lambda: train.run(sft_job.ctx),
        ):
            error = error_of(action)
            assert error.code == "damaged_handover"
            assert "--from validate" in error.hint  # which begins with an empty one


class TestPreparedData:
    @pytest.fixture
    def load(self, sft_job):
        prepared = Prepared.load(sft_job.ctx.paths.prepared_report)
        return lambda: load_sets(sft_job.ctx.paths, prepared)

    @pytest.fixture
    def files(self, sft_job) -> list[Path]:
        found = sorted((sft_job.ctx.paths.prepared / "train").iterdir())
        assert len(found) == 3  # the rows, their description, the list of files
        return found

    def test_whole(self, load):
        assert len(load().train) == 48

    def test_cut_off_anywhere(self, load, files):
        for path in files:
            whole = path.read_bytes()
            for size in {0, 1, 8, len(whole) // 3, len(whole) // 2, len(whole) - 9}:
                path.write_bytes(whole[:size])
                error = error_of(load)
                assert error.code == "damaged_data"
                assert error.message.startswith("prepared is damaged: train: ")
                assert f"`ftq retry {JOB} --from prepare`" in error.hint
            path.write_bytes(whole)

    @pytest.mark.parametrize("text", ["{}", "[]", "null", '{"_data_files": []}'])
    def test_files_that_say_nothing(self, load, files, text):
        state = next(path for path in files if path.name == "state.json")
        state.write_text(text)
        assert error_of(load).code == "damaged_data"

    def test_a_set_that_is_gone(self, load, sft_job):
        golden = sft_job.ctx.paths.prepared / "golden"
        golden.rename(golden.with_name("elsewhere"))
        assert "golden" in error_of(load).message

    def test_other_rows_than_were_reported(self, load, sft_job):
        prepared = sft_job.ctx.paths.prepared
        (prepared / "train").rename(prepared / "kept")
        (prepared / "validation").rename(prepared / "train")
        assert "train has 8 rows instead of 48" in error_of(load).message


class TestUnfinished:
    """What a crash leaves half done is swept up by the next claim, and nothing else is."""

    def test_only_of_dead_claims_and_only_scratch(self, tmp_path):
        paths = JobPaths(tmp_path, JOB)
        for claim in ("1-aa", "2-bb", "3-cc", "12-dd", "old"):
            for name in (*atomic_folders.SCRATCH, "prepare.old", "checkpoints/checkpoint-5"):
                (paths.claim_dir(claim) / name).mkdir(parents=True)
            paths.events(claim).write_text("{}")
        atomic_folders.sweep(paths, 3)
        left = {
            claim: sorted(
                p.relative_to(paths.claim_dir(claim)).as_posix()
                for p in paths.claim_dir(claim).rglob("*")
            )
            for claim in ("1-aa", "2-bb", "3-cc", "12-dd", "old")
        }
        swept = ["checkpoints", "checkpoints/checkpoint-5", "events.jsonl"]
        assert left["1-aa"] == left["2-bb"] == swept
        for claim in ("3-cc", "12-dd", "old"):  # our own, a later one, and what has no number
            assert {*atomic_folders.SCRATCH, "prepare.old"} <= set(left[claim])

    @pytest.mark.parametrize("moment", ["before", "between", "after"])
    def test_a_swap_that_was_cut_off_is_made_again(self, tmp_path, monkeypatch, moment):
        target = tmp_path / "model"
        (target / "deep").mkdir(parents=True)
        (target / "weights").write_text("old")
        make_new(tmp_path / "claim1")
        calls = []
        original = Path.replace

        def replace(path, to):
            calls.append(to)
            if len(calls) == {"before": 1, "between": 2, "after": 9}[moment]:
                raise KeyboardInterrupt
            return original(path, to)

        monkeypatch.setattr(Path, "replace", replace)
        if moment == "after":
            atomic_folders.swap_in(tmp_path / "claim1", target)
        else:
            with pytest.raises(KeyboardInterrupt):
                atomic_folders.swap_in(tmp_path / "claim1", target)
        monkeypatch.undo()
        if moment != "between":
            assert (target / "weights").read_text() == {"before": "old", "after": "new"}[moment]
        make_new(tmp_path / "claim2")
        atomic_folders.swap_in(tmp_path / "claim2", target)
        assert (target / "weights").read_text() == "new"
        assert not (target / "deep").exists()

    def test_a_report_never_stands_beside_another_model(self, sft_job, monkeypatch):
        train.run(sft_job.ctx)
        assert sft_job.ctx.paths.train_report.exists()
        monkeypatch.setattr(atomic_folders.Path, "replace", lambda *_: 1 / 0)
        again = sft_job.again()
        with pytest.raises(ZeroDivisionError):
            train._leave(again.ctx, *leaving(again))
        assert not sft_job.ctx.paths.train_report.exists()


def make_new(folder: Path) -> None:
    folder.mkdir()
    (folder / "weights").write_text("new")


def leaving(job: TinyJob):
    from ftq_worker.training.base_model import load_base, load_tokenizer

    validated = Validated.load(job.ctx.paths.validated)
    base = Path(validated.model.name)
    figures = Trained.load(job.ctx.paths.train_report)
    model = load_base(base, validated.task, [])
    scores = GoldenScores.load(job.ctx.paths.golden_scores)
    return figures, scores, model, load_tokenizer(base), validated, base, []


@pytest.fixture
def spawn(tmp_path) -> Iterator[Spawn]:
    with zygote(tmp_path) as start:
        yield start


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of a few hundred kB, mounted for this test."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount(folder, "size=600k")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def mount(folder: Path, options: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")


class TestFullDisk:
    def test_a_real_one_is_the_hosts_trouble_and_the_job_goes_on(self, spawn, small_disk, llama):
        spec = {"method": "full", "save_every": 2, "epochs": 2}
        job = tiny_job(small_disk, llama, "sft", train=spec)
        life = live(spawn, job)
        assert life.outcome.ending is Ending.HOST, life.outcome
        assert life.outcome.error.code == "disk_full"
        assert "ftq prune" in life.outcome.error.hint
        known = [c.step for c in checkpoints.candidates(job.ctx.paths)]
        subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
        again = live(spawn, job.again(claim_name="2-aaaa"))
        assert again.outcome == Outcome(Ending.DONE)
        assert [d["step"] for d in again.of("resumed")] == known[:1]
        assert not again.of("warning")  # a checkpoint that was cut off is no damage

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
            Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        ],
    )
    def test_every_librarys_words_and_the_room_comes_back(self, sft_job, monkeypatch, error):
        part = checkpoints.part_folder(sft_job.ctx.paths, sft_job.ctx.claim)

        def save(trainer, *_):
            folder = part / "checkpoint-4"
            folder.mkdir(parents=True)
            (folder / "optimizer.pt").write_bytes(b"half")
            raise error

        monkeypatch.setattr(Trainer, "_save_checkpoint", save)
        with pytest.raises(type(error) if not isinstance(error, RuntimeError) else OSError) as said:
            train.run(sft_job.ctx)
        assert disk_full(said.value, sft_job.ctx.paths.storage).code == "disk_full"
        assert not part.exists()

    def test_a_file_that_could_not_be_written_leaves_the_old_one(self, tmp_path, monkeypatch):
        path = tmp_path / "train.json"
        write_json(path, {"old": True})

        def fsync(handle):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises(OSError, match="No space"):
            write_json(path, {"new": "x" * 10_000})
        assert read_json(path) == {"old": True}
        assert list(tmp_path.iterdir()) == [path]

    def test_another_trouble_of_the_save_is_not_taken_for_it(self, sft_job, monkeypatch):
        def save(*_):
            raise RuntimeError("something else")

        monkeypatch.setattr(Trainer, "_save_checkpoint", save)
        with pytest.raises(RuntimeError, match="something else") as said:
            train.run(sft_job.ctx)
        assert disk_full(said.value, sft_job.ctx.paths.storage) is None


class TestALostClaim:
    """Its process may still be at work: what the next owner has written stays."""

    @pytest.fixture
    def ctx(self, tmp_path: Path):
        def stale() -> None:
            raise Stale("somebody else owns this job now")

        paths = JobPaths(tmp_path, JOB)
        for folder, report in (
            (paths.model, paths.train_report),
            (paths.prepared, paths.prepared_report),
        ):
            write_json(folder / "whose.json", "the next owner's")
            write_json(report, "the next owner's")
        control = SimpleNamespace(check=lambda: None)
        owner = SimpleNamespace(check_lease=stale)
        yield SimpleNamespace(
            paths=paths,
            control=control,
            owner=owner,
            claim="1-a",
            doing=str,
            emit=lambda *_, **__: 0,
        )
        assert read_json(paths.model / "whose.json") == read_json(paths.train_report)
        assert read_json(paths.prepared / "whose.json") == read_json(paths.prepared_report)

    def test_leaves_no_model(self, ctx, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(train, "save_model", lambda *_: None)
        with pytest.raises(Stale):
            train._leave(ctx, None, None, None, None, SimpleNamespace(model=None), None, [])

    def test_leaves_no_data(self, ctx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(prepare, "save_set", lambda *_: None)
        monkeypatch.setattr(prepare, "save_sources", lambda *_: None)
        one = np.zeros(1, dtype=np.int64)
        chosen = RowSet(SimpleNamespace(tokens=[], position=one), one)
        sets = SimpleNamespace(items=lambda: [("train", chosen)], train=chosen)
        with pytest.raises(Stale):
            prepare._save(ctx, sets, tmp_path / "new")
