"""What may be printed: text from a server or a file must not be able to drive the terminal it is shown on."""

from __future__ import annotations

import typer

from jobyard.printable import escaped


def safe_json(body: bytes) -> bytes:
    """The same JSON on one line, with what could drive a terminal in JSON's own escapes."""
    text = body.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else _json_escape(c) for c in text).encode()


def _json_escape(character: str) -> str:
    if character in "\t\n\r":
        return " "  # inside a string JSON does not allow it, so it stood between values
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def say(text: str) -> None:
    typer.echo(escaped(text))


def say_json(body: bytes) -> None:
    typer.echo(safe_json(body))


def complain(text: str) -> None:
    typer.echo(escaped(text), err=True)
