"""Data of another PostgreSQL major: refused in words that say how to go on."""

from __future__ import annotations

import shlex
from pathlib import Path

from jobyard.store.embedded.programs import EmbeddedPostgresError, Programs, ServerUser


def refuse_another_major(
    data: Path, socket_folder: Path, programs: Programs, user: ServerUser, owner: str
) -> None:
    """Raises EmbeddedPostgresError when `data` is of another major than `programs`, with the commands that
    carry it over for the database user `owner`. Changes nothing."""
    try:
        kept = int((data / "PG_VERSION").read_text())
    except FileNotFoundError:
        return
    if kept == programs.major:
        return
    raise EmbeddedPostgresError(
        f"The data in {data} is of PostgreSQL {kept}, and the programs in {programs.folder} are PostgreSQL "
        f"{programs.version}, which cannot read it. Nothing was changed. To go on with PostgreSQL {kept}, set PG_BIN "
        f"to the folder of its programs. "
        + (
            f"To move to PostgreSQL {programs.major}, run these commands and start again:\n"
            f"{moving_commands(data, socket_folder, kept, programs, user, owner)}"
            if kept < programs.major
            else f"PostgreSQL cannot bring data back to version {programs.major}."
        )
    )


def moving_commands(
    data: Path, socket_folder: Path, kept: int, programs: Programs, user: ServerUser, owner: str
) -> str:
    """Shell commands that dump `data` with its own major's programs and restore it into new data of `programs`.
    The old data stays beside the new, and so does the dump."""
    # The old pg_dump: a newer one is advised, and yet 18.6 puts out what only a 15.20 understands (pg_attver).
    lent = f"runuser -u {user.name} -- " if user.lent else ""
    server = shlex.quote(f"-c listen_addresses= -k {socket_folder}")
    start = f"start -w -D data -l data/moving.log -o {server}"
    access = f"-h {shlex.quote(str(socket_folder))} -U {owner}"
    new_folder = f"install -d -m 0700 {f'-o {user.name} ' if user.lent else ''}data"
    return f"""\
OLD=/usr/lib/postgresql/{kept}/bin   # wherever the programs of PostgreSQL {kept} are
NEW={shlex.quote(str(programs.folder))}
cd {shlex.quote(str(data.parent))}
{lent}$OLD/pg_ctl {start}
$OLD/pg_dump {access} --create -Fc -f {owner}-{kept}.dump {owner}
{lent}$OLD/pg_ctl stop -w -D data
mv data data-{kept}
{new_folder}
{lent}$NEW/initdb -D data -U {owner} -E UTF8 --locale=C -A trust
{lent}$NEW/pg_ctl {start}
$NEW/pg_restore {access} --create -d postgres {owner}-{kept}.dump
{lent}$NEW/pg_ctl stop -w -D data"""
