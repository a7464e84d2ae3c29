"""Work that is shared among processes: none is a fork of this one, and the user's script is run once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import operator, os, sys
from pathlib import Path

print("run")
forks = []
os.register_at_fork(before=lambda: forks.append(1))

from avalign.avfit.processes import in_processes, shared_out
from avalign.data.avworld import AvWorld
from avalign.data.manifest import index
from avalign.errors import AvalignError

folder = Path(sys.argv[1])
os.environ["AVALIGN_CACHE"] = str(folder / "cache")
AvWorld(train=70, val=1, test=1).prepare(str(folder / "world"), seed=0, workers=2)
index.STRETCH = 200
try:
    index.index_of([folder / "blank.jsonl"], lambda file, lines: None, workers=2)
except AvalignError as error:
    assert "holds no record" in str(error), error
assert sorted(shared_out(operator.neg, [1, 2, 3], 2)) == [1, 2, 3]
assert list(in_processes(operator.neg, [1, 2, 3], 2)) == [(1, -1), (2, -2), (3, -3)]
print("forks", len(forks))
"""


def test_a_script_without_a_guard_shares_its_work_and_nothing_is_forked(tmp_path: Path) -> None:
    """A fork of a process with threads (jax has some once it is imported) may wait for a lock for ever."""
    (tmp_path / "blank.jsonl").write_text("\n" * 500)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    ended = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120)
    assert ended.stdout.split("\n") == ["run", "forks 0", ""], ended.stderr
