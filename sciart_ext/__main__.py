"""`python -m sciart_ext`: see cli.py."""

import sys

from .cli import main

sys.exit(main())
