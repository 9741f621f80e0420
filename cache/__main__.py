"""``python -m cache`` is the command ``cache``."""

import sys

from cache.cli import main

sys.exit(main())
