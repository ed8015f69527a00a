import json
import stat

import pytest

from ftq_shared.errors import Refused, UsageError
from ftq_shared.secrets import FleetKey, KnownFleets, fingerprint, open_box, seal

BOUND = {"job": "ft-aaaaaaaa", "spec_sha256": "ab" * 32, "endpoint": "http://hub.local"}
VALUES = {"HF_TOKEN": "hf_secret_value", "WANDB_API_KEY": "ключ"}


@pytest.fixture(scope="module")
def key():
    return FleetKey.generate()


def test_a_box_opens_for_what_it_was_made_for(key):
    box = seal(key.public, VALUES, **BOUND)
    assert open_box(key, box, **BOUND) == VALUES
    assert "hf_secret_value" not in box
    assert seal(key.public, VALUES, **BOUND) != box


@pytest.mark.parametrize(
    "other",
    [
        {"job": "ft-bbbbbbbb"},
        {"spec_sha256": "cd" * 32},
        {"endpoint": None},
        {"endpoint": "http://x"},
    ],
)
def test_a_box_is_refused_for_anything_else(key, other):
    box = seal(key.public, VALUES, **BOUND)
    with pytest.raises(Refused) as caught:
        open_box(key, box, **(BOUND | other))
    assert caught.value.code == "secret_binding"
    assert "hf_secret_value" not in caught.value.message + caught.value.hint


def test_the_public_hub_is_one_however_it_is_written(key):
    box = seal(key.public, VALUES, **(BOUND | {"endpoint": None}))
    assert open_box(key, box, **(BOUND | {"endpoint": "https://huggingface.co/"})) == VALUES


def test_another_key_or_a_changed_box_is_unreadable(key):
    box = seal(key.public, VALUES, **BOUND)
    for other, text in ((FleetKey.generate(), box), (key, box[:-8] + "AAAAAAA="), (key, "no")):
        with pytest.raises(Refused) as caught:
            open_box(other, text, **BOUND)
        assert caught.value.code == "secret_unreadable"


def test_a_key_file_comes_back_and_only_its_owner_reads_it(tmp_path, key):
    path = tmp_path / "new" / "fleet.key"
    key.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = FleetKey.load(path)
    assert loaded.public == key.public
    assert loaded.fingerprint == fingerprint(key.public)
    with pytest.raises(UsageError, match="exists already"):
        key.save(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path, key, mode):
    path = tmp_path / "fleet.key"
    key.save(path)
    path.chmod(mode)
    with pytest.raises(UsageError) as caught:
        FleetKey.load(path)
    assert caught.value.hint == f"chmod 600 {path}"


def test_files_that_are_no_key(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        FleetKey.load(tmp_path / "none")
    for content in (b"", b"ftq-fleet-key-1 short", b"\xff\x00", b"ssh-ed25519 AAAA"):
        path = tmp_path / "bad"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(UsageError, match="no fleet key"):
            FleetKey.load(path)


def test_a_key_does_not_show_itself(key):
    assert key._private.hex() not in repr(key) + str(key)
    assert repr(key._private) not in repr(key)


def test_a_malformed_public_key_is_told():
    for text in ("", "AAAA", "ü"):
        with pytest.raises(UsageError, match="malformed"):
            seal(text, VALUES, **BOUND)


def test_the_first_key_is_pinned_and_a_changed_one_refused(tmp_path, key):
    other = FleetKey.generate()
    fleets = KnownFleets(tmp_path / "home" / "known_fleets.json")
    assert fleets.verify("redis-1", key.public) == key.fingerprint
    assert fleets.verify("redis-2", other.public) == other.fingerprint
    assert KnownFleets(fleets.path).verify("redis-1", key.public) == key.fingerprint
    with pytest.raises(UsageError) as caught:
        fleets.verify("redis-1", other.public)
    error = caught.value
    assert key.fingerprint in error.message
    assert other.fingerprint in error.message
    assert str(fleets.path) in error.hint
    assert json.loads(fleets.path.read_text())["redis-1"] == key.fingerprint
    fleets.accept("redis-1", other.public)
    assert fleets.verify("redis-1", other.public) == other.fingerprint


def test_a_broken_pin_file_is_told_not_overwritten(tmp_path, key):
    for content in ("{", "[]", '{"a": 1}'):
        path = tmp_path / "known.json"
        path.write_text(content)
        with pytest.raises(UsageError, match="not a list of known fleets"):
            KnownFleets(path).verify("b", key.public)
        assert path.read_text() == content
