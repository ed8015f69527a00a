"""What all tests share: the real data's place, and a broker of their own."""

import gc
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from ftq_client.local.valkey import EmbeddedBroker
from ftq_shared.broker import connect
from ftq_shared.store import JobStore

pytest.register_assert_rewrite("tests.support.store_contract")

ROOT = Path(__file__).resolve().parent.parent

# As on a worker (see PINNED in ftq_worker.host.environment), and before any test imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are shared out among test processes
gc.disable()  # until all is collected: what is imported stays
# A terminal's own size is what the tests look at; whoever runs them may have set another one.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)
# A shell starts background jobs with Ctrl-C ignored, and children inherit that; tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and so does nohup


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their argument: packed ones hold the time, and names must not change."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later collection: a trainer collects at each start."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with the real data sets; skips where it is absent."""
    folder = Path(os.environ.get("FTQ_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set FTQ_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A real Valkey server for the whole run."""
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as server:
        yield server


@pytest.fixture
def redis(broker: EmbeddedBroker) -> Iterator[Redis]:
    """An empty database on the real server."""
    client = connect(broker.url)
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def store(redis: Redis) -> JobStore:
    """A job store on the empty database."""
    return JobStore(redis)


@pytest.fixture
def nonce() -> str:
    """Random text that no other test has."""
    return secrets.token_hex(8)
