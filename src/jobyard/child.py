"""`python -m jobyard.child`: what a worker starts for jobs that must not share its process. Nothing for people to call."""

from __future__ import annotations

import os
import sys

from jobyard.config import Settings
from jobyard.main import child

if __name__ == "__main__":
    sys.exit(child(Settings.read(os.environ)))
