"""The publish phase verifies before it pushes: the saved model is what training measured."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.unit.publishing.jobs import told

from ftq_shared.errors import FtqError, UsageError
from ftq_shared.events import EventType
from ftq_worker.job.reports import Trained
from ftq_worker.phases import publish
from ftq_worker.publishing.verify import against_base


def figures(loss: float, rows: int, spread: float = 0.1) -> dict[str, float]:
    ends = {"loss_low": loss - spread, "loss_high": loss + spread} if spread else {}
    return {"loss": loss, "rows": rows} | ends


class TestVerdict:
    @pytest.mark.parametrize(
        ("now", "base", "rows", "ok", "words"),
        [
            (1.0, 2.0, 30, True, "better than the base model's 2.0000 (1.9000 to 2.1000)"),
            (2.0, 1.0, 30, False, "worse than the base model's"),
            (1.0, 1.05, 30, True, "not clearly different from"),
            (1.0, 6.0, 29, True, "29 rows: too few rows to judge"),
            (6.0, 1.0, 1, True, "1 row: too few rows to judge"),
        ],
    )
    def test_it_needs_thirty_rows(self, publishing, now, base, rows, ok, words):
        trained = Trained.load(publishing().ctx.paths.train_report)
        trained = trained.model_copy(update={"golden_before": figures(base, rows)})
        found = against_base(figures(now, rows), trained)
        assert found.ok is ok
        assert words in found.message
        if rows < 30:
            assert "better" not in found.message
            assert "worse" not in found.message

    def test_without_an_interval_there_is_none(self, publishing):
        trained = Trained.load(publishing().ctx.paths.train_report)
        trained = trained.model_copy(update={"golden_before": figures(6.0, 40, spread=0)})
        found = against_base(figures(1.0, 40), trained)
        assert found.ok
        assert found.message.startswith("golden loss 1.0000 (0.9000 to 1.1000), the base model's")
        assert "better" not in found.message


class TestVerification:
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
        report = Trained.load(job.ctx.paths.train_report)
        better = dict.fromkeys(("loss", "loss_low", "loss_high"), 0.01)
        report.model_copy(update={"golden_before": report.golden_before | better}).save(
            job.ctx.paths.train_report
        )
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
