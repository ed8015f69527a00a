"""Every Redis key and channel, its owner and its time to live.

owned by a job (deleted or given a time to live at its end): job, events, kept, secret, inputs
owned by the fleet (bounded by its size): jobs, queue, leases, hosts, host, queues,
                        fleet, inputs
expiring by themselves: submit, dirty, lock, inputs before the submit
"""

import secrets

JOBS = "ftq:jobs"  # sorted set: job id by time of submit (ms)
QUEUE = "ftq:queue"  # sorted set: queued job id by priority and time
LEASES = "ftq:leases"  # set: ids of placed and running jobs
CONTROL = "ftq:control"  # channel: what every agent should hear at once, such as a cancel
HOSTS = "ftq:hosts"  # set: names of hosts
QUEUES = "ftq:queues"  # sorted set: Celery queue of a host instance by its last heartbeat (ms)
FLEET = "ftq:fleet"  # hash: the fleet's public key
INPUT_SIZES = "ftq:inputs"  # sorted set: job id by the bytes of its inputs that the broker holds
DISPATCH_REQUESTED = "ftq:dirty"  # string: a dispatch pass has been asked for

DISPATCH_QUEUE = "ftq"  # Celery queue of `ftq.dispatch`


def job(job_id: str) -> str:
    """Hash: the job record."""
    return f"ftq:job:{job_id}"


def events(job_id: str) -> str:
    """Stream: the newest events, ids `<seq>-0`."""
    return f"ftq:events:{job_id}"


def kept(job_id: str) -> str:
    """Stream: milestones and a thinned series, for readers that come late."""
    return f"ftq:kept:{job_id}"


def live(job_id: str) -> str:
    """Channel: events as they happen."""
    return f"ftq:live:{job_id}"


def secret(job_id: str) -> str:
    """String: the sealed box with the job's secrets."""
    return f"ftq:secret:{job_id}"


def inputs(job_id: str) -> str:
    """Hash: chunks of the client's own files, by their SHA-256."""
    return f"ftq:inputs:{job_id}"


def relay(nonce: str) -> str:
    """List: pieces of a folder on their way to a client."""
    return f"ftq:relay:{nonce}"


def relay_taken(nonce: str) -> str:
    """String: a host has taken on the relay."""
    return f"ftq:relay:{nonce}:taken"


def lock(what: str) -> str:
    """String: the job and token that hold a lock of the fleet, such as that of a Hub repo."""
    return f"ftq:lock:{what}"


def submit(client_key: str) -> str:
    """String: the job that a submit with this key made."""
    return f"ftq:submit:{client_key}"


def host(name: str) -> str:
    """Hash: a host's record."""
    return f"ftq:host:{name}"


def host_queue(name: str, instance: str) -> str:
    """Celery queue of one host instance."""
    return f"ftq.host.{name}.{instance}"


def kombu_keys(queue: str) -> list[str]:
    """All that kombu keeps for a queue: its bindings, and one list per priority step."""
    steps = [queue, *(f"{queue}\x06\x16{step}" for step in (3, 6, 9))]
    return [f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queue}", *steps]


_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"  # base32, lower case: no 0/o, 1/l


def is_job_id(text: str) -> bool:
    """Return whether `text` has the form of a job id: it becomes part of paths."""
    tail = text.removeprefix("ft-")
    return text.startswith("ft-") and len(tail) == 8 and set(tail) <= set(_ALPHABET)


def new_job_id() -> str:
    """Return a fresh job id, `ft-` and 8 characters (40 bits)."""
    return "ft-" + "".join(secrets.choice(_ALPHABET) for _ in range(8))
