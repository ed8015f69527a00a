"""Every Redis key and channel, its owner and its time to live.

owned by a job (deleted or given a time to live at its end): job, events, kept, secret, inputs
owned by the fleet (bounded by its size): jobs, queue, leases, places, cards, hosts, host, queues,
                        fleet, inputs
expiring by themselves: submit, dirty, dispatcher, lock, inputs before the submit
"""

import re
import secrets
from collections.abc import Callable

JOBS = "ftq:jobs"  # sorted set: job id by time of submit (ms)
QUEUE = "ftq:queue"  # sorted set: queued job id by priority and time
LEASES = "ftq:leases"  # set: ids of placed and running jobs
PLACES = "ftq:places"  # hash: the host of each lease; an index of the records, as the next two
CARDS = "ftq:cards"  # hash: the lease of each card, by the card's UUID
CONTROL = "ftq:control"  # channel: what every agent should hear at once, such as a cancel
HOSTS = "ftq:hosts"  # set: names of hosts
QUEUES = "ftq:queues"  # sorted set: Celery queue of a host instance by its last heartbeat (ms)
FLEET = "ftq:fleet"  # hash: the fleet's public key
INPUT_SIZES = "ftq:inputs"  # sorted set: job id by the bytes of its inputs that the broker holds
DISPATCH_REQUESTED = "ftq:dirty"  # string: a dispatch pass has been asked for
DISPATCHER = "ftq:dispatcher"  # string: who makes dispatch passes now

DISPATCH_QUEUE = "ftq"  # Celery queue of `ftq.dispatch`


def _key(form: str) -> Callable[[str], str]:
    return form.format


job = _key("ftq:job:{}")  # hash: the job record
events = _key("ftq:events:{}")  # stream: the newest events of a job, ids `<seq>-0`
kept = _key("ftq:kept:{}")  # stream: milestones and a thinned series, for readers that come late
live = _key("ftq:live:{}")  # channel: events as they happen
secret = _key("ftq:secret:{}")  # string: the sealed box with the job's secrets
inputs = _key("ftq:inputs:{}")  # hash: chunks of the client's own files, by their SHA-256
relay = _key("ftq:relay:{}")  # list: pieces of a folder on their way to a client, by its nonce
relay_taken = _key("ftq:relay:{}:taken")  # string: a host has taken on the relay
lock = _key("ftq:lock:{}")  # string: the job and token that hold a lock, such as that of a Hub repo
submit = _key("ftq:submit:{}")  # string: the job that a submit with this client key made
host = _key("ftq:host:{}")  # hash: a host's record
places = _key("ftq:places:{}")  # set: the leases of a host


def host_queue(name: str, instance: str) -> str:
    """Celery queue of one host instance."""
    return f"ftq.host.{name}.{instance}"


def host_of(queue: str) -> str:
    """Return the name of the host whose Celery queue this is, '' for another queue."""
    name, _, _ = queue.removeprefix("ftq.host.").rpartition(".")
    return name if is_name(name) else ""


def kombu_keys(queue: str) -> list[str]:
    """All that kombu keeps for a queue: its bindings, and one list per priority step."""
    steps = [queue, *(f"{queue}\x06\x16{step}" for step in (3, 6, 9))]
    return [f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queue}", *steps]


_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"  # base32, lower case: no 0/o, 1/l

# What the broker says becomes part of paths, keys, queues and environments: only these forms do.
_JOB_ID = re.compile(r"ft-[a-z0-9]{8}", re.ASCII)  # lib.lua asks for the same
_TOKEN = re.compile(r"[0-9]{1,15}:[A-Za-z0-9]{1,64}", re.ASCII)
_NAME = re.compile(r"[^\W_][\w.-]{0,62}")
_CARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_-]{0,95}", re.ASCII)  # MIG-GPU-.../1/0 among them


def is_job_id(text: str) -> bool:
    """Return whether `text` has the form of a job id."""
    return _JOB_ID.fullmatch(text) is not None


def begins_job_id(text: str) -> bool:
    """Return whether a job id could begin with `text`."""
    return re.fullmatch(r"ft-[a-z0-9]{0,8}", text, re.ASCII) is not None


def is_token(text: str) -> bool:
    """Return whether `text` is a token: its number, a colon, random letters."""
    return _TOKEN.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Return whether `text` can name a host, an instance, a storage or a claim's nonce."""
    return _NAME.fullmatch(text) is not None


def is_card(text: str) -> bool:
    """Return whether `text` can be a GPU's UUID or index in CUDA_VISIBLE_DEVICES."""
    return _CARD.fullmatch(text) is not None


def new_job_id() -> str:
    """Return a fresh job id, `ft-` and 8 characters (40 bits)."""
    return "ft-" + "".join(secrets.choice(_ALPHABET) for _ in range(8))
