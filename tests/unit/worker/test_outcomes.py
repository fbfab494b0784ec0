"""What a handler's return value means."""

import msgspec

from jobyard.domain.lifecycle import Fail
from jobyard.worker.attempt import outcome_of


def test_a_result_that_only_the_encoder_can_read_is_refused_and_breaks_nothing() -> None:
    ended = outcome_of({"a": msgspec.Raw(b"null")}, 1 << 20)
    assert isinstance(ended, Fail)
    assert ended.type == "InvalidResult"
