import pytest

from ftq_shared.hub import RepoRecord, layout
from ftq_shared.hub.nearest import find, queries, rank
from ftq_shared.hub.records import Identity, identity


def dataset(files, card=None):
    return RepoRecord(
        "dataset", "org/d", "0" * 40, False, False, None, (), dict.fromkeys(files, 1), card or {}
    )


def splits(files, card=None, config="default"):
    parts = layout(dataset(files, card)).configs[config]
    return {name: list(split.files) for name, split in parts.items()}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.jsonl", "README.md", ".gitattributes"], {"train": ["a.jsonl"]}),
        (["b.csv", "a.csv"], {"train": ["a.csv", "b.csv"]}),
        (
            ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
             "data/dev-00000-of-00001-abc.parquet"],
            {
                "train": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
                "dev": ["data/dev-00000-of-00001-abc.parquet"],
            },
        ),
        (
            ["test.csv", "my_train_file.csv", "valid.csv"],
            {"train": ["my_train_file.csv"], "validation": ["valid.csv"], "test": ["test.csv"]},
        ),
        (["train/x.csv", "test/x.csv"], {"train": ["train/x.csv"], "test": ["test/x.csv"]}),
        (["trainer.csv", "contest.csv"], {"train": ["contest.csv", "trainer.csv"]}),
    ],
)  # fmt: skip
def test_splits_by_name(files, expected):
    assert splits(files) == expected


def test_the_order_of_splits_is_the_usual_one():
    assert list(splits(["test.csv", "dev.csv", "train.csv"])) == ["train", "validation", "test"]


@pytest.mark.parametrize(
    ("data_files", "expected"),
    [
        ("a/*.csv", {"train": ["a/1.csv", "a/2.csv"]}),
        (["a/1.csv", "b/*"], {"train": ["a/1.csv", "b/1.csv"]}),
        ([{"split": "train", "path": "a/**"}, {"split": "test", "path": ["b/1.csv"]}],
         {"train": ["a/1.csv", "a/2.csv"], "test": ["b/1.csv"]}),
        ({"dev": "**/1.csv"}, {"dev": ["a/1.csv", "b/1.csv"]}),
        ("a/[2].csv", {"train": ["a/2.csv"]}),
    ],
)  # fmt: skip
def test_the_cards_data_files_in_every_spelling(data_files, expected):
    card = {"configs": [{"config_name": "main", "data_files": data_files}]}
    assert splits(["a/1.csv", "a/2.csv", "b/1.csv"], card, "main") == expected


def test_the_default_config():
    def default(*entries):
        return layout(dataset(["a/1.csv"], {"configs": list(entries)})).default

    one, two = {"config_name": "x", "data_dir": "a"}, {"config_name": "y", "data_dir": "a"}
    assert default(one) == "x"
    assert default(one, two) is None
    assert default(one, two | {"default": True}) == "y"
    assert default(one, two | {"config_name": "default"}) == "default"
    assert layout(dataset([])).default is None


def test_rows_and_columns_of_the_card():
    info = {
        "config_name": "x",
        "features": [{"name": "a", "dtype": "string"}],
        "splits": [{"name": "train", "num_examples": 7}],
    }
    card = {"configs": [{"config_name": "x", "data_files": "a.csv"}], "dataset_info": info}
    split = layout(dataset(["a.csv"], card)).configs["x"]["train"]
    assert (split.rows, split.columns) == (7, ("a",))


@pytest.mark.parametrize(
    "card",
    [
        {"configs": "text"},
        {"configs": [{"no_name": 1}]},
        {"dataset_info": [3, {"splits": "x", "features": {"a": 1}}]},
        {"configs": [{"config_name": "c", "data_files": 3}]},
    ],
)
def test_a_card_that_is_odd_breaks_nothing(card):
    layout(dataset(["a.csv"], card))


def test_a_count_that_is_no_number_counts_as_unknown():
    card = {"dataset_info": {"splits": [{"name": "train", "num_examples": "7"}]}}
    assert layout(dataset(["a.csv"], card)).configs["default"]["train"].rows is None


def test_names_that_come_near():
    ids = ["openai/gsm8k", "org/gsm-hard", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base", "x/zzz"]

    def search(words, author):
        found = [i for i in ids if words.lower() in i.lower()]
        return [i for i in found if author is None or i.startswith(f"{author}/")]

    assert find("openai/gms8k", search)[0] == "openai/gsm8k"
    assert find("gsm8k", search)[0] == "openai/gsm8k"
    assert find("qwen/Qwen3-06B", search)[:2] == ["Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B-Base"]
    assert find("nothing-like-it", search) == []
    assert len(queries("a-b/c-dd-ee-ff-gg-hh-ii-jj")) <= 6
    assert len(rank("a", [f"o/a{n}" for n in range(9)])) <= 5


def test_who_a_token_is():
    answer = {
        "name": "me",
        "orgs": [{"name": "team", "roleInOrg": "admin"}],
        "auth": {
            "accessToken": {
                "role": "fineGrained",
                "fineGrained": {
                    "scoped": [
                        {"entity": {"name": "me"}, "permissions": ["repo.content.read"]},
                        {"entity": {"name": "team"}, "permissions": ["repo.write"]},
                    ]
                },
            }
        },
    }
    who = identity(answer)
    assert (who.name, dict(who.orgs), who.role) == ("me", {"team": "admin"}, "fineGrained")
    assert who.writable == {"team"}
    assert "fine-grained" in who.forbidden("me/x")
    assert not who.forbidden("team/x")
    assert identity({"name": "me"}).role == "write"


def test_roles_in_an_organisation():
    who = Identity("me", {"team": "read"})
    assert "role read in team" in who.forbidden("team/x")
    assert not who.forbidden("me/x")


def test_a_beginning_or_a_part_of_a_name_is_near_it() -> None:
    ids = ["me/SmolLM2-135M-Instruct", "Qwen/Qwen3-0.6B", "openai/gsm8k", "a/x"]
    for typed in ("SmolLM", "smollm2", "me/SmolLM", "135M-instruct", "smollm2_135m"):
        assert rank(typed, ids) == ["me/SmolLM2-135M-Instruct"], typed
    assert rank("gsm", ids) == ["openai/gsm8k"]
    assert rank("qwen", ["o/my-qwen-copy", "Qwen/Qwen3-0.6B"])[0] == "Qwen/Qwen3-0.6B"
    assert rank("a", ids) == []
    assert rank("Qwen/Qwen3-0.6B-Instruct", ids)[0] == "Qwen/Qwen3-0.6B"


def unread(files, card=None):
    return [file.name for file in layout(dataset(files, card)).unread]


def test_files_that_no_split_uses_are_named():
    files = ["train.jsonl", "extra.jsonl", "notes.docx", "README.md", "LICENSE", ".gitattributes"]
    assert unread(files) == ["extra.jsonl", "notes.docx"]
    assert unread(["a.jsonl", "readme.txt", "a.zip"]) == ["a.zip"]
    card = {"configs": [{"config_name": "x", "data_files": "x/*"}, {"config_name": "y"}]}
    assert unread(["x/a.csv", "x/a.docx", "b.csv"], card) == ["x/a.docx"]


def test_what_stands_beside_rows_is_no_row():
    assert splits(["a.jsonl", "README.txt", "LICENSE.txt", "a.docx"]) == {"train": ["a.jsonl"]}
    card = {"configs": [{"config_name": "x", "data_files": "*"}]}
    assert splits(["b.jsonl", "a.docx"], card, "x") == {"train": ["b.jsonl"]}
    assert splits(["data.zip"]) == {"train": ["data.zip"]}


def test_a_saved_dict_has_the_splits_of_its_folders():
    files = ["dataset_dict.json"]
    for split in ("fold", "train"):
        files += [f"{split}/{name}" for name in ("data-0.arrow", "state.json", "cache-1.arrow")]
    found = {"train": ["train/data-0.arrow"], "fold": ["fold/data-0.arrow"]}
    assert splits(files) == found
    assert unread(files) == ["fold/cache-1.arrow", "train/cache-1.arrow"]
    single = ["data-0.arrow", "state.json", "dataset_info.json"]
    assert splits(single) == {"train": ["data-0.arrow"]}
