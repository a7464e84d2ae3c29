"""`python -m avalign`, and `torchrun -m avalign train ...`."""

from avalign.cli import app

app(prog_name="avalign")
