"""The local Hub: a small server that speaks the Hub's protocol to the real Hub clients.

It serves models and datasets from plain files, so that a demo, a test or a machine without
internet can submit, train and publish with the unmodified huggingface_hub and datasets. It
imports nothing else of ftq.

    python -m ftq_hub --port 0 --dir ./hub --token hf_me=me:write

Downloads carry no xet header, so they are plain HTTP with ranges. Uploads of large files come
by LFS, or by xet from clients that have hf_xet (they do not ask what the server prefers).
"""

from ftq_hub.app import HubApp
from ftq_hub.errors import HubError
from ftq_hub.faults import Fault, FaultBoard
from ftq_hub.records import RepoType
from ftq_hub.serve import Tls, running
from ftq_hub.store import HubStore

__all__ = ["Fault", "FaultBoard", "HubApp", "HubError", "HubStore", "RepoType", "Tls", "running"]
