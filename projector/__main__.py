"""`python -m projector` is the same as the `projector` command."""

import sys

from projector.cli import main

sys.exit(main())
