"""From a method of ours to one that gRPC calls: classes of messages in and out, faults, and refusals as codes."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty

from jobyard.pubsub_emulator.faults import Faults
from jobyard.pubsub_emulator.refusals import Refusal, Unavailable
from jobyard.pubsub_emulator.wire import reader, writer

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Calls:
    """Makes handlers."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def unary(
        self, asked: type[Asked], answer: type[Answer], method: Callable[[Asked], Answer | Awaitable[Answer]]
    ) -> Handler:
        """One request, one answer."""
        return grpc.unary_unary_rpc_method_handler(self._answered(method), reader(asked), writer(answer))

    def silent(self, asked: type[Asked], method: Callable[[Asked], None]) -> Handler:
        """One request, and nothing to say to it."""

        def obeyed(request: Asked) -> Empty:
            method(request)
            return Empty()

        return grpc.unary_unary_rpc_method_handler(
            self._answered(obeyed), reader(asked), Empty.SerializeToString
        )

    def stream(
        self,
        asked: type[Asked],
        answer: type[Answer],
        method: Callable[[AsyncIterator[Asked]], AsyncIterator[Answer]],
    ) -> Handler:
        """Requests and answers as they come."""

        async def call(requests: AsyncIterator[Asked], context: Context) -> AsyncIterator[Answer]:
            try:
                await self._begin()
                async for answered in method(requests):
                    yield answered
            except Refusal as refusal:
                await context.abort(refusal.code, str(refusal))

        return grpc.stream_stream_rpc_method_handler(call, reader(asked), writer(answer))

    def _answered(
        self, method: Callable[[Asked], Answer | Awaitable[Answer]]
    ) -> Callable[[Asked, Context], Awaitable[Answer]]:
        async def call(request: Asked, context: Context) -> Answer:
            try:
                await self._begin()
                answered = method(request)
                return cast("Answer", await answered if inspect.isawaitable(answered) else answered)
            except Refusal as refusal:
                await context.abort(refusal.code, str(refusal))
                raise AssertionError("unreachable") from refusal

        return call

    async def _begin(self) -> None:
        await self._faults.delay()
        if self._faults.strikes("unavailable"):
            raise Unavailable("The service was unable to fulfill your request (a fault that was asked for).")
