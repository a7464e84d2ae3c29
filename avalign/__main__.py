"""`python -m avalign`, and `torchrun -m avalign train ...`."""

from avalign.cli.app import app

app(prog_name="avalign")
