#!/bin/sh
# Prints the first Python that can make the environment: 3.11 or newer, with venv and pip. With PYTHON set, only that.
# The version that CI runs comes first; what calls itself python3 comes last, for it can be too new for the wheels.
set -eu

candidates="python3.11 python3.12 python3.13 python3.14 python3 python"
needed='import sys; sys.exit(sys.version_info < (3, 11))'
bare=""

for name in ${PYTHON:-$candidates}; do
    "$name" -c "$needed" >/dev/null 2>&1 || continue
    if "$name" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        echo "$name"
        exit 0
    fi
    bare="${bare:-$name}"
done

if [ -n "$bare" ]; then
    echo "$bare has no venv module; install it (Debian and Ubuntu: apt-get install $bare-venv), then run make again" >&2
elif [ -n "${PYTHON:-}" ]; then
    echo "PYTHON=$PYTHON is not a Python 3.11 or newer; set it to one, or unset it to have one found" >&2
else
    echo "there is no Python 3.11 or newer on PATH; install one, or set PYTHON to its path, then run make again" >&2
fi
exit 1
