"""Workers of `pytest -n 2` have one thread each: together they fill two cores, and wait for nobody."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
