"""The whole emulator, on ports of this machine."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio

from jobyard.process import StartError
from jobyard.pubsub_emulator import publisher, subscriber, web
from jobyard.pubsub_emulator.calls import Calls
from jobyard.pubsub_emulator.faults import Faults, Plan
from jobyard.pubsub_emulator.limits import REQUEST_BYTES
from jobyard.pubsub_emulator.pushing import Pushing
from jobyard.pubsub_emulator.registry import Registry
from jobyard.pubsub_emulator.tokens import TokenSigner
from jobyard.serving import served

OPTIONS = [
    # A request that is too large is refused by us, in the words of the service.
    ("grpc.max_receive_message_length", 2 * REQUEST_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
]
GRACE_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Emulator:
    """Where it can be found."""

    address: str
    http: str
    faults: Faults


@asynccontextmanager
async def emulator(
    host: str = "127.0.0.1", port: int = 0, http_port: int = 0, plan: Plan | None = None
) -> AsyncGenerator[Emulator]:
    """Runs while the context is open; port 0 takes any that is free. Raises StartError."""
    faults, signer = Faults(plan), TokenSigner()
    pushing = Pushing(signer, faults)
    server = _server(Registry(faults), pushing, faults)
    with _listening(host, http_port) as listening:
        address = _address(host, _bound(server, host, port))
        await server.start()
        try:
            async with served(web.app(signer, faults), listening):
                http = f"http://{_address(host, listening.getsockname()[1])}"
                yield Emulator(address, http, faults)
        finally:
            await server.stop(GRACE_SECONDS)
            await pushing.aclose()


def _server(registry: Registry, pushing: Pushing, faults: Faults) -> grpc.aio.Server:
    calls = Calls(faults)
    services = {
        publisher.SERVICE: publisher.Publisher(registry, pushing).handlers(calls),
        subscriber.SERVICE: subscriber.Subscriber(registry, pushing, faults).handlers(calls),
    }
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, handlers) for name, handlers in services.items()]
    )
    return server


def _bound(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        return server.add_insecure_port(_address(host, port))
    except RuntimeError as cannot:
        raise StartError(
            f"cannot listen on {host}:{port}; another program holds it: give another --port"
        ) from cannot


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as cannot:
        raise StartError(
            f"cannot listen on {host}:{port} ({cannot.strerror}); give another --http-port"
        ) from cannot


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
