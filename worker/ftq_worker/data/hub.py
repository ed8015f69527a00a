"""Tokenizers and datasets from the Hub: downloaded first, then read from the host's Hub cache.

Formats that ftq reads by itself are read row by row; others by `datasets`' own builders, over a
folder that looks like the repo.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import ClassLabel, DownloadMode, Features, load_dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ftq_shared.hub.layout import Split, layout, no_config
from ftq_shared.hub.records import RepoRecord
from ftq_shared.sources import Place, is_data_name
from ftq_worker.data.compressed import refuse_bomb
from ftq_worker.data.rows import Row, SplitSource, SplitSources
from ftq_worker.data.split_sources import open_files
from ftq_worker.job.chat_templates import template_beside
from ftq_worker.job.context import PhaseContext
from ftq_worker.job.foreign import foreign
from ftq_worker.job.hub import MODEL_TEXT_FILES, download, hub_of
from ftq_worker.job.reports import DatasetFacts, ModelFacts

_MAX_TOKENIZER_FILE = 64 << 20  # bytes; no tokenizer file is larger, other .json files may be


def fetch_tokenizer(ctx: PhaseContext, model: ModelFacts) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer, without its weights.

    Raises Refused (`no_tokenizer`) when there is none, and what HubClient.call raises.
    """
    return load_tokenizer_files(fetch_text_files(ctx, model), model)


def fetch_text_files(ctx: PhaseContext, model: ModelFacts) -> Path:
    """Return a folder with the model's configuration and tokenizer; raises as HubClient does."""
    folder = Path(model.name).expanduser()
    if model.place is Place.HUB:
        repo = hub_of(ctx).model_info(model.name, model.revision)
        names = [
            name
            for name, size in repo.files.items()
            if name.endswith(MODEL_TEXT_FILES) and size <= _MAX_TOKENIZER_FILE
        ]
        folder = download(ctx, repo, names, f"download tokenizer of {model.name}")
    return folder


def load_tokenizer_files(folder: Path, model: ModelFacts) -> PreTrainedTokenizerBase:
    """Return the tokenizer in a folder; raises Refused (`no_tokenizer`)."""
    with foreign(
        f"the tokenizer of {model.name} cannot be loaded",
        code="no_tokenizer",
        hint="choose a model with a tokenizer.json",
    ):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False
        )
        tokenizer.chat_template = tokenizer.chat_template or template_beside(folder)
    return tokenizer


def hub_sources(ctx: PhaseContext, facts: DatasetFacts, folder: Path) -> SplitSources:
    """Return the splits of a Hub dataset; a split's files are downloaded when it is opened.

    `folder` is scratch space. Raises what `no_config` returns for a config that is not there.
    """
    repo = hub_of(ctx).dataset_info(facts.name, facts.revision)
    known = layout(repo)
    config = facts.config or known.default
    if config is None or config not in known.configs:
        raise no_config(facts.name, facts.config, known.names, facts.revision)
    splits = known.configs[config]
    if not _reads_alone(splits, known.options.get(config, {})):
        return _built_sources(ctx, repo, config, splits, folder)
    labels = card_labels(repo, config)
    return {name: _opener(ctx, repo, name, split, labels) for name, split in splits.items()}


def _reads_alone(splits: Mapping[str, Split], options: Mapping[str, Any]) -> bool:
    """Return whether ftq's own readers know all files and the card sets no options of a reader."""
    files = [file for split in splits.values() for file in split.files]
    return not options and all(map(is_data_name, files))


def _opener(
    ctx: PhaseContext, repo: RepoRecord, name: str, split: Split, labels: dict[str, list[str]]
) -> Callable[[], SplitSource]:
    def open_() -> SplitSource:
        folder = download(ctx, repo, list(split.files), f"download {repo.id} {name}")
        source = open_files(name, [folder / file for file in split.files])
        return replace(source, label_names=labels | dict(source.label_names))

    return open_


def card_labels(repo: RepoRecord, config: str) -> dict[str, list[str]]:
    """Return the label names that the card gives for columns of numbers."""
    infos = repo.card.get("dataset_info") or []
    labels: dict[str, list[str]] = {}
    for info in infos if isinstance(infos, list) else [infos]:
        try:
            if info.get("config_name", config) == config:
                labels |= dict(map(_label_names, info.get("features") or []))
        except (ValueError, TypeError, AttributeError, KeyError):  # free text of the card's author
            continue
    return {column: names for column, names in labels.items() if names}


def _label_names(feature: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return a column and the names of its labels, none for another kind of column."""
    kind = feature.get("dtype")
    names = kind.get("class_label", {}).get("names") if isinstance(kind, Mapping) else None
    if isinstance(names, Mapping):
        names = [name for _, name in sorted(names.items(), key=lambda pair: int(pair[0]))]
    return str(feature["name"]), [str(name) for name in names or []]


def _built_sources(
    ctx: PhaseContext,
    repo: RepoRecord,
    config: str,
    splits: Mapping[str, Split],
    folder: Path,
) -> SplitSources:
    """Let `datasets` read a config, from a folder that links to the downloaded files.

    The files of other configs stand there empty: their names are all that `datasets` looks at.
    """
    wanted = {file for split in splits.values() for file in split.files}
    cards = [name for name in repo.files if name in ("README.md", "dataset_infos.json")]
    snapshot = download(ctx, repo, [*cards, *sorted(wanted)], f"download {repo.id}")
    for name in sorted(wanted):
        refuse_bomb(snapshot / name)
    mirror = folder / "repo"
    for name in repo.files:
        path = mirror / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in wanted or name in cards:
            path.symlink_to((snapshot / name).resolve())
        else:
            path.touch()

    def opener(split: str) -> Callable[[], SplitSource]:
        return lambda: _built_source(mirror, config, split, folder)

    return {split: opener(split) for split in splits}


def _built_source(mirror: Path, config: str, split: str, folder: Path) -> SplitSource:
    with foreign(
        f"split {split!r} cannot be read",
        code="bad_file",
        hint="look at the dataset's own page, or bring it as jsonl or parquet",
    ):
        data = load_dataset(
            str(mirror),
            None if config == "default" else config,
            split=split,
            cache_dir=str(folder / "cache"),
            download_mode=DownloadMode.REUSE_DATASET_IF_EXISTS,
        )

    def read() -> Iterator[Row]:
        for number, values in enumerate(data):
            yield Row(split, number, None, values)

    return SplitSource(split, list(data.column_names), read, len(data), _names_of(data.features))


def _names_of(features: Features) -> dict[str, list[str]]:
    """Return the label names of every ClassLabel column."""
    return {
        column: list(feature.names)
        for column, feature in features.items()
        if isinstance(feature, ClassLabel)
    }
