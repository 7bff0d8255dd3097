"""`python -m smtp_intercept.app` is the command `tollbridge`."""

import sys

from smtp_intercept.app.entry import main

sys.exit(main())
