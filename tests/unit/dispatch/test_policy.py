"""The placement policy: a pure function, so every case is a few records."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest

from ftq_shared.hosts import Gpu, HostRecord, SickGpu
from ftq_shared.job_record import JobRecord
from ftq_shared.lease import Lease
from ftq_shared.states import JobState, Phase
from ftq_worker.dispatch.policy import free_room, has_gpus, plan

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
    queue: list[JobRecord], hosts: list[HostRecord], leases: Sequence[Lease] = ()
) -> dict[str, object]:
    placed, waiting = plan(queue, free_room(hosts, leases), fleet_has_gpus=has_gpus(hosts))
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
