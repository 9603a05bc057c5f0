"""`python -m sciart_ext`: see cli/."""

import sys

try:
    from .cli import main

    status = main(name="python -m sciart_ext")
except KeyboardInterrupt:  # before the command began, or after its end
    status = 130
sys.exit(status)
