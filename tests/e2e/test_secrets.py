"""A planted token is found nowhere but in the memory of the phases that use it."""

import threading
from pathlib import Path

from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared import keys
from ftq_shared.secrets import FleetKey
from ftq_shared.spec_input import parse_spec
from ftq_shared.states import Phase
from tests.support.warm_command import WarmCommand

from .conftest import WRITER, Fleet, Hub

BASE = ("--model", "demo/tiny-llama", "--dataset", "demo/colours")


def in_files(folder: Path, needle: bytes) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if needle in path.read_bytes()]


def in_processes(needle: bytes, mine: str) -> list[str]:
    """Look at the command line and environment of every process that belongs to the fleet."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:  # it ended, or is not ours to read
            continue
        if mine.encode() not in environment or b"ftq_client" in command:
            continue  # the client itself was started with the token: that is its owner's choice
        if needle in command or needle in environment:
            found.append(command.decode(errors="replace"))
    return found


def test_a_planted_token_is_found_nowhere(fleet: Fleet) -> None:
    seen: list[str] = []
    ended = threading.Event()
    looks = [0]

    def watch() -> None:
        while not ended.wait(0.05):
            looks[0] += 1
            seen.extend(in_processes(WRITER.encode(), str(fleet.root)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        done = fleet.submit(*BASE, "--publish-to", "me/secretive")
    finally:
        ended.set()
        watcher.join()
    assert done.code == 0, done.stderr
    assert looks[0] > 10
    assert seen == []
    assert WRITER not in str(done.events)
    assert WRITER not in done.stderr
    client = fleet.client()
    assert in_files(fleet.root, WRITER.encode()) == []  # broker, storage, logs, caches
    for key in client.redis.scan_iter("*"):
        assert WRITER.encode() not in (client._binary().dump(key) or b"")
    repo = fleet.hub.store.files("model", "me/secretive").commit("main")
    assert repo.sha
    card = fleet.run("show", done.job).stdout
    assert WRITER not in card
    assert not client.store.sealed_secrets(done.job), "its key lives until the job is terminal"


def test_a_changed_record_cannot_use_the_token(
    local_hub: Hub, command: WarmCommand, tmp_path: Path
) -> None:
    """A spec that was changed on the broker is refused, with the token still sealed."""
    key = FleetKey.generate()
    key.save(tmp_path / "fleet.key")
    with EmbeddedBroker(tmp_path / "broker") as broker:
        fleet = Fleet(broker, local_hub, command, tmp_path)
        client = fleet.client()
        client.redis.hset(keys.FLEET, "public_key", key.public)
        mine = {"model": "demo/tiny-llama", "dataset": "demo/colours"}
        job = client.submit(mine, secrets={"HF_TOKEN": WRITER})
        theirs = parse_spec({**mine, "publish": {"repo": "me/evil"}})
        client.redis.hset(keys.job(job), "spec", theirs.canonical())
        worker = fleet.start_worker("late")
        record = client.wait(job, timeout_s=60)
        fleet.stop_worker(worker)
    assert (record.phase, record.exit_code) == (Phase.VALIDATE, 5)
    assert record.error
    assert record.error.code == "secret_binding"


def test_another_fleet_key_is_noticed(fleet: Fleet, tmp_path: Path) -> None:
    client = fleet.client()
    real = client.redis.hget(keys.FLEET, "public_key")
    fleet.detach(*BASE)  # pins the real one
    client.redis.hset(keys.FLEET, "public_key", FleetKey.generate().public)
    try:
        done = fleet.run("submit", *BASE, "--detach")
        assert done.returncode == 2
        assert "has changed" in done.stderr
    finally:
        client.redis.hset(keys.FLEET, "public_key", str(real))


def test_a_key_file_that_others_can_read_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    path = tmp_path / "fleet.key"
    FleetKey.generate().save(path)
    path.chmod(0o644)
    done = fleet.run("worker", "--name", "x", env=fleet.env(home="x", FTQ_FLEET_KEY=str(path)))
    assert done.returncode == 2
    assert "chmod 600" in done.stderr
