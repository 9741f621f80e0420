"""Record the golden rows anew: ``python tests/making/record_golden.py``; or, with ``printed``, only
what commands printed, where rows and arrays must be as they were recorded.

Never to make a red test green: only where CHANGELOG.md names the change, and with a look at the
diff of the recordings, which must show that change and no other.
"""

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    is_printed = sys.argv[1:] == ["printed"]
    os.environ["RECORD_GOLDEN"] = "printed" if is_printed else "all"
    tests = Path(__file__).parents[1]
    kept = [tests / "test_kept_files.py"] if is_printed else []
    sys.exit(pytest.main(["-q", *map(str, [*tests.rglob("test_golden*.py"), *kept])]))
