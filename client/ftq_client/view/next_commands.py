"""What to type next once a job has ended: commands that work as they are printed."""

import re
import shlex

from ftq_client.view.lines import shown
from ftq_client.view.model import JobView
from ftq_shared.errors import Exit
from ftq_shared.events import Data
from ftq_shared.states import JobState

# The setting that an error is about, where the error does not name it.
_FIELDS = {"no_such_model": "model", "no_such_dataset": "dataset"}
# What is near is a value of `dataset` with a config; older jobs name the config alone.
_OF_CONFIGS = ("config_missing", "no_such_config")
# What mends a job whose error names no value.
_FIXES = {"too_slow_on_cpu": "resources.gpus=0"}
# What another token may mend, and nothing in the spec.
_ACCESS = ("no_token", "bad_token", "gated", "access", "no_write_access")
# What the person's own files have to be mended for; the job's spec can stay.
_FILES = (
    *("bad_row", "bad_file", "bad_encoding", "broken_file", "empty_dataset"),
    *("unreadable_file", "input_lost"),
)
# Of these the rows tell why, at the step that the hint names.
_DIVERGED = ("diverged", "nonfinite_loss")
_SPIKE = re.compile(r"ftq replay JOB --step (\d+)")
# Never proposed: it replaces what somebody else has made.
_DANGEROUS = ("publish.overwrite",)
# `--set a=b --set c=d` in a hint; a value that a shell would read otherwise is no part of it.
_SETS = re.compile(r"--set [a-z_.]+=[\w./:@+-]+(?: --set [a-z_.]+=[\w./:@+-]+)*(?=[\s`,;)]|$)")
# `--dataset org/name:config`: the same as --set dataset=...
_FLAG = re.compile(r"--(model|dataset) ([A-Za-z0-9][\w./:@+-]*)(?=[\s`,;)]|$)")
_BARE = re.compile(
    r"\bftq (retry|replay|tail|fetch|cancel|show)(?: JOB\b)?(?=[`.,;:)]|$| (?!ft-|JOB\b))"
)


def next_commands(view: JobView) -> list[str]:
    """Return what to type next, ready to be copied; nothing for a job that has not ended."""
    job = shown(view.job)
    match view.state:
        case JobState.SUCCEEDED if view.replayed:
            return _after_replay(view.replayed, job)
        case JobState.SUCCEEDED:
            return [f"ftq fetch {job}"]
        case JobState.CANCELLED:
            return [f"ftq retry {job}"]
        case JobState.FAILED:
            return [*_after_failure(view.error, job), f"ftq show {job}"]
        case _:
            return []


def _after_replay(data: Data, replay: str) -> list[str]:
    """Return how its rows are written down, and left out of a job that can be retried."""
    of, step = shown(data.get("job")), shown(data.get("step"))
    file = f"{of}-step-{step}.jsonl"
    write = f"ftq replay {replay} --rows-out {file}"
    if data.get("ended") == JobState.SUCCEEDED:
        return [write, f"ftq submit --from {of}"]
    return [write, f"ftq retry {of} --without-rows {file}"]


def _after_failure(error: Data, job: str) -> list[str]:
    code = str(error.get("code"))
    if code in _DIVERGED and (step := _SPIKE.search(str(error.get("hint") or ""))):
        return [f"ftq replay {job} --step {step[1]}"]
    if fix := _fix(error, code):
        return [f"ftq retry {job} {fix}"]
    if code in _ACCESS:
        return [f"ftq retry {job} --token-stdin"]
    if code in _FILES:
        return [f"ftq submit --from {job}"]
    # What validation has refused, it would refuse again; then the hint says what to do.
    return [] if error.get("exit_code") == Exit.REFUSED else [f"ftq retry {job}"]


def _fix(error: Data, code: str) -> str:
    """Return the --set that would mend the job, empty where the error names none."""
    field, hint = _FIELDS.get(code, error.get("field")), str(error.get("hint") or "")
    nearest = error.get("nearest")
    if isinstance(field, str) and isinstance(nearest, list):
        known = [str(name) for name in nearest if re.fullmatch(r"[a-z_.]+", field)]
        if code in _OF_CONFIGS:
            known = [name for name in known if ":" in name]
        if known:  # the hint says which one is meant
            told = [name for name in known if f"{field}={name}" in hint]
            return f"--set {field}={shlex.quote(shown(max(told, key=len, default=known[0])))}"
    if flag := _FLAG.search(hint):
        return f"--set {flag[1]}={flag[2]}"
    for found in _SETS.findall(hint):
        # A word in capitals, or of dots, stands for another.
        values = re.findall(r"=(\S+)", found)
        if all(re.search("[a-z0-9]", v) for v in values) and not _is_dangerous(found):
            return str(found)
    return f"--set {_FIXES[code]}" if code in _FIXES else ""


def _is_dangerous(sets: str) -> bool:
    return any(f"--set {name}=" in sets for name in _DANGEROUS)


def with_job(text: str, job: str) -> str:
    """Return a hint with the job's id in each command that needs one: it can then be copied."""
    return _BARE.sub(lambda bare: f"ftq {bare[1]} {shown(job)}", text)
