"""The command line: arguments to the client or to `jobyard.main`; no rules of its own."""

from jobyard.cli.app import app, main

__all__ = ["app", "main"]
