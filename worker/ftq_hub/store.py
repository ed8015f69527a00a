"""HubStore: a folder that holds a Hub's repos and users, readable by a person.

    store = HubStore(Path("hub"))
    store.add_token("hf_me", "me", "write")
    store.create_repo("dataset", "demo/intents", private=True)
    store.commit_folder("dataset", "demo/intents", Path("data"), "first rows")

A running server sees at once what another process writes here.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ftq_hub.errors import BadRequest, Conflict, RepoNotFound, RevisionNotFound
from ftq_hub.files import (
    check_path,
    check_ref,
    check_repo_id,
    file_entry,
    locked,
)
from ftq_hub.gitrules import ATTRIBUTES, FIRST_ATTRIBUTES, is_lfs
from ftq_hub.moves import Moves
from ftq_hub.records import Commit, FileEntry, Refs, Repo, RepoType, User, now_iso
from ftq_hub.repo_files import MAIN, RepoFiles
from ftq_hub.users import Users


class HubStore:
    """The repos and users under one folder; the folder is made when it is missing."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._users = Users(self.folder)
        self._moves = Moves(self.folder)

    # Users

    def add_token(
        self,
        token: str,
        user: str,
        role: str = "write",
        orgs: Sequence[str] | Mapping[str, str] = (),
        *,
        expires: float | None = None,
    ) -> None:
        """Let `token` act as `user` with role "read" or "write"; raises BadRequest.

        `orgs` are the user's organisations, each with a role (read, contributor, write, admin) or
        all with write. `expires` is in seconds since 1970.
        """
        self._users.add_token(token, user, role, orgs, expires)

    def remove_token(self, token: str) -> None:
        self._users.remove_token(token)

    def find_user(self, token: str) -> User | None:
        return self._users.find(token)

    def grant_access(self, repo: str, user: str, repo_type: RepoType | str | None = None) -> None:
        """Let a user read a gated or private repo: the model, the dataset, or both of that id.

        Raises RepoNotFound when there is neither.
        """
        types = [RepoType(repo_type)] if repo_type else list(RepoType)
        found = [kind for kind in types if self.has_repo(kind, repo)]
        if not found:
            raise RepoNotFound("Repository not found")
        for kind in found:
            granted = (*self.repo(kind, repo).granted, user)
            self.update_repo(kind, repo, granted=tuple(dict.fromkeys(granted)))

    # Repos

    def files(self, repo_type: RepoType | str, repo_id: str) -> RepoFiles:
        """Return the repo's folder, its name in any case; raises RepoNotFound without one."""
        folder = self._find(repo_type, repo_id)
        if folder is None:
            raise RepoNotFound("Repository not found")
        return RepoFiles(folder)

    def repo(self, repo_type: RepoType | str, repo_id: str) -> Repo:
        """Return the repo's record; raises RepoNotFound."""
        return self.files(repo_type, repo_id).repo()

    def has_repo(self, repo_type: RepoType | str, repo_id: str) -> bool:
        return self._find(repo_type, repo_id) is not None

    def repos(self, repo_type: RepoType | str) -> Iterator[Repo]:
        root = self.folder / RepoType(repo_type).plural
        for path in sorted(root.glob("*/*/repo.json")):
            yield RepoFiles(path.parent).repo()

    def create_repo(
        self,
        repo_type: RepoType | str,
        repo_id: str,
        private: bool = False,
        gated: bool | str = False,
        *,
        creator: str = "",
    ) -> Repo:
        """Make a repo with a first commit, as the Hub does; raises Conflict when it exists."""
        check_repo_id(repo_id)
        kind = RepoType(repo_type)
        gate: str | bool = "auto" if gated is True else gated
        repo = Repo(
            kind, repo_id, private=private, gated=gate, created_at=now_iso(), creator=creator
        )
        with locked(self.folder / ".lock"):
            if self.has_repo(kind, repo_id):
                raise Conflict(f"You already created this {kind.value} repo: {repo_id}")
            files = RepoFiles(self._folder(kind, repo_id))
            sha256 = files.blobs.add([FIRST_ATTRIBUTES.encode()])
            first = {ATTRIBUTES: file_entry(files.blobs.path(sha256), sha256, lfs=False)}
            files.add_commit(MAIN, lambda tree: tree.update(first), title="initial commit")
            files.save_repo(repo)  # last: a repo without it does not exist
            self._moves.forget(kind, repo_id)
        return repo

    def move_repo(self, repo_type: RepoType | str, old: str, new: str) -> None:
        """Rename a repo; from now on the old name leads to the new one.

        Raises RepoNotFound, BadRequest for a bad name, Conflict when the new one is taken.
        """
        kind = RepoType(repo_type)
        check_repo_id(new)
        with locked(self.folder / ".lock"):
            files = self.files(kind, old)
            repo, target = files.repo(), self._folder(kind, new)
            if self.has_repo(kind, new):
                raise Conflict(f"A {kind.value} repository called {new} already exists")
            target.parent.mkdir(parents=True, exist_ok=True)
            files.folder.rename(target)
            RepoFiles(target).save_repo(replace(repo, id=new))
            self._moves.add(kind, repo.id, new)

    def moved_to(self, repo_type: RepoType | str, repo_id: str) -> str | None:
        """Return the name that a renamed repo has now, None for one that was not renamed."""
        return self._moves.find(RepoType(repo_type), repo_id)

    def update_repo(
        self,
        repo_type: RepoType | str,
        repo_id: str,
        *,
        private: bool | None = None,
        gated: bool | str | None = None,
        granted: tuple[str, ...] | None = None,
    ) -> Repo:
        """Change what is given of a repo's record; raises RepoNotFound."""
        files = self.files(repo_type, repo_id)
        with files.lock():
            repo = files.repo()
            repo = replace(
                repo,
                private=repo.private if private is None else private,
                gated=repo.gated if gated is None else ("auto" if gated is True else gated),
                granted=repo.granted if granted is None else granted,
            )
            files.save_repo(repo)
        return repo

    def delete_repo(self, repo_type: RepoType | str, repo_id: str) -> None:
        """Remove a repo and all its content; raises RepoNotFound."""
        files = self.files(repo_type, repo_id)
        (files.folder / "repo.json").unlink()  # first: from here on it does not exist
        shutil.rmtree(files.folder)

    # Content

    def commit_folder(
        self,
        repo_type: RepoType | str,
        repo_id: str,
        folder: str | Path,
        message: str = "Upload folder",
        *,
        author: str = "hub",
    ) -> Commit:
        """Commit every file below a folder to main, over what is there; raises RepoNotFound."""
        files = self.files(repo_type, repo_id)
        root = Path(folder)
        attributes = files.text(files.commit(MAIN), ATTRIBUTES)
        added: dict[str, FileEntry] = {}
        for source in sorted(path for path in root.rglob("*") if path.is_file()):
            path = check_path(source.relative_to(root).as_posix())
            sha256 = files.blobs.add_file(source)
            lfs = is_lfs(attributes, path, source.stat().st_size)
            added[path] = file_entry(files.blobs.path(sha256), sha256, lfs=lfs)
        return files.add_commit(MAIN, lambda tree: tree.update(added), title=message, author=author)

    def set_ref(
        self, repo_type: RepoType | str, repo_id: str, kind: str, name: str, revision: str
    ) -> None:
        """Make a branch or tag (`kind` is "branches" or "tags").

        Raises RevisionNotFound, Conflict when the name is taken, BadRequest for a bad name.
        """
        files = self.files(repo_type, repo_id)
        with files.lock():
            refs, sha = files.refs(), files.resolve(revision)
            check_ref(name)
            if name in (refs.branches if kind == "branches" else refs.tags):
                ref = f"refs/{'heads' if kind == 'branches' else 'tags'}/{name}"
                raise Conflict(f"Reference {ref} already exists")
            files.save_refs(_with_ref(refs, kind, name, sha))

    def delete_ref(self, repo_type: RepoType | str, repo_id: str, kind: str, name: str) -> None:
        """Remove a branch or tag; raises RevisionNotFound, and BadRequest for main."""
        files = self.files(repo_type, repo_id)
        if kind == "branches" and name == MAIN:
            raise BadRequest("Cannot delete refs/heads/main")
        with files.lock():
            refs = files.refs()
            if name not in (refs.branches if kind == "branches" else refs.tags):
                raise RevisionNotFound(f"Invalid rev id: {name}")
            files.save_refs(_with_ref(refs, kind, name, None))

    def _find(self, repo_type: RepoType | str, repo_id: str) -> Path | None:
        """Return the folder of a repo whose name may be written in any case, None without one."""
        try:
            folder = self._folder(repo_type, check_repo_id(repo_id))
        except BadRequest:
            return None
        if (folder / "repo.json").is_file():
            return folder
        wanted = repo_id.lower().split("/")
        found = folder.parent.parent.glob("*/*/repo.json")
        return next(
            (p.parent for p in found if [part.lower() for part in p.parts[-3:-1]] == wanted), None
        )

    def _folder(self, repo_type: RepoType | str, repo_id: str) -> Path:
        return self.folder / RepoType(repo_type).plural / repo_id


def _with_ref(refs: Refs, kind: str, name: str, sha: str | None) -> Refs:
    old = refs.branches if kind == "branches" else refs.tags
    new = {key: value for key, value in old.items() if key != name}
    if sha is not None:
        new[name] = sha
    return replace(refs, branches=new) if kind == "branches" else replace(refs, tags=new)
