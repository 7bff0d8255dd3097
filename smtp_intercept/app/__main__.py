"""`python -m smtp_intercept.app` is the command `tollbridge`."""

import sys

from smtp_intercept.app.cli import main

sys.exit(main())
