"""A trained job and a local Hub: publishing is proven with the real Hub client."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from tests.support.tiny_jobs import TinyJob, make_base, tiny_job

from ftq_hub import HubApp, HubStore, running
from ftq_shared.hub import Retry
from ftq_shared.sources import Place
from ftq_shared.states import Phase
from ftq_worker.job import hub as publishing_hub
from ftq_worker.job.reports import Validated
from ftq_worker.phases import train

TOKEN = "hf_planted_writer"
READER = "hf_planted_reader"


@dataclass(frozen=True)
class LocalHub:
    app: HubApp
    url: str

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.url, token=TOKEN)


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory):
    store = HubStore(tmp_path_factory.mktemp("hub"))
    store.add_token(TOKEN, "me", "write", [])
    store.add_token(READER, "guest", "read", [])
    app = HubApp(store)
    with running(app) as url:
        yield LocalHub(app, url)


@pytest.fixture
def hub(hub_server):
    yield hub_server
    hub_server.app.faults.clear()


@pytest.fixture(scope="session")
def bases(tmp_path_factory, hub_server) -> dict[str, tuple[Path, str]]:
    """Local folder and commit of each base model on the Hub."""
    made = {}
    for kind in ("llama", "bert"):
        folder = make_base(tmp_path_factory.mktemp(kind), kind)
        hub_server.api.create_repo(f"me/{kind}", exist_ok=True)
        commit = hub_server.api.upload_folder(repo_id=f"me/{kind}", folder_path=folder)
        made[kind] = (folder, commit.oid)
    return made


@pytest.fixture(scope="session")
def trained(tmp_path_factory, bases, hub_server):
    """Return trained jobs by (task, method): trained once, copied for each test."""
    done: dict[tuple[str, str], TinyJob] = {}

    def get(task: str, method: str) -> TinyJob:
        if (task, method) not in done:
            kind = "bert" if task == "classification" else "llama"
            job = tiny_job(
                tmp_path_factory.mktemp("job"),
                bases[kind][0],
                task,
                train={"method": method, "epochs": 4, "learning_rate": 5e-3},
            )
            _on_hub(job, kind, bases[kind][1])
            job = replace(
                job,
                ctx=replace(job.ctx, endpoint=hub_server.url, secrets={"HF_TOKEN": TOKEN}),
            )
            train.run(job.ctx)
            done[task, method] = job
        return done[task, method]

    return get


def _on_hub(job: TinyJob, kind: str, commit: str) -> None:
    found = Validated.load(job.ctx.paths.validated)
    model = found.model.model_copy(
        update={"place": Place.HUB, "name": f"me/{kind}", "revision": commit}
    )
    found.model_copy(update={"model": model}).save(job.ctx.paths.validated)


@pytest.fixture(autouse=True)
def hub_cache(tmp_path_factory, monkeypatch):
    """Downloads go to a folder of the test run, never to the person's own cache."""
    import huggingface_hub.constants as constants

    cache = str(tmp_path_factory.getbasetemp() / "hub-cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)


@pytest.fixture
def publishing(trained, tmp_path):
    """Return a copy of a trained job, in its publish phase, with `publish` set."""

    def get(task: str = "sft", method: str = "lora", **publish) -> TinyJob:
        job = trained(task, method)
        storage = tmp_path / "storage"
        shutil.copytree(job.ctx.paths.storage, storage)
        spec = job.ctx.spec.model_copy(
            update={"publish": job.ctx.spec.publish.model_copy(update=publish)}
        )
        paths = replace(job.ctx.paths, storage=storage)
        return job.again(phase=Phase.PUBLISH, spec=spec, paths=paths)

    return get


@pytest.fixture
def quick(monkeypatch):
    """Waits of milliseconds instead of seconds."""
    monkeypatch.setattr(
        publishing_hub, "Retry", lambda sleep: Retry(total_s=2.0, first_wait_s=0.05, sleep=sleep)
    )
