"""``python -m extract`` is the command ``extract``."""

import sys

from extract.cli import main

sys.exit(main())
