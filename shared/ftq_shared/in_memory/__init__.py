"""The broker without a server: `MemoryStore` and `MemoryHosts`, for tests.

They have the methods, arguments and answers of `JobStore` and `HostStore`, and the same record and
events after every call: a test holds them against the Lua scripts, in random histories. Calls are
atomic, may be repeated, and may come from several threads.

    store = MemoryStore()
    hosts = MemoryHosts(store.broker)
    store.broker.down = ConnectionError("away")

Not promised: anything that has a time to live expires (a lock, a host's record, a repeated submit),
limits of memory and of a stream's length, damaged records, channels and Celery queues. A client may
take every lease. There is no `redis` attribute.
"""

from ftq_shared.in_memory.broker import MemoryBroker
from ftq_shared.in_memory.hosts import MemoryHosts
from ftq_shared.in_memory.store import MemoryStore

__all__ = ["MemoryBroker", "MemoryHosts", "MemoryStore"]
