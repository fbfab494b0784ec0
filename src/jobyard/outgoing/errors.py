"""How a request that leaves can fail.

    OutgoingError
     +-- InvalidAddress   it is no address that a request may be sent to
     +-- AddressRefused   it leads where no request may go
     `-- Unanswered       no whole answer came back; another attempt may succeed

Their words name scheme, host and port alone: user, path and query of an address may hold credentials, and so may what
a server says when it does not speak HTTP.
"""


class OutgoingError(Exception):
    """A request had no answer. The text is one sentence, and holds no credentials."""


class InvalidAddress(OutgoingError):
    """Not an http or https URL with a host that can be; the request was not sent."""


class AddressRefused(OutgoingError):
    """The guard refused the address behind the name, and nothing was connected."""


class Unanswered(OutgoingError):
    """No connection, no HTTP, an early end or the deadline. The server may have acted on the request all the same."""
