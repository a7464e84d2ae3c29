"""The Triton kernels, compiled for GPUs that need not be there: registers, spills, shared memory.

pytest -m wide -s tests/test_kernels_compile.py prints the table.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from avalign.kernels import (
    triton_blocks,
    triton_cosine,
    triton_gradient,
    triton_progress,
    triton_registers,
    triton_split,
    triton_streamed,
)
from avalign.kernels import triton_sinkhorn as shipped

pytestmark = pytest.mark.wide

INTEGERS = ("n", "m", "d", "width", "x_item", "x_row", "y_item", "y_row", "rounds", "blocks", "parts")
INTEGERS += ("column_parts", "most_stages", "k")
IN_STEPS_OF_16 = ("d", "width", "x_item", "x_row", "y_item", "y_row")
NUMBERS = ("epsilon", "tolerance")
MOST_SHARED = 99 * 1024  # bytes: what every card since sm_80 has for one program
MAY_SPILL = ("streamed m 8192",)  # one row a block: more does not fit, and fewer rows there are not


def _kernels() -> dict[str, tuple[Any, dict[str, str], dict[str, Any]]]:
    """name -> kernel, types of what is not a float32 pointer, and what it is compiled with, as shipped."""
    kernels: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {}
    counts = dict.fromkeys(("rounds_out", "broken", "broken_out", "whole"), "*i32")
    for relaxed in (False, True):
        modes = {"STARTED": False, "RELAXED": relaxed}
        words = "relaxed" if relaxed else "plain"
        for n, m in ((196, 64), (64, 196), (128, 128), (64, 64), (16, 16)):
            blocks = {**modes, **triton_registers.register_blocks(n, m)}
            kernels[f"registers {n}x{m} {words}"] = triton_registers.solve_in_registers, counts, blocks
        for m in (256, 1024, 4096, 8192):
            blocks = {**modes, **triton_blocks.row_blocks(m)}
            kernels[f"streamed m {m} {words}"] = triton_streamed.solve_streamed, counts, blocks
            blocks = {"RELAXED": relaxed, **triton_split.share_blocks(m)}
            kernels[f"split rows m {m} {words}"] = triton_split.make_rows, counts, blocks
        blocks = {"RELAXED": relaxed, **triton_split.column_blocks()}
        kernels[f"split columns {words}"] = triton_split.make_columns, counts, blocks
        blocks = {"RELAXED": relaxed, **triton_progress.ITEM_BLOCKS}
        kernels[f"split window {words}"] = triton_progress.end_window, counts, blocks
    kernels["split begin"] = triton_progress.begin_split, counts, triton_progress.ITEM_BLOCKS
    for m in (256, 8192):
        kernels[f"split reach m {m}"] = triton_split.write_reach, counts, triton_split.share_blocks(m)
        kernels[f"split value m {m}"] = triton_split.write_shares, counts, triton_split.share_blocks(m)
        kernels[f"split answer m {m}"] = triton_split.answer_split, counts, triton_split.answer_blocks(m)
    for dtype, word in ((torch.bfloat16, "bf16"), (torch.float16, "fp16"), (torch.float32, "fp32")):
        x = torch.empty(0, dtype=dtype)
        plan = "*bf16" if shipped.plan_dtype(x, x) == torch.bfloat16 else "*fp32"
        types = {**counts, "x": f"*{word}", "y": f"*{word}", "out": f"*{word}", "plan": plan}
        blocks = shipped.product_blocks(x, x)
        kernels[f"cost {word}"] = triton_cosine.write_cost, types, blocks
        kernels[f"plan {word}"] = triton_gradient.write_plan, types, blocks
        for flipped in (False, True):
            settings = {"FLIPPED": flipped, **shipped.gradient_blocks(x, x)}
            name = f"gradient {word} to {'y' if flipped else 'x'}"
            kernels[name] = triton_gradient.write_gradient, types, settings
    return kernels


KERNELS = _kernels()


@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("name", KERNELS)
def test_it_fits(name: str, arch: int, tmp_path: Path) -> None:
    """Compiles, keeps its matrices in registers, and asks for no more shared memory than there is."""
    kernel, types, settings = KERNELS[name]
    signature, constants, known = {}, {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in settings:
            signature[argument], constants[place,] = "constexpr", settings[argument]
        elif argument in INTEGERS:
            signature[argument] = "i32"
        else:
            signature[argument] = "fp32" if argument in NUMBERS else types.get(argument, "*fp32")
        if argument in IN_STEPS_OF_16 or signature[argument].startswith("*"):
            known[place,] = [["tt.divisibility", 16]]
    options = {key: settings[key] for key in ("num_warps", "enable_fp_fusion")}
    source = ASTSource(kernel, signature, constants, known)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
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
    assert spilled == 0 or name.startswith(MAY_SPILL)
