"""``python -m pseudolabel.cli`` is ``pseudolabel``."""

import sys

from .app import main

sys.exit(main())
