"""A process that uses the embedded PostgreSQL of a home, tells its postmaster's process id, and leaves when told to.

With `--not-as-root` it first becomes another user, if it is root: only after the imports, because that user may be
unable to read the interpreter's folder.
"""

import os
import pwd
import sys
from pathlib import Path

from jobyard.store.embedded import EmbeddedPostgres


def become_another_user() -> None:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)


def tell(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(home: str, *options: str) -> None:
    if "--not-as-root" in options and os.geteuid() == 0:
        become_another_user()
    postgres = EmbeddedPostgres(Path(home), settings={"fsync": "off"})
    postgres.start()
    tell(str(postgres.pid))
    if sys.stdin.readline() == "stop\n":
        postgres.stop()
        tell("stopped")


main(*sys.argv[1:])
