"""Bodies that try to cost more than they say."""

from __future__ import annotations

import pytest

from api.site import JSON, Site
from jobyard.api import bodies


@pytest.mark.parametrize("path", ["/api/jobs", "/api/jobs/bulk"])
async def test_a_body_in_another_encoding_is_no_json_however_deep_it_is(site: Site, path: str):
    # Valid UTF-8, too, in which its brackets stand inside of a string.
    body = ('["\u2241",' + "[" * 50_000).encode("utf-16-le")
    answer = await site.post(body, path, **JSON)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["code"] in ("malformed_json", "validation_failed")


async def test_a_job_of_a_bulk_that_is_larger_than_a_job_may_be_is_refused_unread(
    site: Site, monkeypatch: pytest.MonkeyPatch
):
    looked_at: list[int] = []
    decode = bodies.decode

    def decode_noted(decoder: object, body: bytes) -> object:
        looked_at.append(len(memoryview(body)))
        return decode(decoder, body)  # type: ignore[arg-type, type-var] - passed on as it came

    monkeypatch.setattr(bodies, "decode", decode_noted)
    large = b'{"type":"email","payload":[' + b"[]," * 1_000_000 + b"1]}"
    answer = await site.post(b'{"jobs":[' + large + b',{"type":"email"}]}', "/api/jobs/bulk", **JSON)
    refused, taken = answer.json()["items"]
    assert refused["problem"]["code"] == "too_large"
    assert taken["status"] == "pending"
    assert max(looked_at) < 1000


def test_depth_is_found_in_passes_over_the_whole_and_not_bracket_by_bracket():
    for depth in (1, 63, 64, 65, 200):
        nested = b"[" * depth + b"]" * depth
        mixed = b'{"a":' * depth + b"[1,2]" + b"}" * depth
        assert bodies._depth_exceeds(nested, 64) == (depth > 64)
        assert bodies._depth_exceeds(mixed, 64) == (depth + 1 > 64)
    assert not bodies._depth_exceeds(b"[" + b"[]," * 100_000 + b"[]]", 64)
    assert bodies._depth_exceeds(b"[" * 65, 64)
    assert not bodies._depth_exceeds(b"]" * 1000, 64)
