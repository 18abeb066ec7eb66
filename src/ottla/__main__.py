"""`python -m ottla`: the program `ottla`, where the script is not on the path."""

import sys

from ottla.cli.main import main

sys.exit(main())
