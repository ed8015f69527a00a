"""May the result be pushed to where the spec says?"""

from ftq_shared.errors import target_taken
from ftq_shared.hub import HubClient, RepoState
from ftq_shared.spec import JobSpec

_WORDS = {
    RepoState.ABSENT: "will be made",
    RepoState.EMPTY: "exists and is empty",
    RepoState.OURS: "holds an earlier result of ftq, which is replaced",
}


def check_target(hub: HubClient, spec: JobSpec) -> tuple[str, str]:
    """Return the target's full id.

    Raises Refused: `no_token`, `bad_token`, `no_write_access`, `target_taken`.
    """
    assert spec.publish.repo is not None
    repo = hub.write_access(spec.publish.repo)
    state = hub.repo_state(repo)
    if state is not RepoState.OTHER:
        return repo, f"{repo} can be written and {_WORDS[state]}"
    if spec.publish.overwrite:
        return repo, f"{repo} can be written; what it holds is replaced (publish.overwrite)"
    raise target_taken(repo)
