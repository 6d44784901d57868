"""``python -m pseudolabel`` is ``pseudolabel``."""

import sys

try:
    from pseudolabel.cli.app import main
except ModuleNotFoundError as error:
    if error.name != "pseudolabel.cli":
        raise
    # In a clone whose package was not installed as editable, the folder pseudolabel/ comes before the installed one.
    sys.exit("error: the folder pseudolabel/ here hides the installed package; run this elsewhere, or pip install -e .")

if __name__ == "__main__":
    sys.exit(main())
