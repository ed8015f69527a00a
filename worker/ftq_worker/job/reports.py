"""What each phase leaves for the next, as files in the job's folder.

validate -> validated.json (Validated)
prepare  -> prepared/{train,validation,golden} (`prepared.PreparedSets`) + prepared.json (Prepared)
train    -> base.json (BaseFiles), model/ + train.json (Trained) + golden.json (GoldenScores);
            from its second part release/ + verified.json (Verified)
publish  -> published.json (Published)

Every file is replaced in one step, so a crash leaves the old one or the new one. The error for a
file that is missing or damaged all the same names the phase that makes it again.
"""

from pathlib import Path
from typing import Any, Literal, NotRequired, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import TypedDict  # pydantic takes the standard one from Python 3.12 on

from ftq_shared.dataset_files import UnreadFile
from ftq_shared.errors import FtqError
from ftq_shared.paths import JobPaths, read_json, write_json
from ftq_shared.sources import Place
from ftq_shared.spec import Columns, Task
from ftq_shared.states import Phase

MADE_BY = {
    "validated.json": Phase.VALIDATE,
    "base.json": Phase.TRAIN,
    "prepared.json": Phase.PREPARE,
    "prepared": Phase.PREPARE,
    "train.json": Phase.TRAIN,
    "golden.json": Phase.TRAIN,
    "verified.json": Phase.TRAIN,
    "published.json": Phase.PUBLISH,
    "resolved.json": Phase.VALIDATE,  # later phases add to it
}


def lost(path: Path, code: str, what: str) -> FtqError:
    """Return the error for something in a job's folder that cannot be used any more."""
    phase = MADE_BY[path.name]
    return FtqError(
        f"{path.name} {what}",
        code=code,
        hint=f"`ftq retry {path.parent.name} --from {phase}` makes it again; look at the storage "
        "if this happens again",
        file=path.name,
    )


class ResolvedValue(TypedDict):
    """What a field that was `auto` has become, in resolved.json."""

    value: Any  # whatever the field holds
    reason: str
    token: NotRequired[int]  # of the attempt, where a training that starts afresh forgets it


def read_resolved(paths: JobPaths) -> dict[str, ResolvedValue]:
    """Return every `auto` that was resolved so far, by field; empty before the first.

    Raises FtqError (code `damaged_handover`).
    """
    try:
        known = read_json(paths.resolved)
    except ValueError as error:
        raise lost(paths.resolved, "damaged_handover", f"is damaged: {error}") from error
    if known is None:
        return {}
    if not isinstance(known, dict):
        raise lost(paths.resolved, "damaged_handover", "is damaged: it holds no table")
    return known


class Report(BaseModel):
    """Base: written atomically, read back with its schema checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    def save(self, path: Path) -> None:
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a report; raises FtqError (code `missing_handover` or `damaged_handover`)."""
        try:
            data = read_json(path)
            if data is None:
                raise lost(path, "missing_handover", "is missing: an earlier phase left nothing")
            return cls.model_validate(data)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in found["loc"]) or "the whole"
            what = f"is damaged: {where}: {found['msg']}"
            raise lost(path, "damaged_handover", what) from error
        except ValueError as error:  # no JSON, or no text at all
            raise lost(path, "damaged_handover", f"is damaged: {error}") from error


class ModelFacts(Report):
    """The base model, pinned."""

    place: Place
    name: str  # Hub id, or the path the phases load from
    revision: str | None = None  # commit, Hub only
    architecture: str  # for example LlamaForCausalLM
    model_type: str  # for example llama
    kind: Literal["decoder", "encoder"]
    parameters: int | None = None
    weight_bytes: int | None = None
    hidden_size: int
    layers: int
    vocab_size: int
    max_positions: int | None = None  # longest input in tokens
    has_chat_template: bool = False
    license: str | None = None  # in words
    licenses: list[str] = []  # the ids for the card of what is trained from it
    license_name: str | None = None
    license_link: str | None = None
    gated: bool = False
    private: bool = False


class BaseFiles(Report):
    """The base model's files on the Hub, as listed at the pinned commit."""

    kind: Literal["model"] = "model"
    id: str
    sha: str
    files: dict[str, int]  # bytes by path


class DatasetFacts(Report):
    """The dataset, pinned."""

    place: Place
    name: str  # Hub id, or where its files lie
    config: str | None = None
    revision: str | None = None  # commit, Hub only
    files: list[str] = []  # absolute paths, for files
    splits: dict[str, int | None]  # rows per split, None while unknown
    columns: list[str]
    unread: list[UnreadFile] = []  # files that are not used
    license: str | None = None
    private: bool = False


class Validated(Report):
    """What validate found: both sources pinned, and how they fit together."""

    model: ModelFacts
    dataset: DatasetFacts
    task: Task  # never auto
    shape: str  # for example question/answer, messages, text/label
    columns: Columns  # every column that the layout needs, by its part
    split: str
    validation_split: str | None = None  # None: rows are held out
    test_split: str | None = None  # None: the golden set comes from the training rows

    @property
    def head_is_new(self) -> bool:
        """Whether the base model lacks the classification head that is trained."""
        classes = self.task is Task.CLASSIFICATION
        return classes and "SequenceClassification" not in self.model.architecture


class RowExample(TypedDict):
    """A row that a cleaning rule met, and where it stands."""

    file: str  # its name, without folders
    row: int  # position in its split, from 0
    line: NotRequired[int]  # from 1; absent where the format has no lines
    field: NotRequired[str]  # absent where the whole row is meant
    what: str


class RuleCount(TypedDict):
    """What one cleaning rule did; the data of a `cleaning` event."""

    rule: str
    rows_in: int
    rows_out: int
    reason: NotRequired[str]
    examples: NotRequired[list[RowExample]]


class Unused(TypedDict):
    """A column, or a key of messages, that nothing was made of."""

    name: str
    kind: str  # column, verdict column, key of messages, or '' for a part of conversations
    rows: int  # in which it holds something
    share: float  # of the rows that were read, 0 to 1
    weighs: bool  # too much to be left out unasked
    use: str  # the setting that would use it; '' for ids, names, figures, and what is an answer


class Shown(TypedDict):
    """A row as the model sees it."""

    text: str
    trained: NotRequired[str]  # the part of the text that is trained
    label: NotRequired[str]


class Sample(Shown):
    """One row of a set; the data of a `sample` event."""

    row: int  # position in its split, from 0
    tokens: int
    set: str


class Prepared(Report):
    """What prepare made and decided."""

    rows: dict[str, int]  # per set: train, validation, golden
    labels: list[str] = []  # classification: names in id order
    format: Literal["chat", "plain"] = "plain"
    max_length: int  # tokens of the longest row that was kept
    tokens: dict[str, int]  # of the training rows: total, trained, p50, p90, p99, max
    cleaning: list[RuleCount]
    unused: list[Unused] = []
    golden_sha256: str
    golden_source: str
    samples: list[Sample] = []  # a few, for people and the card


class LeftOutRow(TypedDict):
    """A row that a person left out of training by name."""

    file: str  # its name, without folders
    row: int  # position in its split, from 0
    from_step: int  # the first step that went without it


class Trained(Report):
    """Figures of a finished training."""

    method: Literal["full", "lora", "qlora"]
    steps: int
    epochs: float
    seconds: float
    best_step: int | None = None
    train_loss: float | None = None  # of the last step
    golden_before: dict[str, float]
    golden_after: dict[str, float] = {}  # of the saved model: verification adds it
    validation: list[dict[str, float]] = []  # one entry per evaluation
    memory: dict[str, int] = {}  # on a GPU: what its first steps held, and what was counted
    left_out: list[LeftOutRow] = []  # rows that a person left out by name
    settings: dict[str, Any]  # every value that was used
    versions: dict[str, str]  # libraries


# Of one row: the summed loss, what it is summed over, and how much of that was right.
RowFigures = tuple[float, int, int]


class GoldenScores(Report):
    """The golden rows in training, for verification to compare with."""

    token_number: int  # of the claim that trained
    data: str  # what it trained on, see `checkpoints.data_id`
    rows: list[int]  # positions in the golden set of the rows that are scored
    before: list[RowFigures]  # by the base model, in the order of scoring
    probe: list[RowFigures]  # by the trained model in memory: the first few of `rows`


class Verified(Report):
    """What was verified and is to be published."""

    format: Literal["adapter", "merged", "full"]
    files: dict[str, str]  # SHA-256 by name in `release/`


class Published(Report):
    """Where the model is now."""

    repo: str
    revision: str
    url: str
