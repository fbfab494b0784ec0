"""`python -m jobyard.store.embedded [ARGUMENTS]`: psql on the embedded server of JOBYARD_HOME, of its own version."""

from __future__ import annotations

import os
import sys

from jobyard.config import Settings, SettingsError
from jobyard.store.embedded import EmbeddedPostgres, EmbeddedPostgresError
from jobyard.store.embedded.programs import find_programs


def main(arguments: list[str]) -> int:
    try:
        url = EmbeddedPostgres(Settings.read(os.environ).home).url("jobyard")
        psql = find_programs().path("psql")
    except (SettingsError, EmbeddedPostgresError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    os.execv(psql, [psql, "--no-psqlrc", "--dbname", url, *arguments])  # noqa: S606 - the program becomes psql
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
