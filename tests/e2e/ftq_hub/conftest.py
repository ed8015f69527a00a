"""A real hub process, its store, and real clients of it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from ftq_hub import HubStore, Tls

READY_S = 20.0  # a start takes half a second; the rest is for a busy machine
TOKENS = {
    "hf_me": ("me", "write", ("team",)),
    "hf_reader": ("me", "read", ()),
    "hf_other": ("other", "write", ()),
}


class HubProcess:
    """`python -m ftq_hub` on a free port."""

    def __init__(self, folder: Path, tls: Tls) -> None:
        command = [sys.executable, "-m", "ftq_hub", "--dir", str(folder)]
        command += ["--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.folder = folder
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()  # ends early when the process dies
        assert self.url.startswith("https://127.0.0.1:"), self.url

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(READY_S)


@dataclass
class Hub:
    """A running hub, with shorthands for tests."""

    url: str
    store: HubStore
    admin_token: str
    work: Path

    def api(self, token: str | bool = "hf_me") -> HfApi:
        return HfApi(endpoint=self.url, token=token)

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=READY_S) as answer:
            return answer.read()

    def fault(self, **fields: Any) -> None:
        self.call("POST", "/_faults", fields, Authorization=f"Bearer {self.admin_token}")

    def faults(self) -> list[dict[str, Any]]:
        auth = f"Bearer {self.admin_token}"
        return list(json.loads(self.call("GET", "/_faults", Authorization=auth)))

    def clear_faults(self) -> None:
        self.call("DELETE", "/_faults", Authorization=f"Bearer {self.admin_token}")

    def python(self, code: str, *, token: str = "hf_me", **env: str) -> Any:
        """Run code in a fresh interpreter that finds the hub by HF_ENDPOINT; return its JSON."""
        fresh = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        fresh |= {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.work / "hf-home"),
            "HF_TOKEN": token,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets would ask a host outside
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=fresh | env,
            cwd=self.work,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def start_process(tls: Tls) -> Iterator[Callable[..., HubProcess]]:
    """Start hubs on a given folder; what still runs ends with the test."""
    running: list[HubProcess] = []

    def start(folder: Path) -> HubProcess:
        running.append(HubProcess(folder, tls))
        return running[-1]

    yield start
    for process in running:
        process.stop()


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory, tls: Tls) -> Iterator[Hub]:
    """One hub for all tests of this folder; each test makes repos of its own."""
    work = tmp_path_factory.mktemp("hub")
    store = HubStore(work / "store")
    for token, (user, role, orgs) in TOKENS.items():
        store.add_token(token, user, role, orgs)
    process = HubProcess(store.folder, tls)
    secret = (store.folder / "admin-token").read_text().strip()
    with pytest.MonkeyPatch.context() as patch:
        # hf_xet, inside this process, keeps notes of what it sent; not in the user's own cache.
        patch.setenv("HF_HOME", str(work / "hf-home"))
        patch.setenv("HF_XET_CACHE", str(work / "hf-home" / "xet"))
        yield Hub(process.url, store, secret, work)
    process.stop()


def write_files(folder: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below a folder and return it."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Callable[[dict[str, str | bytes]], Path]:
    """Write files into a new folder of the test."""
    return lambda content: write_files(tmp_path / "files", content)
