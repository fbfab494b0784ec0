#!/bin/sh
# Runs docker compose with these arguments. `migrate` alone is ours: the schema of the containers that run, brought
# up to date.
set -eu

if docker compose version >/dev/null 2>&1; then
    compose="docker compose"
elif docker-compose version >/dev/null 2>&1; then
    compose=docker-compose
elif [ "$1" = migrate ]; then
    echo "there is no database to migrate: set DATABASE_URL to your PostgreSQL" >&2
    exit 1
else
    echo "there is no docker compose on this machine; install Docker with its compose plugin, or use \`make run\`, which needs neither" >&2
    exit 1
fi

[ "$1" = migrate ] || exec $compose "$@"

running=$($compose ps --quiet postgres)
if [ -z "$running" ]; then
    echo "there is no database to migrate: set DATABASE_URL to your PostgreSQL, or start the containers with \`make up\`" >&2
    exit 1
fi
exec $compose run --rm migrate
