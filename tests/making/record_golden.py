"""Record the golden rows anew: ``python tests/making/record_golden.py``.

Never to make a red test green: only where CHANGELOG.md names the change, and with a look at the
diff of the recordings, which must show that change and no other.
"""

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    os.environ["RECORD_GOLDEN"] = "yes"
    sys.exit(pytest.main(["-q", *map(str, Path(__file__).parents[1].rglob("test_golden*.py"))]))
