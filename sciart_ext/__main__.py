"""`python -m sciart_ext`: see cli/."""

import sys

from .cli import main

sys.exit(main())
