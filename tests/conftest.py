"""What holds in every test: workers of `pytest -n 2` have one thread, Ctrl-C is heard, nobody starts Java.

Nor does a busy machine fail a test: hypothesis has no deadline. And of two workers each takes one half of the
tests, as they stand, so that what a file makes once is made once; who is done first takes from the other.
"""

import os
import signal

import pytest
from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs begin so, and so would ours
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["AVALIGN_METEOR_JAR"] = "off"  # Java takes 10 s; the one test of METEOR turns it on

settings.register_profile("avalign", deadline=None)
settings.load_profile("avalign")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose code was trusted, on this machine, decides no test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
