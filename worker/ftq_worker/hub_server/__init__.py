"""The local Hub: a small server that speaks the Hub's protocol to the real Hub clients.

It serves models and datasets from plain files, so that a demo, a test or a machine without
internet can submit, train and publish with the unmodified huggingface_hub and datasets.

    python -m ftq_worker.hub_server --port 0 --dir ./hub --token hf_me=me:write

No xet server stands behind it. Downloads carry no xet header, so they are plain HTTP. For an
upload the client alone decides: with `hf_xet` installed it ignores what the server offers for
large files, unless HF_HUB_DISABLE_XET=1 is set. So files up to `inline_limit` are asked for
inside the commit, which always works; larger ones go by LFS and need that variable.
"""

from ftq_worker.hub_server.app import HubApp
from ftq_worker.hub_server.errors import HubError
from ftq_worker.hub_server.faults import Fault, FaultBoard
from ftq_worker.hub_server.records import RepoType
from ftq_worker.hub_server.store import HubStore

__all__ = ["Fault", "FaultBoard", "HubApp", "HubError", "HubStore", "RepoType"]
