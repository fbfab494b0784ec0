"""Commands that stand in for the services of a cloud."""

from __future__ import annotations

from typing import Annotated

import typer


def _share(option: str, about: str) -> object:
    return typer.Option(
        option, metavar="SHARE", min=0, max=1, help=f"Fault, from 0 (never) to 1 (always): {about}."
    )


def pubsub_emulator(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port of gRPC; 0 takes any that is free.")] = 8085,
    http_port: Annotated[
        int, typer.Option("--http-port", help="Port of faults and keys; 0 takes any that is free.")
    ] = 8086,
    duplicate: Annotated[float, _share("--duplicate", "a message is delivered once more")] = 0,
    lose_ack: Annotated[float, _share("--lose-ack", "an ack is answered and forgotten")] = 0,
    cut_stream: Annotated[
        float, _share("--cut-stream", "a response of a streaming pull is lost, and the stream with it")
    ] = 0,
    unavailable: Annotated[float, _share("--unavailable", "a call is refused with UNAVAILABLE")] = 0,
    slow: Annotated[float, _share("--slow", "a call or delivery comes late")] = 0,
    slow_seconds: Annotated[float, typer.Option("--slow-seconds", min=0, help="How late.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Choices of the faults; the same again.")] = 0,
) -> None:
    """Emulate Google Pub/Sub on this machine, in memory, for the official clients.

    Prints the PUBSUB_EMULATOR_HOST to export for your program. Needs the extra `gcp` of the package."""
    from jobyard.pubsub_emulator import serve
    from jobyard.pubsub_emulator.faults import Plan

    plan = Plan(duplicate, lose_ack, cut_stream, unavailable, slow, slow_seconds, seed)
    raise typer.Exit(serve(host, port, http_port, plan))
