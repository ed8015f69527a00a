"""May the result be pushed to where the spec says, and does the Hub take its card?"""

import re
from collections.abc import Callable, Sequence

from ftq_shared.errors import target_taken
from ftq_shared.hub import HubClient, RepoState
from ftq_shared.spec import JobSpec
from ftq_worker.job.reports import ModelFacts

_WORDS = {
    RepoState.ABSENT: "will be made",
    RepoState.EMPTY: "exists and is empty",
    RepoState.OURS: "holds an earlier result of ftq, which is replaced",
}
# Files of which every push brings some; a repo's .gitignore must let them through.
_PUSHED = (
    "README.md",
    "model.safetensors",
    "adapter_model.safetensors",
    "config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


def check_target(hub: HubClient, spec: JobSpec) -> tuple[str, str]:
    """Return the target's full id.

    Raises Refused: `no_token`, `bad_token`, `no_write_access`, `files_ignored`, `target_taken`.
    """
    assert spec.publish.repo is not None
    repo = hub.write_access(spec.publish.repo)
    state = hub.repo_state(repo)
    if state is not RepoState.ABSENT and (left_out := hub.ignored(repo, _PUSHED)):
        raise hub.refusals.ignored(repo, left_out)
    if state is not RepoState.OTHER:
        return repo, f"{repo} can be written and {_WORDS[state]}"
    if spec.publish.overwrite:
        return repo, f"{repo} can be written; what it holds is replaced (publish.overwrite)"
    raise target_taken(repo)


def check_card(
    hub: HubClient, repo: str, card: Callable[[ModelFacts], str], model: ModelFacts
) -> tuple[ModelFacts, str]:
    """Return the model's facts with only the licence that the Hub takes in a card.

    Raises Refused (`card_refused`) for what is wrong beside the licence: at a push, after the
    training, the Hub would say the same.
    """
    faults = hub.card_faults(card(model))
    if faults is None:
        return model, "this Hub does not check model cards"
    if not faults:
        return model, "the Hub takes the model card's metadata"
    fewer = _without_refused_licence(model, faults)
    if fewer == model or (faults := hub.card_faults(card(fewer)) or []):
        raise hub.refusals.bad_card(repo, "; ".join(faults))
    return fewer, (
        f"the Hub does not take the licence that {model.name} states, {model.license}; the card "
        f"says {', '.join(fewer.licenses) or 'none'}"
    )


def _without_refused_licence(model: ModelFacts, faults: Sequence[str]) -> ModelFacts:
    """Return the facts without the parts of the licence that the faults name."""
    changes: dict[str, object] = {}
    for fault in faults:
        if re.match(r'"license(\W|$)', fault):
            allowed = re.search(r"one of \[(.*?)\]", fault, re.DOTALL)
            known = re.split(r"[\s,]+", allowed[1]) if allowed else []
            changes["licenses"] = [one for one in model.licenses if one in known]
        elif named := re.match(r'"(license_name|license_link)"', fault):
            changes[named[1]] = None
    return model.model_copy(update=changes)
