"""The local Hub: a small server that speaks the Hub's protocol to the real Hub clients.

It serves models and datasets from plain files, so that a demo, a test or a machine without
internet can submit, train and publish with the unmodified huggingface_hub and datasets.

    python -m ftq_worker.hub_server --port 0 --dir ./hub --token hf_me=me:write

Downloads carry no xet header, so they are plain HTTP with ranges. Uploads of large files come
by LFS, or by xet from clients that have hf_xet (they do not ask what the server prefers).
"""

from ftq_worker.hub_server.app import HubApp
from ftq_worker.hub_server.errors import HubError
from ftq_worker.hub_server.faults import Fault, FaultBoard
from ftq_worker.hub_server.records import RepoType
from ftq_worker.hub_server.serve import running
from ftq_worker.hub_server.store import HubStore

__all__ = ["Fault", "FaultBoard", "HubApp", "HubError", "HubStore", "RepoType", "running"]
