"""What holds in every test: workers of `pytest -n 2` have one thread, no test is timed, Ctrl-C is heard."""

import os
import signal

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("untimed")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background jobs begin so, and so would ours
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["AVALIGN_METEOR_JAR"] = "off"  # Java takes 10 s; the one test of METEOR turns it on


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose code was trusted, on this machine, decides no test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
