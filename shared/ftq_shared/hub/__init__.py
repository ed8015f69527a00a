"""Look-ups on a Hub: repos, searches, access, what a dataset consists of."""

from ftq_shared.hub.client import HubClient
from ftq_shared.hub.layout import Layout, Split, layout
from ftq_shared.hub.records import Identity, Kind, RepoRecord, RepoState, SearchHit
from ftq_shared.hub.transport import Retry

__all__ = [
    "HubClient",
    "Identity",
    "Kind",
    "Layout",
    "RepoRecord",
    "RepoState",
    "Retry",
    "SearchHit",
    "Split",
    "layout",
]
