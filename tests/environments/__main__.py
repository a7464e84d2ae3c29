"""Run the tests in fresh environments, with other versions of what avalign stands on.

python -m tests.environments oldest newest              # the names stand in environments.toml
python -m tests.environments oldest -- tests/ot/test_ot.py   # what follows -- is pytest's
python -m tests.environments newest --record            # and write its row into docs/versions.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tests.environments import environment, table

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "versions.md"


def main(words: list[str]) -> int:
    known = tomllib.loads(Path(__file__).with_name("environments.toml").read_text())
    words, given = (
        (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    )
    parser = argparse.ArgumentParser(
        "python -m tests.environments", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="+", choices=known, metavar="NAME", help=", ".join(known))
    parser.add_argument("--folder", type=Path, help="keep the environments here (else they are deleted)")
    parser.add_argument("--record", action="store_true", help=f"write the rows into {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(words)

    rows = []
    for name in options.names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.folder or Path(temporary)).resolve() / name
            print(f"=== environment {name}: {known[name]}", flush=True)
            try:
                environment.make(ROOT, folder, **known[name])
            except (environment.NoPython, subprocess.CalledProcessError) as error:
                print(f"=== environment {name}: not made: {error}", file=sys.stderr)
                return 2
            print(f"=== environment {name}: {environment.told(folder)}", flush=True)
            rows.append(environment.run_tests(ROOT, folder, name, given))
            print(f"\n{table.markdown(rows)}\n", flush=True)
    if options.record:
        if given:
            parser.error("--record is for the whole suite, not for a part of it (--)")
        table.record(PAGE, rows)
    return int(any(row.failed or not row.passed for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
