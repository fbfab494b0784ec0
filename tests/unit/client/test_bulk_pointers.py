"""What is wrong with an item is told with its place in the item."""

from jobyard.client import bulk
from jobyard.client.shapes import Fault, Problem


def test_the_pointer_of_a_refused_item_starts_at_the_item() -> None:
    faults = [Fault(pointer="/jobs/312/payload/to"), Fault(pointer="/jobs/312"), Fault(pointer="/jobsite")]
    item = bulk.BulkItem(problem=Problem(code="validation_failed", errors=faults))
    refused = item.outcome()
    assert [fault.pointer for fault in refused.problem.errors] == ["/payload/to", "", "/jobsite"]  # type: ignore[union-attr] - it is refused
