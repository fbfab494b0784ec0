"""What may be shown: text of others must not be able to drive the terminal or break the line it stands on."""

from __future__ import annotations


def escaped(text: str, keep: str = "") -> str:
    """The text with control, bidirectional and other invisible characters written out, e.g. `\\x1b`, except `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _written_out(c) for c in text)


def _written_out(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
