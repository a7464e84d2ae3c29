"""What holds in every test: workers of `pytest -n 2` have one thread each, and nobody starts Java."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["AVALIGN_METEOR_JAR"] = "off"  # Java takes 10 s; the one test of METEOR turns it on
