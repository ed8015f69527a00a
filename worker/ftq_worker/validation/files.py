"""The files of a model, wherever it lives: on the Hub or in a folder."""

import itertools
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ftq_shared.errors import Refused
from ftq_shared.hub import HubClient, RepoRecord
from ftq_worker.host.data_roots import DataRoots


class ModelFiles(Protocol):
    """What the checks read of a model."""

    @property
    def name(self) -> str:
        """What to call it in messages."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Every file with its size in bytes."""
        ...

    def head(self, path: str, size_bytes: int) -> bytes | None:
        """Return the beginning of a file, None when it is not there."""
        ...


@dataclass(frozen=True)
class HubFiles:
    """A model repo at a commit."""

    hub: HubClient
    record: RepoRecord

    @property
    def name(self) -> str:
        return self.record.id

    @property
    def sizes(self) -> Mapping[str, int]:
        return self.record.files

    def head(self, path: str, size_bytes: int) -> bytes | None:
        """Raises as HubClient does."""
        if path not in self.record.files:
            return None
        return self.hub.read_head("model", self.record.id, path, self.record.sha, size_bytes)


@dataclass(frozen=True)
class FolderFiles:
    """A model folder that this host sees."""

    root: Path
    name: str
    roots: DataRoots = field(default_factory=DataRoots)  # that links of its files may lead to

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Raises Refused for a file that is elsewhere, or of a kind that may never end."""
        paths = (Path(at) / name for at, _, names in os.walk(self.root) for name in names)
        found: dict[str, int] = {}
        for path in itertools.islice(paths, _MAX_FILES + 1):
            inner = path.relative_to(self.root).as_posix()
            try:
                status = path.stat()
            except OSError:  # a link to nowhere
                continue
            if not stat.S_ISREG(status.st_mode) or not self.roots.admits(path):
                raise self._strange(inner)
            found[inner] = status.st_size
        if len(found) > _MAX_FILES:
            raise Refused(
                f"{self.name} holds more than {_MAX_FILES:,} files",
                code="no_model_folder",
                hint="name the folder of one model",
                field="model",
            )
        return found

    def _strange(self, path: str) -> Refused:
        return Refused(
            f"{self.name}: {path} is no regular file of a folder that this worker opens",
            code="strange_file",
            hint="put the file itself there, not a link, a pipe or a device",
            file=path,
        )

    def head(self, path: str, size_bytes: int) -> bytes | None:
        """Raises Refused (`unreadable_file`)."""
        if path not in self.sizes:
            return None
        try:
            with (self.root / path).open("rb") as file:
                return file.read(size_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(
                f"{self.name}: {path} cannot be read: {error.strerror}",
                code="unreadable_file",
                hint="the user that runs `ftq worker` must be able to read it",
                file=path,
            ) from error


_MAX_FILES = 10_000
_MAX_JSON_BYTES = 32 * 2**20


def read_json(files: ModelFiles, path: str) -> dict[str, Any] | None:
    """Return a JSON object, None when it is not there; raises Refused when it is broken."""
    content = files.head(path, _MAX_JSON_BYTES)
    if content is None:
        return None
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(
            f"{files.name}: {path} is not valid JSON: {error}",
            code="broken_file",
            hint="the model is damaged; choose another revision, or download it again",
            file=path,
        ) from error
    if not isinstance(data, dict):
        raise Refused(
            f"{files.name}: {path} holds {type(data).__name__}, not an object",
            code="broken_file",
            hint="the model is damaged; choose another revision, or download it again",
            file=path,
        )
    return data
