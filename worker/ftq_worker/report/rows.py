"""One row as the model sees it: its text in pieces, token by token trained or not."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from ftq_shared.data_report import Piece, ReportRow
from ftq_worker.data.cleaning import RowProblem
from ftq_worker.data.examples import Example
from ftq_worker.data.records import IGNORED, Encoder, Record
from ftq_worker.data.render import Span
from ftq_worker.data.secret_texts import hide
from ftq_worker.data.tables import SplitTable

_PIECE = 8_000  # characters of one piece that are kept; of a longer one both ends


def report_row(
    table: SplitTable, i: int, encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> ReportRow:
    """Return the i-th usable row of a tokenized table."""
    source, example = table.source_row(i), table.example(i)
    (record,) = encoder.records([example], [-1])
    assert not isinstance(record, RowProblem)  # it was tokenized before
    whole = pieces_of(example, record, encoder, tokenizer)
    kept = [Piece(text=hide(_ends(piece["text"])), trained=piece["trained"]) for piece in whole]
    row = ReportRow(
        file=source.file,
        row=source.number,
        tokens=record["length"],
        trained=sum(label != IGNORED for label in record["labels"]) if "labels" in record else None,
        pieces=kept,
        hidden=sum(max(0, len(piece["text"]) - _PIECE) for piece in whole),
    )
    if source.line is not None:
        row["line"] = source.line
    if example.label:
        row["label"] = example.label
    return row


def pieces_of(
    example: Example, record: Record, encoder: Encoder, tokenizer: PreTrainedTokenizerBase
) -> list[Piece]:
    """Return the text of a row; what is trained is what the record's labels say, not its text."""
    if "labels" in record:
        assert encoder.render  # rows of this kind are rendered first
        text = encoder.render(example).text
        return list(_by_token(text, record["input_ids"], record["labels"], tokenizer))
    if "input_ids" in record:
        text = tokenizer.decode(record["input_ids"], clean_up_tokenization_spaces=False)
        return [Piece(text=text, trained=False)]
    return [
        Piece(text=record["prompt"], trained=False),
        Piece(text=record["chosen"], trained=True),
        Piece(text=f"\n--- rejected ---\n{record['rejected']}", trained=False),
    ]


def _by_token(
    text: str, ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> Iterator[Piece]:
    offsets: list[Span] = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    leading = len(ids) - len(offsets)  # tokens that the tokenizer writes by itself, as bos
    if leading:
        yield Piece(text=tokenizer.decode(ids[:leading]), trained=False)
    ends = [end for _, end in offsets]
    trained = [label != IGNORED for label in labels[leading:]]
    at = 0
    for is_trained, group in groupby(zip(trained, ends, strict=True), key=lambda pair: pair[0]):
        end = max(at, max(end for _, end in group))
        yield Piece(text=text[at:end], trained=is_trained)
        at = end
    if text[at:]:
        yield Piece(text=text[at:], trained=False)  # what no token stands for


def _ends(text: str) -> str:
    """Return a text, a long one without its middle."""
    return text if len(text) <= _PIECE else f"{text[: _PIECE // 2]} … {text[-_PIECE // 2 :]}"
