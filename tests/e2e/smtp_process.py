"""A real SMTP server in a process of its own that notes every mail it accepts: `python smtp_process.py PORT FILE`."""

from __future__ import annotations

import asyncio
import email.policy
import hashlib
import json
import sys
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session


class Notes:
    def __init__(self, file: Path) -> None:
        self._file = file.open("a")

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        mail = BytesParser(_class=EmailMessage, policy=email.policy.default).parsebytes(
            envelope.content or b""
        )
        note = {
            "messageId": mail["Message-ID"],
            "to": envelope.rcpt_tos,
            "subject": mail["Subject"],
            "attachments": [
                hashlib.sha256(part.get_payload(decode=True)).hexdigest() for part in mail.iter_attachments()
            ],
        }
        # Noted before it is acknowledged: an accepted mail is never missing from the file.
        self._file.write(json.dumps(note) + "\n")
        self._file.flush()
        return "250 OK"


async def serve(port: int, file: Path) -> None:
    notes = Notes(file)
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(notes, enable_SMTPUTF8=True, hostname="localhost"), "127.0.0.1", port
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
