import sys
from pathlib import Path

# The helpers beside the tests are modules of their own, also for the processes that tests start.
sys.path.insert(0, str(Path(__file__).parent))
