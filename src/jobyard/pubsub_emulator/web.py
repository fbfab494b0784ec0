"""The emulator's own HTTP: the keys of its tokens, and the faults."""

from __future__ import annotations

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jobyard.pubsub_emulator.faults import Faults, Plan
from jobyard.pubsub_emulator.tokens import TokenSigner

KEYS, PEMS, FAULTS = "/oauth2/v3/certs", "/oauth2/v1/certs", "/faults"


def app(signer: TokenSigner, faults: Faults) -> Starlette:
    async def keys(request: Request) -> Response:
        return JSONResponse(signer.jwks())

    async def pems(request: Request) -> Response:
        return JSONResponse(signer.pems())

    async def show_faults(request: Request) -> Response:
        return _json(faults.plan)

    async def set_faults(request: Request) -> Response:
        try:
            faults.set(msgspec.json.decode(await request.body(), type=Plan))
        except msgspec.DecodeError as wrong:
            return JSONResponse({"error": str(wrong)}, status_code=400)
        return _json(faults.plan)

    return Starlette(
        routes=[
            Route(KEYS, keys),
            Route(PEMS, pems),
            Route(FAULTS, show_faults),
            Route(FAULTS, set_faults, methods=["PUT"]),
        ]
    )


def _json(plan: Plan) -> Response:
    return Response(msgspec.json.encode(plan), media_type="application/json")
