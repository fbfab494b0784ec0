"""Dead letters, dealt with a page a request until all that are meant, or as many as may be, are done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jobyard.client.shapes import Dealt
from jobyard.client.transport import Transport
from jobyard.client.wire import encode

LARGEST_PAGE = 1_000
HEADERS = {"Content-Type": "application/json"}


def deal(
    transport: Transport, method: str, path: str, asked: Mapping[str, Any], limit: int | None
) -> Iterator[bytes]:
    """The answers as they come. Only a preview is sent again when an answer was lost: what is done again meets others."""
    left, token = limit, None
    while True:
        page = LARGEST_PAGE if left is None else min(left, LARGEST_PAGE)
        response = transport.send(
            method,
            path,
            repeatable=asked["dryRun"],
            content=encode({**asked, "limit": page, "pageToken": token}),
            headers=HEADERS,
        )
        dealt = transport.read(response, Dealt)
        yield response.content
        token = dealt.next_page_token
        left = None if left is None else left - dealt.count
        if token is None or left == 0:
            return


def together(pages: Iterable[Dealt]) -> Dealt:
    """All pages as one. Takes all there are, so that nothing is left undone."""
    dry_run, jobs, count = False, list[str](), 0
    for page in pages:
        dry_run, count = page.dry_run, count + page.count
        jobs += page.jobs
    return Dealt(count=count, jobs=jobs, dry_run=dry_run)
