"""`python -m genrep` is `genrep`."""

import sys

from genrep.interface.main import main

if __name__ == "__main__":
    sys.exit(main())
