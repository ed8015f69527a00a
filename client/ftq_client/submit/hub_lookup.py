"""What the questions of `ftq submit` know: the real Hub, and this machine's disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ftq_client.submit.own_rows import look_at
from ftq_client.submit.questions import Answer, Answered, NotFound
from ftq_client.transfer.files import files_of, size_of
from ftq_client.view.format import counted, size
from ftq_shared.errors import Refused, UsageError, target_taken
from ftq_shared.hub import HubClient, RepoRecord, RepoState, layout
from ftq_shared.hub.layout import Split
from ftq_shared.sources import Place, parse_source
from ftq_shared.spec_input import merge, nested
from ftq_shared.spec_input.parse import examine


class HubLookup:
    """The `Lookup` of the questions; keeps the token that was found or typed."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self._endpoint = endpoint
        self.token = token
        self._hub = HubClient(endpoint, token)
        self.facts: dict[str, str] = {}  # what was found, by field, for people

    def model(self, name: str) -> Answer:
        refuse_bad_value("model", name)
        source = parse_source(name, what="model")
        if source.place is not Place.HUB:
            return _on_disk("model", source.place, source.name, name)
        found = self._hub.model_info(source.name, source.revision)
        size = f"{found.parameters:,} parameters" if found.parameters else ""
        detail = ", ".join(filter(None, (size, found.license)))
        return Answered(name, detail, needs_token=_locked(found))

    def dataset(self, name: str) -> Answer:
        refuse_bad_value("dataset", name)
        source = parse_source(name, what="dataset")
        if source.place is not Place.HUB:
            answer = _on_disk("dataset", source.place, source.name, name)
            self.facts["rows"] = answer.detail
            return Answered(name, answer.detail)
        found = self._hub.dataset_info(source.name, source.revision)
        configs = layout(found)
        if source.config and source.config not in configs.names:
            return NotFound([f"{source.name}:{config}" for config in configs.names])
        needed = () if source.config or configs.default else configs.names
        used = configs.configs.get(source.config or configs.default or "", {})
        self.facts["rows"] = _rows_on_hub(used)
        detail = ", ".join(filter(None, (self.facts["rows"], found.license)))
        return Answered(name, detail, tuple(needed), _locked(found))

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

    def drop_token(self) -> None:
        self.token, self._hub = "", HubClient(self._endpoint, None)

    def target_name(self, repo: str) -> Answer:
        """Return whether this could be the name of a repo."""
        refuse_bad_value("publish.repo", repo)
        return Answered(repo)

    def target(self, repo: str) -> Answer:
        """Return whether the model may be published to `repo`."""
        try:
            full = self._hub.write_access(repo)
        except Refused as error:
            if error.code == "no_write_access" and self._hub.whoami().role != "write":
                raise Refused(error.message, code="weak_token") from error
            raise
        state = self._hub.repo_state(full)
        if state is RepoState.OTHER:
            raise target_taken(full)
        return Answered(full)


def refuse_bad_value(field: str, value: str) -> None:
    """Raise UsageError for a value that the spec would refuse in this field."""
    whole = merge({"model": "a/b", "dataset": "a/b"}, nested(field, value))
    if wrong := [problem for problem in examine(whole)[1] if problem.field == field]:
        raise UsageError(wrong[0].text, code="bad_spec", field=field)


def _locked(repo: RepoRecord) -> bool:
    return repo.gated or repo.private


def _on_disk(what: str, place: Place, path: str, name: str) -> Answered:
    """Look at a path of this machine; the workers' own cannot be seen from here."""
    if place is Place.WORKER:
        return Answered(name, "on the workers; checked there")
    files = files_of(what, path)  # raises UsageError when there is none
    sent = [file for file in files if file.content is None]
    facts = f"{counted(len(sent), 'file')}, {size(size_of(files))} at {Path(path).absolute()}"
    found = look_at(files)
    words = (found.words(), facts, found.unread_words()) if found else (facts,)
    return Answered(name, ", ".join(filter(None, words)))


def _rows_on_hub(splits: Mapping[str, Split]) -> str:
    """Return the rows of each split, as far as the card tells."""
    known = [f"{split.rows:,} in {name}" for name, split in splits.items() if split.rows]
    columns = next((split.columns for split in splits.values() if split.columns), ())
    rows = f"rows: {', '.join(known)}" if known else ""
    return ", ".join(filter(None, (rows, f"columns {', '.join(columns)}" if columns else "")))
