"""What is saved is verified before it is pushed: it is what training measured, and it is better."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.publishing.jobs import told

from ftq_shared.errors import FtqError, UsageError
from ftq_shared.events import EventType
from ftq_worker.job.reports import GoldenScores, Trained
from ftq_worker.phases import publish, verify
from ftq_worker.publishing.verdicts import Verification, against_base, same_as_trained
from ftq_worker.publishing.verify import _precision
from ftq_worker.training.intervals import ratio_interval, wilson

Rows = list[tuple[float, int, int]]


def rows_of(losses: list[float], right: list[int] | None = None) -> Rows:
    """Return the figures of rows of ten tokens, or of one label."""
    return [(10 * loss, 10, 5) for loss in losses] if right is None else [(1, 1, r) for r in right]


def verdict(before: Rows, after: Rows, **figures: float) -> Verification:
    """Compare two scorings of the same rows."""
    base, now = (summary(rows) | figures for rows in (before, after))
    return against_base(base, now, before, after)


def summary(rows: Rows) -> dict[str, float]:
    """Return the figures of a set as the scorers do."""
    if rows[0][1] == 1:
        right = sum(row[2] for row in rows)
        low, high = wilson(right, len(rows))
        return {"accuracy": right / len(rows), "accuracy_low": low, "accuracy_high": high}
    loss, ends = ratio_interval([row[0] for row in rows], [row[1] for row in rows])
    return {"loss": loss} | ({"loss_low": ends[0], "loss_high": ends[1]} if ends else {})


def spread(mean: float, rows: int) -> list[float]:
    """Return losses that lie far apart, around a mean."""
    return [mean + (i % 7 - 3) / 3 for i in range(rows)]


class TestVerdict:
    @pytest.mark.parametrize(
        ("now", "base", "rows", "ok", "words"),
        [
            (2.0, 2.1, 35, True, "better than the base model's 2.1"),  # far inside both intervals
            (2.1, 2.0, 35, False, "worse than the base model's 2.0"),
            (2.0005, 2.0, 35, True, "not clearly different from"),
            (1.0, 6.0, 28, True, "28 rows: too few rows to judge"),
            (6.0, 1.0, 1, True, "1 row: too few rows to judge"),
        ],
    )
    def test_rows_are_compared_one_by_one(self, now, base, rows, ok, words):
        before = [loss + i / 1e6 for i, loss in enumerate(spread(base, rows))]
        found = verdict(rows_of(before), rows_of(spread(now, rows)))
        assert found.ok is ok
        assert words in found.message
        if rows < 30:
            assert "better" not in found.message
            assert "worse" not in found.message

    def test_differences_that_cancel_out_are_no_gain(self):
        before = [2.0 + (i % 2) for i in range(40)]
        found = verdict(rows_of(before), rows_of(before[::-1]))
        assert "not clearly different" in found.message

    @pytest.mark.parametrize(
        ("before", "after", "ok", "word"),
        [
            ([0] * 40, [1] * 40, True, "better than"),  # no difference varies: the intervals tell
            ([1] * 40, [0] * 40, False, "worse than"),
            ([1] * 40, [1] * 40, True, "not clearly different from"),
            ([0, 1] * 20, [1, 1] * 18 + [0, 1] * 2, True, "better than"),
            ([0, 1] * 20, [0, 1] * 19 + [1, 0], True, "not clearly different from"),
        ],
    )
    def test_labels_as_well(self, before, after, ok, word):
        found = verdict(rows_of([], before), rows_of([], after))
        assert found.ok is ok
        assert word in found.message

    def test_without_an_interval_there_is_none(self):
        found = verdict(rows_of([6.0] * 40), rows_of([1.0] * 40))
        assert found.ok
        assert found.message.startswith("golden loss 1.0000, the base model's 6.0000; all rows")
        assert "better" not in found.message


class TestSameAsTrained:
    @pytest.mark.parametrize(
        ("method", "saved", "now", "ok"),
        [
            ("lora", torch.float32, 2.0, True),
            ("lora", torch.float32, 2.01, False),
            ("lora", torch.bfloat16, 2.01, True),
            ("lora", torch.bfloat16, 1.9, False),
            ("lora", torch.bfloat16, math.nan, False),
            ("qlora", torch.bfloat16, 1.5, True),  # without its 4 bits a base may be better
            ("qlora", torch.bfloat16, 2.2, True),
            ("qlora", torch.bfloat16, 4.0, False),
            ("qlora", torch.bfloat16, math.nan, False),
        ],
    )
    def test_as_near_as_the_precision_allows(self, publishing, method, saved, now, ok):
        trained = Trained.load(publishing().ctx.paths.train_report)
        trained = trained.model_copy(update={"method": method})
        then = rows_of([2.0] * 8)
        found = same_as_trained(rows_of([now] * 8), then, trained, saved)
        assert found.ok is ok
        assert ("4-bit" in found.message) is (method == "qlora")


class TestVerification:
    def test_it_is_done_before_the_cards_are_given_back(self, publishing, hub):
        """The second part of train: publish only adds the model card."""
        job = publishing(repo="me/verified")
        verify.run(job.ctx)
        assert told(job) == {"saved_model": True, "golden": True, "generates": True}
        after = Trained.load(job.ctx.paths.train_report).golden_after
        (figures,) = job.events.of(EventType.EVAL)
        assert (figures["when"], figures["loss"]) == ("after", after["loss"])
        last = job.again()
        publish.run(last.ctx)
        assert told(last) == {"pushed_files": True}
        assert not last.events.of(EventType.EVAL)

    def test_what_changed_since_is_not_pushed_and_verified_anew(self, publishing, hub):
        job = publishing(repo="me/changed")
        verify.run(job.ctx)
        path = job.ctx.paths.release / "tokenizer.json"
        text = path.read_bytes()
        path.unlink()  # it shares its bytes with the trained model's
        path.write_bytes(text + b" ")
        with pytest.raises(FtqError) as caught:
            publish.run(job.again().ctx)
        assert caught.value.code == "release_changed"
        assert "release/tokenizer.json is not what was verified" in caught.value.message
        assert not hub.api.repo_exists("me/changed")
        last = job.again(token_number=9)
        publish.run(last.ctx)
        assert told(last) == {
            "saved_model": True,
            "golden": True,
            "generates": True,
            "pushed_files": True,
        }

    def test_without_a_repo_it_only_verifies(self, publishing):
        job = publishing()
        publish.run(job.ctx)
        assert told(job) == {"saved_model": True, "golden": True, "generates": True}
        assert not job.ctx.paths.published.exists()
        assert not job.events.of(EventType.PUBLISHED)
        card = (job.ctx.paths.release / "README.md").read_text()
        assert "## Results" in card
        assert f'from_pretrained("{job.ctx.job}")' in card
        assert job.ctx.paths.fetched == job.ctx.paths.release

    def test_a_whole_model_verifies(self, publishing):
        """The other kinds are verified before their cards' code runs, below."""
        job = publishing("sft", "full")
        publish.run(job.ctx)
        assert told(job)["saved_model"]

    def test_merged_is_what_was_trained(self, publishing):
        job = publishing(format="merged")
        publish.run(job.ctx)
        found = job.events.of(EventType.VERIFICATION)[0]
        assert found["ok"]
        assert found["after"] == pytest.approx(found["before"], rel=1e-5)
        assert found["message"].endswith(f"what training measured: {found['before']:.4f}")
        staged = job.ctx.paths.release
        assert not list(staged.glob("adapter*"))

    @pytest.mark.parametrize("value", [0.0, math.nan])
    def test_damaged_weights_are_not_pushed(self, publishing, hub, value):
        job = publishing(repo="me/damaged")
        path = job.ctx.paths.model / "adapter_model.safetensors"
        tensors = {k: torch.full_like(v, value) for k, v in load_file(path).items()}
        path.unlink()
        save_file(tensors, path)
        with pytest.raises(FtqError) as caught:
            publish.run(job.ctx)
        assert caught.value.code == "verification_failed"
        assert told(job)["saved_model"] is False
        assert job.ctx.paths.fetched == job.ctx.paths.model
        assert not hub.api.repo_exists("me/damaged")

    def test_worse_than_the_base_is_not_pushed(self, publishing, hub):
        job = publishing(repo="me/worse")
        notes = GoldenScores.load(job.ctx.paths.golden_scores)
        better = [(loss / 100, count, right) for loss, count, right in notes.before]
        notes.model_copy(update={"before": better}).save(job.ctx.paths.golden_scores)
        with pytest.raises(FtqError) as caught:
            publish.run(job.ctx)
        assert "worse than the base" in caught.value.message
        assert told(job) == {"saved_model": True, "golden": False, "generates": True}
        assert not hub.api.repo_exists("me/worse")

    def test_adapter_of_a_whole_model_is_a_mistake(self, publishing):
        job = publishing("sft", "full", format="adapter")
        with pytest.raises(UsageError) as caught:
            publish.run(job.ctx)
        assert caught.value.code == "format_mismatch"


@pytest.mark.parametrize(
    ("device", "saved", "method", "precision", "loaded"),
    [
        ("cpu", torch.bfloat16, "lora", "bf16", torch.float32),
        ("cuda", torch.bfloat16, "lora", "bf16", torch.bfloat16),
        ("cuda", torch.float16, "full", "bf16", torch.float16),
        ("cuda", torch.float32, "full", "bf16", torch.float32),
        ("cuda", torch.float32, "lora", "bf16", torch.bfloat16),  # the base was trained on so
        ("cuda", torch.float32, "qlora", "fp16", torch.float16),
        ("cuda", torch.float32, "lora", "fp32", torch.float32),
    ],
)
def test_it_needs_no_more_room_than_training_had(
    tmp_path, publishing, device, saved, method, precision, loaded
):
    save_file({"w": torch.zeros(4, dtype=saved)}, tmp_path / "adapter_model.safetensors")
    trained = Trained.load(publishing().ctx.paths.train_report)
    settings = trained.settings | {"precision": precision}
    run = trained.model_copy(update={"method": method, "settings": settings})
    assert _precision(tmp_path, run, device) is loaded
