"""One repo on disk: its record, its refs, its commits, its blobs.

Its folder holds:

    repo.json                     private, gated, created_at, granted
    refs.json                     branches and tags, name -> commit sha
    commits/<sha>/manifest.json   the commit: parent, title, author, path -> blob and size
    blobs/<sha256>                the content
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path

from ftq_hub.blobs import Blobs
from ftq_hub.errors import EntryNotFound, RepoNotFound, RevisionNotFound, StaleParent
from ftq_hub.files import locked, read_json, write_json
from ftq_hub.records import Commit, FileEntry, Refs, Repo, now_iso

MAIN = "main"
_SHA, _SHORT_SHA = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{7,40}")
_TEXT_BYTES = 1 << 20  # a longer README is text pasted by mistake; it is not read
Change = Callable[[dict[str, FileEntry]], None]  # edits the tree of the new commit in place


class RepoFiles:
    """Reads and changes one repo's folder. Every change is one os.replace under the repo's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = Blobs(folder / "blobs")

    def lock(self) -> AbstractContextManager[None]:
        """Serialise commits and changes of refs, also against other processes."""
        return locked(self.folder / ".lock")

    def repo(self) -> Repo:
        """Return the repo's record; raises RepoNotFound."""
        repo = read_json(self.folder / "repo.json", Repo)
        if repo is None:
            raise RepoNotFound("Repository not found")
        return repo

    def save_repo(self, repo: Repo) -> None:
        write_json(self.folder / "repo.json", asdict(repo))

    def refs(self) -> Refs:
        """Return branches and tags; none in a folder without refs."""
        return read_json(self.folder / "refs.json", Refs) or Refs()

    def save_refs(self, refs: Refs) -> None:
        write_json(self.folder / "refs.json", asdict(refs))

    def resolve(self, revision: str) -> str:
        """Return the commit sha of a branch, tag, full or short sha; raises RevisionNotFound."""
        if _SHA.fullmatch(revision) and (self.folder / "commits" / revision).is_dir():
            return revision  # first: no branch may stand for a commit
        refs = self.refs()
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        sha = refs.branches.get(name) or refs.tags.get(name)
        return sha or self._find_sha(revision)

    def _find_sha(self, revision: str) -> str:
        if _SHORT_SHA.fullmatch(revision):
            found = [path.name for path in (self.folder / "commits").glob(f"{revision}*")]
            if len(found) == 1:
                return found[0]
        raise RevisionNotFound(f"Invalid rev id: {revision}")

    def commit(self, revision: str) -> Commit:
        """Return the commit that a revision names; raises RevisionNotFound."""
        return _read_commit(self.folder / "commits" / self.resolve(revision) / "manifest.json")

    def history(self, revision: str) -> Iterator[Commit]:
        """Yield the commit of a revision and its ancestors, newest first."""
        commit = self.commit(revision)
        yield commit
        while commit.parent:
            commit = self.commit(commit.parent)
            yield commit

    def entry(self, commit: Commit, path: str) -> FileEntry:
        """Return one file of a commit; raises EntryNotFound with the commit in its headers."""
        if path not in commit.files:
            headers = {"X-Repo-Commit": commit.sha}
            raise EntryNotFound(f"Entry not found: {path}", headers=headers)
        return commit.files[path]

    def text(self, commit: Commit, path: str) -> str:
        """Return a small text file of a commit; empty when it is missing or large."""
        entry = commit.files.get(path)
        if entry is None or entry.size > _TEXT_BYTES:
            return ""
        return self.blobs.path(entry.sha256).read_text("utf-8", errors="replace")

    def add_commit(
        self,
        branch: str,
        change: Change,
        *,
        title: str,
        message: str = "",
        author: str = "hub",
        parent: str | None = None,
    ) -> Commit:
        """Commit a change to a branch and return the commit; atomic, one at a time.

        Raises RevisionNotFound for an unknown branch and StaleParent when `parent` is given
        and is not the head (seven or more digits are enough).
        """
        with self.lock():
            refs = self.refs()
            head = self._head(refs, branch)
            if parent is not None and not (head or "").startswith(parent):
                raise StaleParent(
                    "The branch was updated since you opened this page."
                    " Please refresh and try again."
                    f" ({branch} is at {head}, the commit names {parent} as its parent)"
                )
            files = dict(self.commit(head).files) if head else {}
            change(files)
            commit = _seal(Commit("", head, title, message, author, now_iso(), files))
            write_json(self.folder / "commits" / commit.sha / "manifest.json", asdict(commit))
            self.save_refs(replace(refs, branches=refs.branches | {branch: commit.sha}))
        return commit

    def _head(self, refs: Refs, branch: str) -> str | None:
        if branch in refs.branches:
            return refs.branches[branch]
        if branch == MAIN and not refs.branches:
            return None  # the first commit makes the branch
        raise RevisionNotFound(f"Invalid branch: {branch}")


def _seal(commit: Commit) -> Commit:
    """Give a commit its sha, which covers everything in it."""
    text = json.dumps(asdict(commit), sort_keys=True)
    return replace(commit, sha=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@lru_cache(maxsize=256)
def _read_commit(path: Path) -> Commit:
    """Commits never change, so they are kept; callers must not edit `files`."""
    commit = read_json(path, Commit)
    if commit is None:
        raise RevisionNotFound(f"Invalid rev id: {path.parent.name}")
    return commit


def dir_paths(files: Mapping[str, FileEntry]) -> set[str]:
    """Return every folder that a set of files lies in, without the root."""
    return {path[:index] for path in files for index, letter in enumerate(path) if letter == "/"}
