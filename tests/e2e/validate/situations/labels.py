"""Texts with labels, in columns and in the names of folders."""

import json

from tests.e2e.validate.situations.base import (
    JSONL,
    ROWS,
    Situation,
    labelled,
    lines,
)

LABELS = [
    Situation(
        "labels that mean none",
        labelled(lambda n: -1 if n % 4 == 0 else n % 2),
        encoder=True,
        told="'-1' is trained as a label of its own",
    ),
    Situation(
        "labels that differ in case",
        labelled(lambda n: ["Spam", "spam", "ham"][n % 3]),
        encoder=True,
        told="differ in upper and lower case alone",
    ),
    Situation(
        "an id of 0 and 1 beside a text",
        [{"text": f"alpha {n}", "row_id": n % 2} for n in range(ROWS)],
        told="not used: row_id",
    ),
    Situation(
        "pairs of sentences",
        {"premise": "alpha @", "hypothesis": "beta @", "label": "x"},
        code="one_label",
        encoder=True,
    ),
    Situation(
        "pairs of sentences, two labels",
        [{"premise": f"alpha {n}", "hypothesis": f"beta {n}", "label": n % 2} for n in range(ROWS)],
        encoder=True,
        used=("alpha 3", "beta 3"),
    ),
    Situation(
        "a question and a sentence",
        [
            {"question": f"alpha {n}", "sentence": f"beta {n}", "label": n % 2, "idx": n}
            for n in range(ROWS)
        ],
        encoder=True,
        used=("beta 3",),
    ),
    Situation(
        "several labels",
        labelled(lambda n: ["x", "y"]),
        encoder=True,
        code="multi_label",
        words="several labels",
    ),
    Situation(
        "a column for each label",
        [{"text": f"a {n}", "toxic": n % 2, "rude": 0} for n in range(ROWS)],
        encoder=True,
        code="multi_label",
        words="toxic, rude",
    ),
    Situation("fractions", labelled(lambda n: n / 8), encoder=True, code="regression"),
    Situation(
        "fractions as text",
        files={"rows.csv": lines("text,label", *(f"t {n},{n}.25" for n in range(ROWS)))},
        encoder=True,
        code="regression",
    ),
    Situation(
        "stars",
        [{"review": f"alpha {n}", "rating": 1 + n % 5} for n in range(ROWS)],
        encoder=True,
        used=("alpha 3",),
    ),
    Situation("one label", labelled(lambda n: "x"), encoder=True, code="one_label"),
    Situation(
        "half without a label",
        labelled(lambda n: "xy"[n % 2] if n % 4 < 2 else None),
        encoder=True,
        code="dropped_rows",
        words="missing",
    ),
    Situation(
        "rare labels",
        labelled(lambda n: "common" if n > 3 else f"rare{n}"),
        encoder=True,
        told="have no golden row",
        used=("alpha 0", "alpha 1", "alpha 2"),
    ),
    Situation("labels for a model that writes", labelled(lambda n: "xy"[n % 2]), used=("alpha 3",)),
    Situation(
        "text for a model that classifies",
        {"question": "q @", "answer": "a @"},
        encoder=True,
        code="task_mismatch",
    ),
]

CLASSES = {
    f"{name}/{n}.txt": f"this is a {name} review of thing {n}\n"
    for name in ("neg", "pos")
    for n in range(ROWS)
}
LABELS += [
    Situation(
        "folders that are labels",
        files=CLASSES,
        encoder=True,
        code="folder_labels",
        words="neg, pos",
    ),
    Situation(
        "folders that are labels, beside a test split",
        files={
            f"{part}/{k}": f"{part} {v}" for k, v in CLASSES.items() for part in ("train", "test")
        },
        spec={"task": "classification"},
        encoder=True,
        code="folder_labels",
    ),
    Situation(
        "folders that are none", files=CLASSES, spec={"task": "text"}, used=("neg review", "pos")
    ),
    Situation(
        "partitions that are labels",
        files={f"label={k}/part-0.jsonl": lines(json.dumps({"text": f"a {k}"})) for k in "xy"},
        code="folder_labels",
        words="--set task=text",
    ),
    Situation(
        "folders by number",
        files={f"part{n}/x.jsonl": lines(json.dumps({"text": f"a {n}"})) * 9 for n in range(9)},
        used=("a 3",),
    ),
    Situation(
        "labels beside a speaker",
        labelled(lambda n: n % 2, speaker="user"),
        encoder=True,
        used=("alpha 3",),
        told="not used: speaker",
    ),
    Situation(
        "partitions that are none",
        files={f"lang={k}/part-0.jsonl": JSONL.replace("q ", f"{k} ") for k in "xy"},
        told="not used: lang",
        trained=("a 3",),
    ),
    Situation(
        "as many labels as rows",
        labelled(lambda n: f"l{n}"),
        spec={"task": "classification"},
        encoder=True,
        told="there is no golden set",
        used=("alpha 3",),
    ),
]

LABELS += [
    Situation(
        "labels in lists of one",
        [{"text": f"alpha {n}", "labels": [n % 3]} for n in range(ROWS)],
        encoder=True,
        used=("alpha 3",),
    ),
    Situation(
        "names of labels beside their numbers",
        [{"text": f"alpha {n}", "label": n % 2, "label_text": "np"[n % 2]} for n in range(ROWS)],
        encoder=True,
        told="--set data.columns.label=label_text",
    ),
]
