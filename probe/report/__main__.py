"""``python -m probe.report``."""

import sys

from probe.report.cli import main

sys.exit(main())
