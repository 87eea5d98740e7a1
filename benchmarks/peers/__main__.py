"""`python -m benchmarks.peers NAME`: the driver of one peer.

Being a package's `__main__`, it is not imported again by the processes that multiprocessing starts.
"""

import sys

from benchmarks.peers.serve import main

if __name__ == "__main__":
    main(sys.argv[1])
