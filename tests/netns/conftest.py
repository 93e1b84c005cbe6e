"""The mesh whose processes crash is that of the chains' tests, here with a real kernel."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "chains"))
