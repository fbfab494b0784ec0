"""What may not be called is not called: a canary on every address of this machine sees nobody."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from jobyard.outgoing import AddressRefused, Answer, Client, InvalidAddress, OutgoingError, Request
from jobyard.outgoing.guard import Address
from web_server import Canary, always, answer, canary, web_server

EVERYWHERE = [ip_network("0.0.0.0/0"), ip_network("::/0")]
SERVER_ONLY = [ip_network("127.0.0.2/32")]

# Spellings of this machine, all of which reach the canary once they are allowed.
THIS_MACHINE = [
    "http://127.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}",
    "http://127.0.0.1:0{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.255.255.254:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0X7F000001:{port}/",
    "http://0x7f.0x0.0x0.0x1:{port}/",
    "http://0177.1:{port}/",
    "http://017700000001:{port}/",
    "http://0x7f.1:{port}/",
    "http://0:{port}/",
    "http://0.0.0.0:{port}/",
    "http://localhost:{port}/",
    "http://LocalHost:{port}/",
    "http://127\N{IDEOGRAPHIC FULL STOP}0\N{IDEOGRAPHIC FULL STOP}0\N{IDEOGRAPHIC FULL STOP}1:{port}/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}?@example.com/",
    "http://127.0.0.1:{port}/@example.com/",
]
THIS_MACHINE_BY_IPV6 = [
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[0000::0.0.0.1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::FFFF:7f00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[::]:{port}/",
]
NOT_PUBLIC = [
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.169.254:{port}/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::127.0.0.1]:{port}/",
    "http://[::7f00:1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b:1::7f00:1]:{port}/",
    "http://[2002:7f00:1::]:{port}/",
    "http://[2001:0:7f00:1::]:{port}/",
    "http://[fe80::1]:{port}/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]:{port}/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "https://127.0.0.1:{port}/",
    "https://[::1]:{port}/",
]
NO_ADDRESS = [
    "",
    "127.0.0.1",
    "localhost:{port}",
    "//127.0.0.1:{port}/",
    "http:",
    "http://",
    "http:127.0.0.1:{port}",
    "http:///127.0.0.1:{port}/",
    "http://:{port}/",
    "file:///etc/passwd",
    "file://127.0.0.1:{port}/",
    "gopher://127.0.0.1:{port}/_GET",
    "dict://127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/",
    "ws://127.0.0.1:{port}/",
    "unix:///run/docker.sock",
    "http+unix://%2Frun%2Fdocker.sock/",
    "jar:http://127.0.0.1:{port}/!/",
    "http://user@127.0.0.1:{port}/",
    "http://user:password@127.0.0.1:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@example.com/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\.example.com/",
    "http:\\\\127.0.0.1:{port}\\",
    "http://0177.0.0.1:{port}/",
    "http://127.0.0.1%2f@example.com/",
    "http://127.0.0.1%00.example.com:{port}/",
    "http://127.0.0.1%0d%0a:{port}/",
    "http://127.0.0.1%2e:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://127.0.0.1 :{port}/",
    " http://127.0.0.1:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1:{port}/\r\nX-Injected: 1",
    "http://127.0.0.1:{port}/ HTTP/1.1\nHost: x",
    "http://\N{CIRCLED DIGIT ONE}\N{CIRCLED DIGIT TWO}\N{CIRCLED DIGIT SEVEN}.0.0.1:{port}/",
    "http://\N{FULLWIDTH DIGIT ONE}27.0.0.1:{port}/",
    "http://\N{ARABIC-INDIC DIGIT ONE}27.0.0.1:{port}/",
    "http://\N{CIRCLED LATIN SMALL LETTER L}ocalhost:{port}/",
    "http://local\N{SOFT HYPHEN}host:{port}/",
    "http://loc\N{LATIN SMALL LETTER A}\N{ZERO WIDTH JOINER}lhost:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://[fe80::1%25eth0]:{port}/",
    "http://[::1]x:{port}/",
    "http://[::1:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://[v1.127.0.0.1]:{port}/",
    "http://127.0.0.1:{port}:80/",
    "http://127.0.0.1:-1/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:65536/",
    "http://127.0.0.1:http/",
    "http://127.0.0.1,example.com:{port}/",
    "http://" + "a" * 254 + "/",
    "http://127.0.0.1/" + "a" * 70_000,
]


@pytest.fixture
def watched() -> Iterator[Canary]:
    with canary() as watched:
        yield watched


async def call(client: Client, url: str) -> Answer:
    return await client.send(Request("GET", url), seconds=5, max_body_bytes=1000)


@pytest.mark.parametrize("url", THIS_MACHINE + THIS_MACHINE_BY_IPV6 + NOT_PUBLIC)
async def test_an_address_that_is_not_public_is_refused_in_every_spelling(watched: Canary, url: str) -> None:
    with pytest.raises(AddressRefused, match=r"is not a public address \(.+\)") as refused:
        await call(Client(), url.format(port=watched.port))
    assert watched.visitors() == 0
    advised = "; JOBYARD_OUTBOUND_ALLOW=" in str(refused.value)
    assert advised is not ("(cloud metadata)" in str(refused.value)), "nobody is advised to open that to jobs"


@pytest.mark.parametrize("url", THIS_MACHINE)
async def test_the_spellings_lead_to_this_machine_once_they_are_allowed(url: str) -> None:
    async with web_server(always(answer()), host="0.0.0.0") as server:
        assert (await call(Client(EVERYWHERE), url.format(port=server.port))).status == 200


@pytest.mark.parametrize("allow", [[], EVERYWHERE], ids=["as it is", "with everything allowed"])
@pytest.mark.parametrize("url", NO_ADDRESS)
async def test_what_is_no_plain_http_address_is_refused_whatever_is_allowed(
    watched: Canary, url: str, allow
) -> None:
    with pytest.raises(InvalidAddress):
        await call(Client(allow), url.format(port=watched.port))
    assert watched.visitors() == 0


async def test_a_name_with_a_dot_at_its_end_is_judged_like_any_other(watched: Canary) -> None:
    with pytest.raises(OutgoingError):  # where the resolver does not know it there is nothing to refuse
        await call(Client(), f"http://localhost.:{watched.port}/")
    assert watched.visitors() == 0


@pytest.mark.parametrize("answers", [["93.184.216.34", "127.0.0.1"], ["127.0.0.1", "93.184.216.34"], ["::1"]])
async def test_a_name_with_one_private_address_among_others_is_refused(
    watched: Canary, answers: list[str]
) -> None:
    async def look_up(host: str) -> list[Address]:
        return [ip_address(answer) for answer in answers]

    with pytest.raises(AddressRefused, match=r"^http://two\.example:\d+ is refused: (127\.0\.0\.1|::1) "):
        await call(Client(look_up=look_up), f"http://two.example:{watched.port}/")
    assert watched.visitors() == 0


async def test_a_name_that_turns_private_after_the_check_leads_where_the_check_was(watched: Canary) -> None:
    """The canary has the port on 127.0.0.1; the server that was judged has a port of its own on 127.0.0.2."""
    looked_up: list[str] = []

    async def look_up(host: str) -> list[Address]:
        looked_up.append(host)
        return [ip_address("127.0.0.2" if len(looked_up) == 1 else "127.0.0.1")]

    async with web_server(always(answer(200, b"judged")), host="127.0.0.2") as server:
        client = Client(SERVER_ONLY, look_up)
        assert (await call(client, f"http://turns.example:{server.port}/")).body == b"judged"
        assert looked_up == ["turns.example"]
        with pytest.raises(AddressRefused):
            await call(client, f"http://turns.example:{server.port}/")
    assert server.requests[0].header("Host") == f"turns.example:{server.port}"
    assert watched.visitors() == 0


async def test_no_name_reaches_the_systems_resolver_after_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    async def look_up(host: str) -> list[Address]:
        return [ip_address("127.0.0.2")]

    def resolve_again(host, *rest, **more):
        raise AssertionError(f"{host} was looked up again")

    async with web_server(always(answer(200, b"judged")), host="127.0.0.2") as server:
        monkeypatch.setattr(socket, "getaddrinfo", resolve_again)
        assert (
            await call(Client(SERVER_ONLY, look_up), f"http://turns.example:{server.port}/")
        ).status == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_not_followed(watched: Canary, status: int) -> None:
    inside = f"Location: http://127.0.0.1:{watched.port}/"
    async with web_server(
        always(answer(status, b"", inside, "Refresh: 0; url=/")), host="127.0.0.2"
    ) as server:
        answered = await call(Client(EVERYWHERE), server.url)
    assert (answered.status, len(server.requests)) == (status, 1)
    assert watched.visitors() == 0


async def test_the_proxies_of_the_environment_are_ignored(
    watched: Canary, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{watched.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with web_server(always(answer(200, b"direct")), host="127.0.0.2") as server:
        assert (await call(Client(SERVER_ONLY), server.url)).body == b"direct"
    with pytest.raises(AddressRefused):
        await call(Client(), "http://10.0.0.1/")
    assert watched.visitors() == 0
