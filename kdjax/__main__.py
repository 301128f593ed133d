"""`python -m kdjax`."""

import sys

try:
    from kdjax.cli import main

    status = main()
except KeyboardInterrupt:  # also while modules are imported
    sys.stderr.write("kdjax: interrupted\n")
    status = 130
sys.exit(status)
