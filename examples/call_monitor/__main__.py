"""`python -m examples.call_monitor`: a worker, many concurrent calls, and what became of them."""

import sys

from .demo.cli import main

sys.exit(main())
