"""Every lease has observers, whatever the fleet, and no host watches more than its share."""

from collections import Counter

import pytest

from ftq_worker.agent.observers import HOUSE, OBSERVERS, watched_by

HOSTS = [f"host-{n}" for n in range(1000)]


def observers(known: list[str], online: list[str]) -> Counter[str]:
    """Return by how many others each host is watched."""
    seen = [name for me in online for name in watched_by(me, known, online) if name != me]
    return Counter(seen)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 20, 1000])
def test_each_is_watched_by_itself_and_by_three_others_where_there_are(count: int) -> None:
    online = HOSTS[:count]
    assert all(me in watched_by(me, online, online) for me in online)
    found = observers(online, online)
    assert {found[name] for name in online} == {min(OBSERVERS, count - 1)} or count <= OBSERVERS + 1
    assert all(found[name] >= min(OBSERVERS, count) - 1 for name in online)
    assert max(len(watched_by(me, online, online)) for me in online) <= 2 * OBSERVERS + 1


def test_of_a_host_that_is_lost_only_its_watchers_change() -> None:
    lost, rest = HOSTS[7], [name for name in HOSTS if name != HOSTS[7]]
    assert observers(HOSTS, rest)[lost] == OBSERVERS, "whoever is lost is watched on"
    changed = [n for n in rest if watched_by(n, HOSTS, rest) != watched_by(n, HOSTS, HOSTS)]
    assert 0 < len(changed) <= OBSERVERS + 1


def test_what_is_nobodys_has_observers_too() -> None:
    for count in (1, 2, 500):
        online = HOSTS[:count]
        watchers = [me for me in online if HOUSE in watched_by(me, online, online)]
        assert len(watchers) == min(OBSERVERS, count)


def test_a_host_that_is_not_yet_counted_online_watches_itself() -> None:
    assert HOSTS[3] in watched_by(HOSTS[3], [], [])
