"""The Triton kernels, compiled for GPUs that need not be there: registers, spills, shared memory.

pytest -m wide -s tests/kernels/test_compile.py prints the table.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import triton
from triton.backends.nvidia.compiler import get_ptxas

from tests.helpers.kernel_sources import KERNELS, source_of, target_of

pytestmark = pytest.mark.wide

MOST_SHARED = 99 * 1024  # bytes: what every card since sm_80 has for one program
TRITON = tuple(int(part) for part in triton.__version__.split(".")[:2])


def may_spill(name: str) -> int:
    """Bytes that a thread may keep outside its registers: none, but for what this Triton is known to do."""
    if name.startswith("streamed m 8192"):
        return 2304  # one row a block: more does not fit, and fewer rows there are not
    if name.startswith("plan"):
        return 32 if TRITON < (3, 9) else 0
    if name.startswith("registers"):
        return 640 if TRITON < (3, 8) else 0
    return 0


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("name", KERNELS)
def test_it_fits(name: str, arch: int, tmp_path: Path) -> None:
    """Compiles, keeps its matrices in registers, and asks for no more shared memory than there is."""
    source, options = source_of(name)
    compiled = triton.compile(source, target=target_of(arch), options=options)
    ptx = tmp_path / "kernel.ptx"
    ptx.write_text(compiled.asm["ptx"])
    target = f"sm_{arch}{'a' if arch >= 90 else ''}"
    said = subprocess.run(
        [
            get_ptxas(arch).path,
            "-v",
            "--regAllocOptLevel=2",
            f"-arch={target}",
            ptx,
            "-o",
            tmp_path / "cubin",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    registers = int(re.findall(r"Used (\d+) registers", said)[0])
    spilled = sum(map(int, re.findall(r"(\d+) bytes spill (?:stores|loads)", said)))
    shared = compiled.metadata.shared
    print(f"\n{name:28} sm_{arch} {registers:4} registers {spilled:5} B spilled {shared:6} B shared", end="")
    assert shared <= MOST_SHARED
    assert spilled <= may_spill(name)
