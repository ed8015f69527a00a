"""Cards are offered once they have computed something, and set aside when they fail."""

import threading

import pytest
from tests.support.clock import Clock

from ftq_shared.hosts import Gpu
from ftq_worker.agent.cards import FIRST_AGAIN_S, UNTRIED, Cards, try_card

A, B = Gpu("GPU-a", "Test", 80.0), Gpu("GPU-b", "Test", 80.0)


class Host:
    """Cards whose faults the test sets."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.faults = {"GPU-a": "", "GPU-b": ""}
        self.tried: list[str] = []
        self.told = 0
        self.cards = Cards([A, B], self._tell, self._fault, self.clock)

    def _tell(self) -> None:
        self.told += 1

    def _fault(self, uuid: str) -> str:
        self.tried.append(uuid)
        return self.faults[uuid]

    def try_due(self) -> None:
        for thread in self.cards.try_due():
            thread.join()

    def seconds_until_tried(self) -> float:
        """Return after how many seconds of waiting a card is tried again."""
        start, tries = self.clock.now, len(self.tried)
        while len(self.tried) == tries:
            self.clock.now += 1.0
            self.try_due()
        return self.clock.now - start


@pytest.fixture
def host() -> Host:
    return Host()


def test_a_card_is_offered_once_it_was_tried(host: Host) -> None:
    host.faults["GPU-b"] = "no driver"
    assert host.cards.usable() == []
    assert {card.why for card in host.cards.sick()} == {UNTRIED}
    host.try_due()
    assert host.cards.usable() == [A]
    assert [(card.uuid, card.why) for card in host.cards.sick()] == [("GPU-b", "no driver")]
    assert host.told == 2


def test_a_card_that_failed_a_phase_is_set_aside_until_it_computes_again(host: Host) -> None:
    host.try_due()
    host.cards.suspect(["GPU-a", "GPU-of-another-host"], "fell off the bus", fault=True)
    assert host.cards.usable() == [B]
    assert [card.why for card in host.cards.sick(["GPU-a"])] == ["fell off the bus"]
    assert host.cards.sick(["GPU-b"]) == []
    host.try_due()
    assert host.cards.usable() == [A, B], "the first try comes at once"


def test_a_card_that_fails_again_and_again_is_tried_less_and_less_often(host: Host) -> None:
    host.try_due()
    host.faults["GPU-a"] = "no driver"
    host.cards.suspect(["GPU-a"], "fell off the bus", fault=True)
    host.try_due()
    first, second = host.seconds_until_tried(), host.seconds_until_tried()
    assert FIRST_AGAIN_S <= first < second


def test_a_card_that_passes_and_still_fails_its_phases_waits_longer(host: Host) -> None:
    host.try_due()
    for _ in range(2):
        host.cards.suspect(["GPU-a"], "cannot be used", fault=True)
    host.try_due()
    assert host.cards.usable() == [B]
    assert host.seconds_until_tried() >= FIRST_AGAIN_S - 1
    host.cards.trust(["GPU-a"])
    host.cards.suspect(["GPU-a"], "cannot be used", fault=True)
    host.try_due()
    assert host.cards.usable() == [A, B]


def test_a_card_that_hangs_keeps_no_other_from_being_offered() -> None:
    hung = threading.Event()

    def fault(uuid: str) -> str:
        if uuid == "GPU-a":
            hung.wait(60)
        return ""

    cards = Cards([A, B], lambda: None, fault)
    first, second = cards.try_due()
    second.join(10)
    assert cards.usable() == [B]
    assert cards.try_due() == [], "it is being tried already"
    hung.set()
    first.join(10)
    assert cards.usable() == [A, B]


def test_a_try_that_raises_is_a_fault_and_not_repeated_every_second() -> None:
    clock = Clock()

    def fault(uuid: str) -> str:
        raise ValueError("no such driver")

    cards = Cards([A], lambda: None, fault, clock)
    cards.try_due()[0].join(10)
    assert "no such driver" in cards.sick()[0].why
    clock.now += FIRST_AGAIN_S / 2
    assert cards.try_due() == []
    clock.now += FIRST_AGAIN_S
    assert len(cards.try_due()) == 1


def test_no_thread_to_try_a_card_in_is_no_try(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError):
            host.cards.try_due()
    host.try_due()
    assert host.cards.usable() == [A, B]


def test_phases_that_died_for_other_reasons_hold_no_card_for_long(host: Host) -> None:
    host.try_due()
    for _ in range(5):
        assert not host.cards.suspect(["GPU-a"], "its phase crashed", fault=False)
        host.try_due()
        assert host.cards.usable() == [A, B]


def test_a_real_try_says_what_is_wrong() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        assert try_card("0") == ""
    else:
        assert "built for the CPU only" in try_card("GPU-a") or "CUDA" in try_card("GPU-a")
