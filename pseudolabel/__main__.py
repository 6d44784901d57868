"""``python -m pseudolabel`` is ``pseudolabel``."""

import sys

from pseudolabel.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
