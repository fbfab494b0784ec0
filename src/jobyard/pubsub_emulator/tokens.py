"""Tokens that show who pushes, signed by a key of this emulator as Google's are by one of its own."""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from typing import Any, cast

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt

ISSUER = "https://accounts.google.com"
TOKEN_SECONDS = 3600
KEY_BITS = 2048


class TokenSigner:
    """Makes its key when it is made."""

    def __init__(self) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._public = key.public_key()
        self._id = uuid.uuid4().hex
        self._signer = cast("Any", crypt.RSASigner).from_string(pem, self._id)

    def token(self, email: str, audience: str) -> str:
        """For a service account; its `sub` is made from the address, and stays the same."""
        now = int(time.time())
        subject = str(int.from_bytes(hashlib.sha256(email.encode()).digest()[:8]))
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "azp": subject,
            "sub": subject,
            "email": email,
            "email_verified": True,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
        }
        return cast("Any", jwt).encode(self._signer, claims).decode()

    def jwks(self) -> dict[str, Any]:
        """The public key as a JSON Web Key Set, as at https://www.googleapis.com/oauth2/v3/certs."""
        numbers = self._public.public_numbers()
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": self._id}
        return {"keys": [{**key, "n": _base64(numbers.n), "e": _base64(numbers.e)}]}

    def pems(self) -> dict[str, str]:
        """The public key by its id, as google-auth reads it from https://www.googleapis.com/oauth2/v1/certs."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return {self._id: self._public.public_bytes(serialization.Encoding.PEM, form).decode()}


def _base64(number: int) -> str:
    raw = number.to_bytes((number.bit_length() + 7) // 8)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
