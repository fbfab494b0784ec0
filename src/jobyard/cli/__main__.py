"""`python -m jobyard.cli`."""

from jobyard.cli.app import main

main()
