"""The model card as a reader of the Hub finds it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from tests.support.tiny_jobs import TinyJob
from tests.unit.publishing.jobs import own_commits, told

from ftq_shared.errors import Refused
from ftq_shared.sources import Place
from ftq_worker.job.reports import Prepared, Trained, Validated
from ftq_worker.phases import publish
from ftq_worker.publishing.card import _results
from ftq_worker.publishing.usage import usage_code


class TestCard:
    @pytest.fixture
    def card(self, publishing, hub):
        job = publishing(repo="me/card")
        publish.run(job.ctx)
        path = hub.api.hf_hub_download("me/card", "README.md")
        return job, ModelCard.load(path)

    def test_metadata(self, card):
        job, found = card
        data = found.data
        assert data.base_model == "me/llama"
        assert data.base_model_relation == "adapter"
        assert data.license == "apache-2.0"
        assert data.datasets == ["org/rows"]
        assert data.library_name == "peft"
        after = Trained.load(job.ctx.paths.train_report).golden_after
        assert {r.metric_type: r.metric_value for r in data.eval_results}["loss"] == after["loss"]

    @pytest.mark.parametrize("shares", [[], [0.25, 1.0]])
    def test_what_was_not_used_stands_in_it(self, publishing, hub, shares):
        job = publishing(repo=f"me/unused-{len(shares)}")
        set_unused(job, [("a`b", share) for share in shares])
        publish.run(job.ctx)
        text = ModelCard.load(hub.api.hf_hub_download(f"me/unused-{len(shares)}", "README.md")).text
        assert ("not used" in text) is bool(shares)
        if shares:
            assert "`` a`b `` (25% of the rows)" in text

    def test_rows_that_were_left_out_by_name_stand_in_it(self, publishing, hub):
        job = publishing(repo="me/left-out")
        report = Trained.load(job.ctx.paths.train_report)
        gone = [{"file": "a`b.csv", "row": n, "from_step": 3 + n % 2} for n in range(60)]
        report.model_copy(update={"left_out": gone}).save(job.ctx.paths.train_report)
        publish.run(job.ctx)
        text = ModelCard.load(hub.api.hf_hub_download("me/left-out", "README.md")).text
        assert "60 rows were left out of training by name, from steps 3 to 4 on: `` a`b" in text
        assert "row 49 and 10 more." in text

    @pytest.mark.parametrize(
        ("ids", "name", "link"),
        [(["other"], "qwen-research", "LICENSE"), (["mit", "apache-2.0"], None, None)],
    )
    def test_a_licence_is_stated_as_the_base_states_it(self, publishing, hub, ids, name, link):
        repo = f"me/licence-{len(ids)}"
        job = publishing(repo=repo)
        set_model(job, licenses=ids, license_name=name, license_link=link)
        publish.run(job.ctx)
        data = ModelCard.load(hub.api.hf_hub_download(repo, "README.md")).data
        assert data.license == (ids if len(ids) > 1 else ids[0])
        assert (data.license_name, data.license_link) == (name, link)

    def test_a_card_that_the_hub_refuses_is_a_refusal(self, publishing, hub):
        job = publishing(repo="me/refused-card")
        set_model(job, licenses=["house-rules"])
        with pytest.raises(Refused) as caught:
            publish.run(job.ctx)
        assert caught.value.code == "card_refused"
        assert '"license" must be one of' in caught.value.message
        assert own_commits(hub, "me/refused-card", job) == []

    def test_text_of_others_is_shown_and_not_read(self, publishing, tmp_path):
        """Labels and names come from whoever made the dataset."""
        job = publishing("classification", "full")
        evil = [
            "![t](http://evil.example/track.png)",
            "<script>alert(1)</script>",
            "a\n\n## Injected heading\n\n[click](http://evil.example)",
            "tick ` and `` ticks",
            "`",
            "| bar |",
            "\x1b[31m",
        ]
        prepared = Prepared.load(job.ctx.paths.prepared_report)
        prepared.model_copy(
            update={"labels": evil, "golden_source": "x` <b>y</b> `z\n# heading"}
        ).save(job.ctx.paths.prepared_report)
        found = Validated.load(job.ctx.paths.validated)
        facts = found.dataset.model_copy(update={"config": "c\n\n# Heading <img src=x>"})
        found.model_copy(update={"dataset": facts}).save(job.ctx.paths.validated)
        write_card_alone(job, tmp_path)
        text = (tmp_path / "README.md").read_text()
        page = MarkdownIt().parse(text.split("---", 2)[2])
        kinds = {token.type for token in page} | {
            child.type for token in page for child in token.children or ()
        }
        assert not kinds & {"html_block", "html_inline", "image", "link_open"}
        headings = [page[i + 1].content for i, t in enumerate(page) if t.type == "heading_open"]
        assert not any("eading" in heading for heading in headings)
        spans = [
            child.content
            for token in page
            for child in token.children or ()
            if child.type == "code_inline"
        ]
        for label in (*evil[:2], *evil[3:6]):
            assert label in spans
        assert "\x1b" not in text

    def test_text(self, card):
        job, found = card
        report = Trained.load(job.ctx.paths.train_report)
        for expected in (
            job.ctx.job,
            job.ctx.spec.sha256(),
            f"{report.golden_before['loss']:.4f}",
            f"{report.golden_after['loss_high']:.4f}",
            "trl 1.",
            "d" * 40,
        ):
            assert expected in found.text

    def test_no_local_path_and_no_token(self, card):
        job, found = card
        for secret in (str(job.ctx.paths.storage), "/tmp", "hf_planted"):
            assert secret not in found.content

    def test_rows_of_a_private_dataset_stay_private(self, publishing, hub):
        for number, (private, allowed, shown) in enumerate(
            [(False, False, True), (True, False, False), (True, True, True)]
        ):
            job = publishing(repo=f"me/samples{number}", card_samples=allowed)
            set_samples(job, private)
            folder = job.ctx.paths.claim_dir("99")
            folder.mkdir(parents=True)
            write_card_alone(job, folder)
            assert ("w5 secret row" in (folder / "README.md").read_text()) is shown
            shutil.rmtree(job.ctx.paths.storage)

    def test_local_base_is_not_named(self, publishing):
        job = publishing(repo="me/local")
        found = Validated.load(job.ctx.paths.validated)
        local = found.model.model_copy(update={"place": Place.WORKER, "name": "/secret/place"})
        found.model_copy(update={"model": local}).save(job.ctx.paths.validated)
        folder = job.ctx.paths.claim_dir("99")
        folder.mkdir(parents=True)
        write_card_alone(job, folder)
        text = (folder / "README.md").read_text()
        assert "/secret" not in text
        assert "base_model:" not in text


@pytest.mark.parametrize(
    "kinds",
    [
        [("sft", "lora", "auto"), ("classification", "full", "auto")],
        pytest.param(
            [("sft", "lora", "merged"), ("classification", "lora", "auto")],
            marks=pytest.mark.chaos,
        ),
    ],
)
def test_code_of_the_cards_runs(publishing, hub, tmp_path, kinds):
    """In a process of its own, as a reader of the card would run it."""
    codes = []
    for task, method, form in kinds:
        repo = f"me/usage-{task[:3]}-{method}-{form}"
        job = publishing(task, method, repo=repo, format=form)
        publish.run(job.ctx)
        assert told(job)["saved_model"]
        text = Path(hub.api.hf_hub_download(repo, "README.md")).read_text()
        codes.append(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1))
        shutil.rmtree(job.ctx.paths.storage)
    script = tmp_path / "use.py"
    script.write_text("\n".join(f"exec({code!r}, {{}})\nprint('--')" for code in codes))
    mine = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_planted_writer", "HF_HOME": str(tmp_path / "h")}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | mine,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    _, label, _ = (part.strip() for part in done.stdout.split("--"))
    assert label in {"even", "odd", "other"}


def set_samples(job: TinyJob, private: bool) -> None:
    found = Validated.load(job.ctx.paths.validated)
    found.model_copy(
        update={"dataset": found.dataset.model_copy(update={"private": private})}
    ).save(job.ctx.paths.validated)
    prepared = Prepared.load(job.ctx.paths.prepared_report)
    sample = {"row": 0, "tokens": 3, "set": "train", "text": "w5 secret row"}
    prepared.model_copy(update={"samples": [sample]}).save(job.ctx.paths.prepared_report)


def set_unused(job: TinyJob, columns: list[tuple[str, float]]) -> None:
    prepared = Prepared.load(job.ctx.paths.prepared_report)
    unused = [
        {"name": name, "kind": "column", "rows": 1, "share": share, "weighs": False, "use": ""}
        for name, share in columns
    ]
    prepared.model_copy(update={"unused": unused}).save(job.ctx.paths.prepared_report)


def set_model(job: TinyJob, **facts) -> None:
    found = Validated.load(job.ctx.paths.validated)
    model = found.model.model_copy(update=facts)
    found.model_copy(update={"model": model}).save(job.ctx.paths.validated)


def write_card_alone(job: TinyJob, folder) -> None:
    from ftq_worker.publishing.card import write_card

    paths = job.ctx.paths
    write_card(
        job.ctx,
        folder,
        "me/x",
        "adapter",
        Validated.load(paths.validated),
        Prepared.load(paths.prepared_report),
        Trained.load(paths.train_report),
    )


@pytest.mark.parametrize(("rows", "few"), [(1, True), (29, True), (30, False)])
def test_few_golden_rows_are_said_to_be_no_verdict(publishing, rows, few):
    paths = publishing().ctx.paths
    prepared = Prepared.load(paths.prepared_report).model_copy(update={"rows": {"golden": rows}})
    figures = {"loss": 1.0, "rows": rows}
    trained = Trained.load(paths.train_report).model_copy(update={"golden_after": figures})
    text = _results(Validated.load(paths.validated), trained, prepared)
    assert ("too few rows to judge: the figures are no verdict" in text) is few
    assert f"On the golden set: {rows} row{'s' if rows > 1 else ''} from" in text


@pytest.mark.parametrize(("task", "method"), [("sft", "lora"), ("classification", "lora")])
def test_an_adapter_on_a_local_base_says_what_it_needs(publishing, task, method):
    job = publishing(task, method, format="adapter")
    found = Validated.load(job.ctx.paths.validated)
    local = found.model.model_copy(update={"place": Place.WORKER, "revision": None})
    prepared = Prepared.load(job.ctx.paths.prepared_report)
    code = usage_code("me/x", "adapter", found.model_copy(update={"model": local}), prepared)
    assert "IT WAS TRAINED ON" in code
    assert local.name not in code
    compile(code, "card", "exec")
    assert ("GenerationConfig" in code) == (task == "sft")
