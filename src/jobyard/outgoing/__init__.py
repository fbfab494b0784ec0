"""The one guarded HTTP client: whatever leaves Jobyard leaves through it, and none of it reaches private addresses."""

from jobyard.outgoing.client import Answer, Client, Request
from jobyard.outgoing.errors import AddressRefused, InvalidAddress, OutgoingError, Unanswered

__all__ = [
    "AddressRefused",
    "Answer",
    "Client",
    "InvalidAddress",
    "OutgoingError",
    "Request",
    "Unanswered",
]
