"""Every Triton kernel with the types and sizes that it ships with, to be compiled without a GPU."""

from __future__ import annotations

from typing import Any

import torch
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend

from avalign.kernels.triton import blocks as triton_blocks
from avalign.kernels.triton import cosine as triton_cosine
from avalign.kernels.triton import gradient as triton_gradient
from avalign.kernels.triton import progress as triton_progress
from avalign.kernels.triton import registers as triton_registers
from avalign.kernels.triton import sinkhorn as shipped
from avalign.kernels.triton import split as triton_split
from avalign.kernels.triton import streamed as triton_streamed

INTEGERS = ("n", "m", "d", "width", "x_item", "x_row", "y_item", "y_row", "iterations", "blocks", "parts")
INTEGERS += ("column_parts", "most_stages", "k")
IN_STEPS_OF_16 = ("d", "width", "x_item", "x_row", "y_item", "y_row")
NUMBERS = ("epsilon", "tolerance")


def _kernels() -> dict[str, tuple[Any, dict[str, str], dict[str, Any]]]:
    """name -> kernel, types of what is not a float32 pointer, and what it is compiled with, as shipped."""
    kernels: dict[str, tuple[Any, dict[str, str], dict[str, Any]]] = {}
    counts = dict.fromkeys(("iterations_out", "broken", "broken_out", "ints"), "*i32")
    for relaxed in (False, True):
        modes = {"WARM": False, "RELAXED": relaxed}
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


def target_of(arch: int) -> GPUTarget:
    return GPUTarget("cuda", arch, 32)


def source_of(name: str) -> tuple[ASTSource, dict[str, Any]]:
    """A kernel as it is launched, and the options that it is compiled with."""
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
    return ASTSource(kernel, signature, constants, known), options


def to_ir(source: ASTSource, options: dict[str, Any], arch: int = 90) -> str:
    """Triton's IR of a kernel, as its compiler makes it of the Python source, before any pass."""
    target = target_of(arch)
    backend = make_backend(target)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    parsed = backend.parse_options(options)
    codegen = backend.get_codegen_implementation(parsed)
    return str(source.make_ir(target, parsed, codegen, backend.get_module_map(), context))
