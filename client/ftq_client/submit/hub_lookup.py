"""What the questions of `ftq submit` know: the real Hub, and this machine's disk."""

from pathlib import Path
from typing import Literal

from ftq_client.submit.questions import Answer, Answered, NotFound
from ftq_client.transfer.files import files_of, size_of
from ftq_shared.errors import target_taken
from ftq_shared.hub import HubClient, RepoRecord, RepoState, layout
from ftq_shared.sources import Place, parse_source


class HubLookup:
    """The `Lookup` of the questions; keeps the token that was found or typed."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self._endpoint = endpoint
        self.token = token
        self._hub = HubClient(endpoint, token)

    def model(self, name: str) -> Answer:
        source = parse_source(name, what="model")
        if source.place is not Place.HUB:
            return _on_disk("model", source.place, source.name, name)
        found = self._hub.model_info(source.name, source.revision)
        size = f"{found.parameters:,} parameters" if found.parameters else ""
        detail = ", ".join(filter(None, (size, found.license)))
        return Answered(name, detail, needs_token=_locked(found))

    def dataset(self, name: str) -> Answer:
        source = parse_source(name, what="dataset")
        if source.place is not Place.HUB:
            return _on_disk("dataset", source.place, source.name, name)
        found = self._hub.dataset_info(source.name, source.revision)
        configs = layout(found)
        if source.config and source.config not in configs.names:
            return NotFound([f"{source.name}:{config}" for config in configs.names])
        needed = () if source.config or configs.default else configs.names
        return Answered(name, found.license or "", tuple(needed), _locked(found))

    def search(self, kind: Literal["model", "dataset"], query: str) -> list[str]:
        find = self._hub.search_models if kind == "model" else self._hub.search_datasets
        return [found.id for found in find(query)]

    def has_token(self) -> bool:
        return bool(self.token)

    def use_token(self, token: str) -> Answer:
        hub = HubClient(self._endpoint, token)
        who = hub.whoami()
        self.token, self._hub = token, hub
        return Answered(who.name)

    def target(self, repo: str) -> Answer:
        """Return whether the model may be published to `repo`."""
        full = self._hub.write_access(repo)
        state = self._hub.repo_state(full)
        if state is RepoState.OTHER:
            raise target_taken(full)
        return Answered(full)


def _locked(repo: RepoRecord) -> bool:
    return repo.gated or repo.private


def _on_disk(what: str, place: Place, path: str, name: str) -> Answer:
    """Look at a path of this machine; the workers' own cannot be seen from here."""
    if place is Place.WORKER:
        return Answered(name, "on the workers; checked there")
    files = files_of(what, path)  # raises UsageError when there is none
    size_mb = size_of(files) / 1e6
    return Answered(name, f"{len(files)} files, {size_mb:.1f} MB at {Path(path).absolute().parent}")
