import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftq_shared import trainer_fields
from ftq_shared.errors import UsageError
from ftq_shared.spec import JobSpec, Task
from ftq_shared.spec_input import aliases, apply_sets, load_yaml, merge, parse_spec
from ftq_shared.spec_input.aliases import ALIASES
from ftq_shared.spec_input.dotted_fields import describe, fields, leaves
from ftq_shared.spec_input.parse import examine

LEAST = {"model": "org/base", "dataset": "org/rows:main"}


def problems_of(raw):
    """Return everything that is wrong with a spec, in the order in which it is told."""
    return examine(raw)[1]


def problems(**raw):
    """Return {field: text} of everything that is wrong with a spec of these values."""
    return {finding.field: finding.text for finding in problems_of(merge(LEAST, raw))}


def test_the_least_spec_gets_every_default():
    assert parse_spec(LEAST) == JobSpec(model="org/base", dataset="org/rows:main")


def test_a_stored_spec_reads_back_equal():
    spec = parse_spec(merge(LEAST, {"task": "sft", "train": {"epochs": 2, "lora": {"r": 8}}}))
    assert spec.task is Task.SFT
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_everything_that_is_wrong_is_told_at_once_one_line_each():
    raw = {
        "dataset": "org/rows",
        "save_steps": 500,
        "zzz": 1,
        "train": {"epoch": 3, "learning_rate": "fast", "batch_size": 0},
        "publish": {"repo": "a/b/c"},
    }
    with pytest.raises(UsageError) as caught:
        parse_spec(raw)
    lines = caught.value.message.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "save_steps",
        "zzz",
        "train.epoch",
        "model",
        "train.learning_rate",
        "train.batch_size",
        "publish.repo",
    ]
    assert caught.value.exit_code == 2
    assert "train.save_every" in lines[0]
    assert "allowed here: name, model" in lines[1]
    assert "train.epochs" in lines[2]
    assert "missing; what to fine-tune" in lines[3]
    assert "'fast' is not allowed; write auto or a number above 0 and below 1" in lines[4]


def test_missing_model_and_dataset_are_told_together():
    assert [finding.field for finding in problems_of({})] == ["model", "dataset"]


def test_no_wording_of_pydantic_gets_out():
    raw = {name.rpartition(".")[2]: {"bad": [1]} for name in leaves()}
    found = problems_of(merge({"train": {"epochs": [1], "method": [1]}}, raw))
    text = "\n".join(map(str, found))
    for word in ("Input should", "pydantic", "type=", "literal[", "valid integer"):
        assert word not in text


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("save_steps", "train.save_every"),
        ("num_train_epochs", "train.epochs"),
        ("lora_r", "train.lora.r"),
        ("lora_alpha", "train.lora.alpha"),
        ("per_device_train_batch_size", "train.micro_batch"),
        ("gradient_accumulation_steps", "train.batch_size"),
        ("max_seq_length", "train.max_length"),
        ("hub_model_id", "publish.repo"),
        ("base_model", "model"),
        ("model_name_or_path", "model"),
        ("num_epochs", "train.epochs"),
        ("micro_batch_size", "train.micro_batch"),
        ("sequence_len", "train.max_length"),
        ("sample_packing", "train.packing"),
        ("cutoff_len", "train.max_length"),
        ("val_set_size", "data.validation"),
        ("n_epochs", "train.epochs"),
        ("learning_rate_multiplier", "train.learning_rate"),
        ("fp16", "train.precision"),
        ("bf16", "train.precision"),
        ("load_in_4bit", "train.method"),
        ("warmup_ratio", "train.args.warmup_steps"),
        ("epochs", "train.epochs"),  # right name, wrong place
        ("gpus", "resources.gpus"),
        ("Learning-Rate", "train.learning_rate"),  # as a flag would spell it
        ("datset", "dataset"),  # a slip
    ],
)
def test_names_from_elsewhere_are_answered_with_ours(theirs, ours):
    assert f"{ours}" in problems(**{theirs: 1})[theirs]


def test_every_alias_leads_to_a_field_or_says_why_there_is_none():
    assert len(ALIASES) >= 40
    for name, (right, note) in ALIASES.items():
        assert right in fields() or right.startswith("train.args.") or (not right and note), name
        assert name not in JobSpec.model_fields or name == right, name


def test_no_name_from_elsewhere_is_answered_twice():
    for rows in (aliases._ANSWERS, trainer_fields._ANSWERS):
        names = [name for _, _, names in rows for name in names.split()]
        assert sorted(names) == sorted(set(names))


def test_names_inside_a_foreign_section_are_looked_up_one_by_one():
    found = problems(hyperparameters={"n_epochs": 3, "batch_size": 8})
    assert "train.epochs" in found["hyperparameters.n_epochs"]
    assert "train.batch_size" in found["hyperparameters.batch_size"]


@pytest.mark.parametrize("task", ["sft", "text", "preference"])
def test_class_weights_need_labels(task):
    raw = {"model": "a/b", "dataset": "c/d", "train": {"class_weights": "balanced"}}
    with pytest.raises(UsageError, match=r"train\.class_weights: .*no labels to weigh"):
        parse_spec(raw | {"task": task})
    for fits in ("auto", "classification"):
        assert parse_spec(raw | {"task": fits}).train.class_weights == "balanced"


@pytest.mark.parametrize(
    ("section", "values", "field", "words"),
    [
        ("resources", {"gpus": "h100:x"}, "resources.gpus", "h100:2"),
        ("resources", {"gpus": "h100:0"}, "resources.gpus", "1 to 64"),
        ("resources", {"gpus": "-1"}, "resources.gpus", "no GPU request"),
        ("resources", {"max_runtime": "10x"}, "resources.max_runtime", "10m"),
        ("resources", {"max_runtime": "inf"}, "resources.max_runtime", "finite"),
        ("train", {"batch_size": True}, "train.batch_size", "whole number from 1"),
        ("train", {"save_every": "-5m"}, "train.save_every", "no time"),
        ("train", {"batch_size": 10, "micro_batch": 4}, "train.micro_batch", "divide"),
        ("train", {"lora": {"target_modules": []}}, "train.lora.target_modules", "empty"),
        ("train", {"lora": 3}, "train.lora", "a section with the keys r, alpha"),
        ("train", {"args": {"output_dir": "x"}}, "train.args.output_dir", "ftq"),
        (
            "train",
            {"args": {"learning_rate": 1}},
            "train.args.learning_rate",
            "train.learning_rate",
        ),
        ("train", {"args": {"warmup_ratio": 0.1}}, "train.args.warmup_ratio", "warmup_steps"),
        ("train", {"args": {"shuffle_dataset": True}}, "train.args.shuffle_dataset", "train.seed"),
        ("train", {"args": {"packing_strategy": "bfd"}}, "train.args.packing_strategy", "packing"),
        ("train", {"args": {"epochs": 2}}, "train.args.epochs", "here it is train.epochs"),
        (
            "train",
            {"args": {"gradient_checkpointing": True}},
            "train.args.gradient_checkpointing",
            "here it is train.gradient_checkpointing (none, all, or every so many layers)",
        ),
        (
            "train",
            {"args": {"report_to": "wandb"}},
            "train.args.report_to",
            "here it is report_to (at the top of the spec)",
        ),
        ("data", {"select": "golden"}, "data.select", "not offered"),
        ("data", {"validation": "train"}, "data.validation", "trained on"),
        ("data", {"validation": "dev", "test": "dev"}, "data.test", "judge"),
        ("data", {"row_template": "Q: {question"}, "data.row_template", "{{"),
        ("data", {"row_template": "Q"}, "data.row_template", "no column"),
        ("data", {"columns": {"chosen": "a"}}, "data.columns.chosen", "name both"),
        (
            "data",
            {"columns": {"messages": "m", "text": "t"}},
            "data.columns.messages",
            "choose one shape",
        ),
        ("publish", {"repo": "me/--x"}, "publish.repo", "org/name"),
    ],
)
def test_values_that_do_not_fit(section, values, field, words):
    assert words in problems(**{section: values})[field]


def test_what_needs_a_gpu_is_refused_without_one():
    train = {"method": "qlora", "precision": "fp16"}
    found = problems(train=train, resources={"gpus": 0, "min_vram_gb": 8})
    assert set(found) == {"train.method", "train.precision", "resources.min_vram_gb"}


@pytest.mark.parametrize(
    ("gpus", "fine"), [("auto", False), (1, False), (2, True), ("h100:4", True)]
)
def test_sharding_needs_several_gpus(gpus, fine):
    found = problems(train={"parallel": {"strategy": "fsdp"}}, resources={"gpus": gpus})
    assert set(found) == (set() if fine else {"train.parallel.strategy"})


def test_four_bit_weights_are_not_sharded():
    train = {"method": "qlora", "parallel": {"strategy": "fsdp"}}
    assert set(problems(train=train, resources={"gpus": 2})) == {"train.parallel.strategy"}


def test_report_to_names_trackers():
    assert "always written" in problems(report_to=["tensorboard"])["report_to"]
    assert "report_to" not in problems(report_to=["wandb"])
    assert "a list of" in problems(report_to="wandb")["report_to"]


@pytest.mark.parametrize(
    ("model", "dataset", "field"),
    [
        ("a/b/c", "org/rows", "model"),
        ("org/base", "org/rows:a:b c", None),  # odd, but for the Hub to say
        ("org/base", "rows.tsv", None),
        ("org/base", "ROWS.CSV.GZ", None),
        ("org/base", "rows.xlsx", "dataset"),
        ("org/base", "rows.tar.gz", "dataset"),
        ("org/base", "rows.parquet.gz", "dataset"),
        ("./weights.gguf", "org/rows", "model"),
        ("./rows.jsonl", "org/rows", "model"),
        ("org/base", "worker:", "dataset"),
    ],
)
def test_sources_are_looked_at(model, dataset, field):
    found = problems_of({"model": model, "dataset": dataset})
    assert [finding.field for finding in found] == ([field] if field else [])


def test_a_token_in_a_spec_is_refused_and_not_repeated():
    token = "hf_" + "x" * 34
    found = problems_of(merge(LEAST, {"name": token, "hf_token": token}))
    text = "\n".join(map(str, found))
    assert {finding.field for finding in found} == {"name", "hf_token"}
    assert token not in text
    bad = problems_of(merge(LEAST, {"train": {"method": token}}))
    assert token not in str(bad[0])


def test_empty_sections_are_defaults():
    assert parse_spec(merge(LEAST, {"train": None, "data": {"golden": None}})) == parse_spec(LEAST)


def test_dotted_keys_are_understood():
    assert parse_spec(merge(LEAST, {"train.lora.r": 4})).train.lora.r == 4


def test_every_field_says_what_it_allows():
    for name in fields():
        assert "a value" not in describe(name), name


# --- YAML


def write(tmp_path, text):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return path


def test_yaml_numbers_are_numbers_and_words_are_words(tmp_path):
    text = "a: 1e-4\nb: 010\nc: no\nd: 2026-01-02\ne: 1:30\nf: 2e-4\ng: ~\nh: true\ni: 5\nj:\n"
    assert load_yaml(write(tmp_path, text)) == {
        "a": 1e-4,
        "b": 10,
        "c": "no",
        "d": "2026-01-02",
        "e": "1:30",
        "f": 2e-4,
        "g": None,
        "h": True,
        "i": 5,
        "j": None,
    }


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("model: a\ntrain:\n  epochs: [1\n", 4, "not valid YAML"),
        ("model: a\nmodel: b\n", 2, "second time"),
        ("a: !!python/object/apply:os.system ['true']\n", 1, "not valid YAML"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
    ],
)
def test_yaml_errors_name_file_and_line(tmp_path, text, line, words):
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_yaml(path)
    assert f"{path}:{line}:" in caught.value.message
    assert words in caught.value.message
    assert caught.value.where["line"] == line


def test_files_that_hold_no_spec(tmp_path):
    assert load_yaml(write(tmp_path, "# nothing yet\n")) == {}
    with pytest.raises(UsageError, match="holds list"):
        load_yaml(write(tmp_path, "- a\n"))
    with pytest.raises(UsageError, match="no such file"):
        load_yaml(tmp_path / "other.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_yaml(tmp_path / "latin.yaml")


# --- --set


def test_sets_are_laid_over_the_file():
    raw = {"train": {"epochs": 1, "seed": 7}}
    changed = apply_sets(
        raw, ["train.epochs=2", "train.args.optim=sgd", "train.learning_rate=1e-4"]
    )
    assert changed == {
        "train": {"epochs": 2, "seed": 7, "args": {"optim": "sgd"}, "learning_rate": 1e-4}
    }
    assert raw == {"train": {"epochs": 1, "seed": 7}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("name=123", {"name": "123"}),
        ("data.row_template={q}: {a}", {"data": {"row_template": "{q}: {a}"}}),
        ("publish.repo=null", {"publish": {"repo": None}}),
        ("train.lora.target_modules=[q, v]", {"train": {"lora": {"target_modules": ["q", "v"]}}}),
        ("resources.gpus=h100:2", {"resources": {"gpus": "h100:2"}}),
        ("train.packing=false", {"train": {"packing": False}}),
        ("train.save_every=10m", {"train": {"save_every": "10m"}}),
    ],
)
def test_values_of_sets(text, value):
    assert apply_sets({}, [text]) == value


def test_malformed_sets_are_told_together():
    with pytest.raises(UsageError) as caught:
        apply_sets({}, ["train.epochs", "=3", "report_to=[a"])
    assert len(caught.value.message.splitlines()) == 3


_NAMES = st.sampled_from([*leaves(), *ALIASES, "train", "data", "x.y", ""])
_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(["a"])
_INNER = st.dictionaries(st.sampled_from(["epochs", "split", "", "ü\x1b"]), _VALUES, max_size=2)


# deadline: a shared machine makes single examples slow for no reason of theirs
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(_NAMES, _VALUES | _INNER, max_size=5))
def test_any_input_ends_in_a_spec_or_a_usage_error(raw):
    if problems := problems_of(raw):
        assert all(finding.text for finding in problems)
        with pytest.raises(UsageError):
            parse_spec(raw)
    else:
        assert isinstance(parse_spec(raw), JobSpec)
