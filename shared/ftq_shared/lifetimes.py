"""How long things live: leases, hosts, what is kept of a job; and how much the broker may hold.

The Lua scripts and the documentation take these from here.
"""

# Times are seconds.
LEASE_S = 30.0  # a lease that was not renewed for so long may be reaped
RENEW_S = 5.0  # between two renewals of a lease
PAUSE_S = 18.0  # a child without a renewal pauses at its next step boundary
CHILD_S = 25.0  # a child without a renewal is ended by the kernel's timer
CLAIM_S = 20.0  # a placed phase that nobody claims goes back to the queue
BEAT_S = 3.0  # between two heartbeats of a host
HOST_LOST_S = 15.0  # a host without a heartbeat for so long gets no work
HOST_TTL_S = 86_400  # the record of a host that is gone
JOB_TTL_S = 30 * 86_400  # record and milestones of a job after its end
EVENTS_TTL_S = 86_400  # all its events after its end
LOCK_TTL_S = 86_400  # at the latest: a lock is released with the token that took it
SUBMIT_TTL_S = 86_400  # how long a repeated submit is recognised
DISPATCH_TTL_S = 10  # a dispatch message that got lost is sent again after this
PASS_S = 10.0  # a worker that dies in a dispatch pass keeps others from one for so long
INPUTS_TTL_S = 3_600  # chunks whose submit never came
SECRET_TTL_S = 30 * 86_400  # at the latest: the end of the job deletes it

# What a host keeps of a job in its storage, counted from the job's end.
KEEP_WORK_S = 86_400.0  # inputs, prepared sets and checkpoints of one that succeeded
KEEP_ENDED_S = 7 * 86_400.0  # all of one that failed or was cancelled
KEEP_ENDED_SHORT_OF_ROOM_S = 86_400.0  # the same, where there is little room
# All of one whose model is on the Hub; short of room, of any. Before its record goes: a folder
# without a record is left alone.
KEEP_PUBLISHED_S = 28 * 86_400.0
LITTLE_ROOM = 0.1  # share of the storage's disk that should be free

SPEC_MAX_BYTES = 256 << 10  # of a spec with all defaults filled in
INPUT_CHUNK = 2**20  # bytes of one chunk of a client's file
INPUT_JOB_MAX = 64 * 2**20  # bytes that one job may send through the broker
INPUT_TOTAL_MAX = 2**30  # bytes that all jobs together may hold there

EVENTS_EXACT = 20_000  # newest events of a job that are held one by one
MILESTONES_KEPT = 5_000  # newest milestones of a job
