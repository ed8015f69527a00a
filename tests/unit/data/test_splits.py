"""Choosing sets: sizes, shares, groups, and that the same rows give the same choice."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ftq_shared.errors import Refused
from ftq_worker.data import splits
from ftq_worker.data.cleaning import key_of
from ftq_worker.data.limits import max_length
from ftq_worker.data.splits import Rows, choose, held_out


def rows_of(strata: list[int], groups: list[int] | None = None, start: int = 0) -> Rows:
    keys = np.array([key_of([str(i + start)]) for i in range(len(strata))], dtype=np.uint64)
    return Rows(
        np.arange(len(strata)),
        keys,
        keys if groups is None else np.array(groups, dtype=np.uint64),
        np.array(strata),
    )


@pytest.mark.parametrize(
    ("rows", "size"),
    [(5, 1), (500, 50), (1000, 100), (1500, 100), (4000, 200), (10_000, 500), (10**6, 500)],
)
def test_golden_from_train_is_5_percent_in_its_bounds(rows: int, size: int) -> None:
    assert splits.golden_size_from_train(rows, None).value == size


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (541, "at most 10 %: the set is small; 5 % would be 27, too few to judge by"),
        (1500, "the least; 5 % would be 75"),
        (4000, "5 %"),
        (20_000, "the most; 5 % would be 1,000"),
    ],
)
def test_the_bound_that_decided_is_said(rows: int, reason: str) -> None:
    assert splits.golden_size_from_train(rows, None).reason == reason


def test_golden_sizes_that_are_asked_for() -> None:
    assert splits.golden_size_from_train(100, 50).value == 50
    assert splits.golden_size_from_test(5000, None).value == 1000
    assert splits.golden_size_from_test(300, None).value == 300
    assert splits.golden_size_from_test(5000, 5000).value == 5000
    for size in (
        lambda: splits.golden_size_from_train(100, 51),
        lambda: splits.golden_size_from_test(50, 51),
    ):
        with pytest.raises(Refused) as caught:
            size()
        assert caught.value.code == "golden_size"
        assert "data.golden.size=50" in caught.value.hint


@pytest.mark.parametrize(
    ("rows", "size"), [(3, 1), (100, 10), (199, 19), (200, 20), (5000, 100), (10**6, 2000)]
)
def test_validation_sizes(rows: int, size: int) -> None:
    assert splits.validation_size(rows) == size


@example([0, 1, 1, 1, 1, 2], 3, 0)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=120),
    st.integers(1, 130),
    st.integers(0, 2**32 - 1),
)
def test_strata_keep_their_shares(strata: list[int], size: int, seed: int) -> None:
    mask = choose(rows_of(strata), size, seed)
    assert mask.sum() == min(size, len(strata))
    counts = np.bincount(strata, minlength=7)
    taken = np.bincount(np.array(strata)[mask], minlength=7)
    assert (taken <= counts).all()
    if size >= (counts > 0).sum():
        assert (taken[counts > 0] >= 1).all()
    assert (taken <= counts * size / len(strata) + 1).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 30))
def test_groups_stay_whole(groups: list[int], size: int) -> None:
    mask = choose(rows_of([0] * len(groups), groups), size, 1)
    inside = {g for g, chosen in zip(groups, mask, strict=True) if chosen}
    outside = {g for g, chosen in zip(groups, mask, strict=True) if not chosen}
    assert not inside & outside
    smallest = min(np.unique(groups, return_counts=True)[1])
    assert bool(inside) == (smallest <= max(size, len(groups) // 2))


@example([0] * 49 + [1, 2, 3], list(range(52)), 5, 2, 42)  # three labels have a single row
@given(
    st.lists(st.integers(0, 8), min_size=2, max_size=80),
    st.lists(st.integers(0, 40), min_size=80, max_size=80),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
)
def test_no_label_leaves_training(
    labels: list[int], groups: list[int], golden: int, validation: int, seed: int
) -> None:
    """Golden and validation together leave a row of each label, whatever the groups are."""
    rows = rows_of(labels, groups[: len(labels)])
    counts = np.bincount(labels)
    first = choose(rows, golden, seed, counts - 1)
    spare = counts - 1 - np.bincount(rows.stratum[first], minlength=len(counts))
    left = rows.take(~first)
    second = choose(left, validation, seed, spare)
    trained = left.take(~second)
    assert set(trained.stratum) == set(labels)
    assert not np.isin(trained.group, rows.group[first]).any()
    assert not np.isin(trained.group, left.group[second]).any()


@given(st.lists(st.integers(0, 6), min_size=1, max_size=120), st.integers(1, 130))
def test_rows_that_are_alone_fill_the_set_as_far_as_labels_allow(
    labels: list[int], size: int
) -> None:
    counts = np.bincount(labels)
    mask = choose(rows_of(labels), size, 0, counts - 1)
    assert mask.sum() == min(size, np.maximum(counts - 1, 0).sum())


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=60),
    st.lists(st.booleans(), min_size=60, max_size=60),
    st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_the_last_rows_of_a_label_stay(
    labels: list[int], leaks: list[bool], picked: list[bool]
) -> None:
    train = rows_of(labels)
    away, chosen = np.array(leaks[: len(labels)]), np.array(picked[: len(labels)])
    stay = splits.last_of_their_label(train, away | chosen, chosen)
    assert not (stay & chosen).any()
    left = set(train.stratum[~(away | chosen) | stay])
    assert left == set(train.stratum[~chosen])


def test_a_choice_depends_on_seed_and_texts_but_not_on_order() -> None:
    rows = rows_of([0] * 200)
    mask = choose(rows, 20, 42)
    order = np.random.default_rng(0).permutation(200)
    turned = Rows(rows.index, rows.key[order], rows.group[order], rows.stratum)
    again = choose(turned, 20, 42)
    assert set(rows.key[mask]) == set(turned.key[again])
    assert (choose(rows, 20, 43) != mask).any()
    # Frozen: these rows must come out with every version of numpy and of ftq.
    assert np.flatnonzero(mask)[:5].tolist() == [4, 18, 32, 39, 41]


def test_equal_texts_and_groups_are_held_out() -> None:
    train = rows_of([0] * 4, groups=[1, 2, 3, 4])
    other = Rows(np.arange(1), train.key[:1], np.array([3], dtype=np.uint64), np.zeros(1))
    assert held_out(train, other).tolist() == [True, False, True, False]


def test_max_length_takes_all_rows_or_nearly_all() -> None:
    lengths = np.arange(1, 1001)
    assert max_length(lengths, None, None).value == 1000
    # Up to 0.5 % of the rows are let go to stay within 2,048; where more are longer, 99.5 % stay.
    few = max_length(np.append(lengths, [9000] * 5), None, None)
    assert (few.value, "5 of 1,005 are longer, up to 9,000" in few.reason) == (1000, True)
    assert max_length(np.append(lengths, range(3001, 3021)), None, None).value == 3015
    assert max_length(lengths, None, 512).value == 512
    assert "at most 512" in max_length(lengths, None, 512).reason
    assert max_length(lengths, 300, 512).value == 300
    with pytest.raises(Refused, match="at most 512"):
        max_length(lengths, 513, 512)
