"""Somebody who signs tokens as Google does, and the server of their keys."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt

from web_server import Received, answer

AUDIENCE = "https://worker.example.com"
ACCOUNT = "pusher@project.iam.gserviceaccount.com"


class Key:
    def __init__(self, id: str) -> None:
        self.id = id
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self.public = key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def token(self, **claims: Any) -> str:
        """A good one, but for these claims; None leaves one out."""
        now = int(time.time())
        said = {
            "iss": "https://accounts.google.com", "aud": AUDIENCE, "email": ACCOUNT, "email_verified": True,
            "iat": now, "exp": now + 3600, **claims,
        }  # fmt: skip
        signer = cast("Any", crypt.RSASigner).from_string(self.pem, self.id)
        return cast("Any", jwt).encode(signer, {n: v for n, v in said.items() if v is not None}).decode()


class KeyServer:
    """Answers the public keys of `keys`, or `status`."""

    def __init__(self, *keys: Key) -> None:
        self.keys = list(keys)
        self.status = 200
        self.headers: list[str] = []
        self.asked = 0

    async def reply(self, _: Received, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        body = json.dumps({key.id: key.public for key in self.keys}).encode()
        writer.write(answer(self.status, body, "Connection: close", *self.headers))
