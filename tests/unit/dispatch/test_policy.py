"""The placement policy: a pure function, so every case is a few records."""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftq_shared.hosts import Gpu, HostRecord, SickGpu
from ftq_shared.job_record import JobRecord
from ftq_shared.lease import Lease
from ftq_shared.states import JobState, Phase
from ftq_worker.dispatch.policy import KEPT_AFTER_S, free_room, has_gpus, plan

H100 = "NVIDIA H100 80GB HBM3"
T4 = "Tesla T4"


def host(name: str, gpus: int = 0, card: str = H100, **changes: object) -> HostRecord:
    cards = tuple(Gpu(f"GPU-{name}-{n}", card, 80 if card is H100 else 16) for n in range(gpus))
    record = HostRecord(name, f"i-{name}", 2, cards, "s1", False, 0, 0.0, "0", "http://hub")
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def job(name: str, phase: Phase = Phase.TRAIN, gpus: str = "1", **changes: object) -> JobRecord:
    raw = {
        "id": "ft-00000000",
        "v": "1",
        "state": "queued",
        "phase": phase,
        "attempt": "1",
        "version": "1",
    }
    record = JobRecord.from_hash(raw | {"gpu_request": gpus, "endpoint": "http://hub"})
    return dataclasses.replace(record, id=name, **changes)  # type: ignore[arg-type]


def running(name: str, on: HostRecord, gpus: int = 0) -> Lease:
    taken = tuple(gpu.uuid for gpu in on.gpus[:gpus])
    slot = "gpu" if gpus else "cpu"
    return Lease(name, 1, JobState.RUNNING, "1:a", 0, on.name, on.instance, slot, taken, "s1")


def places(
    queue: list[JobRecord], hosts: list[HostRecord], leases: Sequence[Lease] = (), now_s: float = 0
) -> dict[str, object]:
    rooms = free_room(hosts, leases)
    placed, waiting = plan(queue, rooms, fleet_has_gpus=has_gpus(hosts), now_ms=now_s * 1000)
    return {p.job: (p.host, len(p.gpus)) for p in placed} | {w.job: w.reason for w in waiting}


def test_first_come_first_served_until_the_slots_are_full() -> None:
    queue = [job(str(n), Phase.VALIDATE, "auto") for n in range(3)]
    assert places(queue, [host("a")]) == {
        "0": ("a", 0),
        "1": ("a", 0),
        "2": "all CPU slots are taken",
    }


def test_only_train_takes_gpus() -> None:
    both = [job("v", Phase.PREPARE, "2"), job("t", Phase.TRAIN, "2")]
    assert places(both, [host("a", gpus=2)]) == {"v": ("a", 0), "t": ("a", 2)}


def test_the_tightest_host_that_fits() -> None:
    hosts = [host("big", gpus=8), host("small", gpus=2)]
    assert places([job("a", gpus="2"), job("b", gpus="8")], hosts) == {
        "a": ("small", 2),
        "b": ("big", 8),
    }


def test_a_large_request_does_not_hold_up_a_small_one() -> None:
    one = host("a", gpus=2)
    found = places([job("large", gpus="2"), job("small", gpus="1")], [one], [running("x", one, 1)])
    assert found == {"large": "waits for 2 GPUs on one host", "small": ("a", 1)}


def test_busy_gpus_and_slots_come_from_the_leases() -> None:
    one = host("a", gpus=1)
    leased = [running("x", one, 1), running("y", one)]
    found = places([job("g"), job("c", Phase.VALIDATE), job("d", Phase.VALIDATE)], [one], leased)
    assert found == {
        "g": "waits for 1 GPU on one host",
        "c": ("a", 0),
        "d": "all CPU slots are taken",
    }


def test_kind_and_memory_of_the_card() -> None:
    hosts = [host("t", gpus=1, card=T4), host("h", gpus=1)]
    assert places([job("a", gpus="h100:1")], hosts) == {"a": ("h", 1)}
    roomy = job("b")
    roomy = dataclasses.replace(roomy, summary={**roomy.summary, "min_vram_gb": "40"})
    assert places([roomy], hosts) == {"b": ("h", 1)}
    assert places([job("c", gpus="a100:1")], hosts) == {"c": "no host online has 1 a100 GPU"}


def test_auto_takes_the_cpu_only_where_the_fleet_has_no_gpu() -> None:
    assert places([job("a", gpus="auto")], [host("c")]) == {"a": ("c", 0)}
    assert places([job("a", gpus="auto")], [host("c"), host("g", gpus=1)]) == {"a": ("g", 1)}
    assert places([job("a", gpus="0")], [host("g", gpus=1)]) == {"a": ("g", 0)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"age_s": 60.0}, "no host online has 1 GPU"),
        ({"draining": True}, "no host online has 1 GPU"),
        (
            {"gpus": 0, "sick": (SickGpu("GPU-g-0", H100, 80, "no driver"),)},
            f"the cards of g cannot be used: {H100} no driver",
        ),
    ],
)
def test_auto_waits_for_cards_that_are_silent_or_sick(changes: dict[str, Any], reason: str) -> None:
    hosts = [host("c"), host("g", **({"gpus": 1} | changes))]
    assert places([job("a", gpus="auto")], hosts) == {"a": reason}
    assert places([job("a", gpus="1")], hosts) == {"a": reason}


def test_memory_that_was_asked_for_is_waited_for() -> None:
    asked = job("a", gpus="auto")
    asked = dataclasses.replace(asked, summary={**asked.summary, "min_vram_gb": "80"})
    assert places([asked], [host("c")]) == {"a": "no host online has 1 GPU of 80 GB"}
    assert places([asked], [host("g", gpus=1)]) == {"a": ("g", 1)}


def test_a_card_that_two_workers_offer_has_one_owner() -> None:
    one = host("a", gpus=1)
    twin = dataclasses.replace(host("b"), gpus=one.gpus)
    found = places([job("x")], [one, twin], [running("y", one, 1)])
    assert found == {"x": "waits for 1 GPU on one host"}


def test_a_job_stays_where_its_files_are() -> None:
    hosts = [host("a"), host("b", storage_id="s2")]
    assert places([job("x", Phase.PREPARE, storage_id="s2")], hosts) == {"x": ("b", 0)}
    found = places([job("x", Phase.PREPARE, storage_id="s3")], hosts)
    assert found == {"x": "the hosts that hold this job's files are not online"}


def test_a_job_begins_only_where_it_can_also_train() -> None:
    hosts = [host("cpu", slots=8), host("gpu", gpus=2, storage_id="s2")]
    assert places([job("x", Phase.VALIDATE, "2")], hosts) == {"x": ("gpu", 0)}
    assert places([job("x", Phase.VALIDATE, "4")], hosts) == {"x": "no host online has 4 GPUs"}
    shared = [host("cpu", slots=8), host("gpu", gpus=2)]
    assert places([job("x", Phase.VALIDATE, "2")], shared) == {"x": ("cpu", 0)}


@pytest.mark.parametrize("changes", [{"draining": True}, {"age_s": 60.0}])
def test_a_host_that_drains_or_is_silent_gets_nothing(changes: dict[str, object]) -> None:
    assert places([job("x", Phase.VALIDATE)], [host("a", **changes)]) == {
        "x": "no worker is online"
    }


def test_another_hub_is_another_fleet() -> None:
    found = places([job("x", endpoint="http://other")], [host("a")])
    assert found == {"x": "no worker uses the Hub at http://other"}


def test_a_newer_record_is_left_alone() -> None:
    assert places([job("x", record_version=99)], [host("a")]) == {}


def test_what_older_workers_do_not_know_waits_for_newer_ones() -> None:
    found = places([job("x", record_version=2)], [host("a", 1)])
    assert found == {"x": "every worker online is of an older version than this job needs"}
    assert places([job("x", record_version=2)], [host("b", 1, record_version=2)]) == {"x": ("b", 1)}


def test_a_damaged_record_keeps_no_other_from_its_place() -> None:
    broken = dataclasses.replace(job("bad"), summary={"gpu_request": "1", "min_vram_gb": "much"})
    found = places([broken, job("good")], [host("a", 1)])
    assert found["good"] == ("a", 1)
    assert "damaged" in str(found["bad"])


@pytest.mark.parametrize(
    ("kind", "card", "fits"),
    [
        ("a10", "NVIDIA A100-SXM4-80GB", False),
        ("a10", "NVIDIA A10G", False),
        ("a10", "NVIDIA A10", True),
        ("l4", "NVIDIA L40S", False),
        ("l4", "NVIDIA L4", True),
        ("h100", H100, True),
        ("a100-80gb", "NVIDIA A100-SXM4-80GB", True),
        ("a100-80gb", "NVIDIA A100-SXM4-40GB", False),
        ("rtx4090", "NVIDIA GeForce RTX 4090", True),
        ("rtx-4090", "NVIDIA GeForce RTX 4090", True),
        ("4090", "NVIDIA GeForce RTX 4090", True),
        ("rtx6000ada", "NVIDIA RTX 6000 Ada Generation", True),
        ("rtx6000", "NVIDIA RTX A6000", False),
        ("v100", "Tesla V100-SXM2-16GB", True),
        ("mi300x", "AMD Instinct MI300X OAM", True),
        ("gtx1080", "NVIDIA GeForce GTX 1080 Ti", True),
    ],
)
def test_a_kind_is_words_of_the_cards_name(kind: str, card: str, fits: bool) -> None:
    assert Gpu("GPU-1", card, 80).fits(kind, 0) is fits


WAITED = KEPT_AFTER_S + 1


def test_a_job_that_has_waited_for_several_cards_gets_one_hosts() -> None:
    """Those that become free go to nobody else; other hosts are as before."""
    one, two = host("a", gpus=4), host("b", gpus=4)
    leases = [running("x", one, 3), running("y", two, 4)]
    queue = [job("large", gpus="4"), job("small"), job("other", Phase.PREPARE)]
    for it in queue[:1]:
        it.summary["queued_ms"] = "0"
    assert places(queue, [one, two], leases, now_s=1)["small"] == ("a", 1)
    assert places(queue, [one, two], leases, now_s=WAITED) == {
        "large": "waits for 4 GPUs on one host; those of a are kept for it as they become free",
        "small": "the cards of a are kept for large, which waits longer",
        "other": ("a", 0),
    }
    three = host("c", gpus=1)
    assert places(queue, [one, two, three], leases, now_s=WAITED)["small"] == ("c", 1)
    assert places(queue, [one, two], [], now_s=WAITED)["large"] == ("a", 4)


def test_cards_are_kept_for_one_job_and_only_where_it_can_run() -> None:
    one, two = host("a", gpus=2, card=T4), host("b", gpus=2)
    leases = [running("x", one, 1), running("y", two, 1)]
    queue = [job("first", gpus="h100:2"), job("second", gpus="2"), job("small", gpus="t4")]
    for it in queue:
        it.summary["queued_ms"] = "0"
    found = places(queue, [one, two], leases, now_s=WAITED)
    assert str(found["first"]).endswith("those of b are kept for it as they become free")
    assert found["second"] == "waits for 2 GPUs on one host"
    assert found["small"] == ("a", 1)
    nowhere = [job("huge", gpus="8")]
    nowhere[0].summary["queued_ms"] = "0"
    assert places(nowhere, [two], [], now_s=WAITED) == {"huge": "no host online has 8 GPUs"}


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), st.integers(2, 8), st.integers(0, 2**32))
def test_a_large_job_starts_behind_endless_small_ones(count: int, size: int, seed: int) -> None:
    """After KEPT_AFTER_S it waits for no more than the jobs that run on one host by then."""
    chance = random.Random(seed)
    fleet = [host(f"h{n}", gpus=chance.randint(size, 8)) for n in range(count)]
    cards = {gpu.uuid: it for it in fleet for gpu in it.gpus}
    ends = {uuid: chance.randint(1, 900) for uuid in cards}  # small jobs, seconds
    large = job("large", gpus=str(size))
    large.summary["queued_ms"] = "0"
    longest = 900
    for now in range(0, int(KEPT_AFTER_S) + longest + 60, 30):
        ends = {uuid: end for uuid, end in ends.items() if end > now}
        leases = [
            Lease(u, 1, JobState.RUNNING, "1:a", 0, cards[u].name, "i", "gpu", (u,), "s1")
            for u in ends
        ]
        queue = [large, *(job(f"small-{n}") for n in range(50))]
        rooms = free_room(fleet, leases)
        placed, _ = plan(queue, rooms, fleet_has_gpus=True, now_ms=now * 1000)
        if any(it.job == "large" for it in placed):
            return
        ends |= {it.gpus[0]: now + chance.randint(1, longest) for it in placed}
    raise AssertionError(f"{size} cards of {count} hosts: still waits")


def test_a_job_goes_elsewhere_than_where_it_died_if_it_can() -> None:
    hosts = [host("a", gpus=1), host("b", gpus=2)]
    for phase, tight in ((Phase.TRAIN, "a"), (Phase.PREPARE, "a")):
        it = job("x", phase)
        assert places([it], hosts) == {"x": (tight, int(phase is Phase.TRAIN))}
        it.summary["deaths"] = '[{"host": "a", "attempt": 1, "reason": "killed"}, 3]'
        assert places([it], hosts) == {"x": ("b", int(phase is Phase.TRAIN))}
        assert places([it], hosts[:1]) == {"x": ("a", int(phase is Phase.TRAIN))}
