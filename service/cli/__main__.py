"""`python -m service.cli` is `tinyfit`."""

import sys

from service.cli.main import main

sys.exit(main())
