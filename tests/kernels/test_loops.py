"""What the compiler makes of the Triton kernels' loops is what Python means by them: see kernel_loops.py."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

import triton
import triton.language as tl

from avalign.kernels import triton as kernels
from avalign.kernels.triton.inputs import COMPILED
from tests.helpers.kernel_loops import Loops, loops_in
from tests.helpers.kernel_sources import KERNELS, source_of, to_ir


def _jitted() -> dict[str, Any]:
    """Every jitted function of avalign.kernels.triton, by module and name."""
    found = {}
    for each in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
        for name, value in vars(importlib.import_module(each.name)).items():
            if isinstance(value, triton.JITFunction) and value.fn.__module__ == each.name:
                found[f"{each.name}.{name}"] = value
    return found


JITTED = _jitted()


@pytest.fixture(scope="module")
def loops() -> Loops:
    """Every kernel as it ships, through Triton's compiler."""
    with Loops() as watched:
        for name in KERNELS:
            to_ir(*source_of(name))
    return watched


def test_no_loop_loses_a_value(loops: Loops) -> None:
    assert not loops.lost


@pytest.mark.parametrize("name", JITTED)
def test_every_loop_was_compiled(name: str, loops: Loops) -> None:
    """So that a kernel that KERNELS does not have, or a Triton that compiles otherwise, is noticed here."""
    seen = {line for function, line in loops.seen if function == name}
    assert len(seen) == loops_in(JITTED[name])


@triton.jit
def _loses(out, count):
    value = tl.load(out)
    next_value = value
    for _ in range(count):
        value = next_value
        next_value = value + 1
    tl.store(out, value)


@triton.jit
def _loses_in_pairs(out, count):
    first, second = tl.load(out), tl.load(out + 1)
    last, left = first, count
    while left > 0:
        first, last = last, second
        left -= 1
        second = second * 2
    tl.store(out, first)


@triton.jit
def _keeps(out, count):
    value = tl.load(out)
    next_value = value + 0.0
    for _ in range(count):
        value = next_value
        next_value = value + 1
    tl.store(out, value)


@pytest.mark.parametrize(
    ("function", "lost"), [(_loses, "value"), (_loses_in_pairs, "first"), (_keeps, None)]
)
def test_a_lost_value_is_noticed(function: Any, lost: str | None) -> None:
    source = triton.compiler.ASTSource(function, {"out": "*fp32", "count": "i32"}, {}, {})
    with Loops() as watched:
        to_ir(source, {"num_warps": 1, **COMPILED})
    assert [what.rpartition(" ")[2] for what in watched.lost] == ([] if lost is None else [lost])


@pytest.mark.parametrize("name", JITTED)
def test_no_constant_stands_to_the_left_of_a_tensor(name: str) -> None:
    """The interpreter of some releases of Triton makes a constant of "constant * tensor": see per_epsilon."""
    function = JITTED[name]
    constants = {key for key, value in function.fn.__globals__.items() if isinstance(value, tl.constexpr)}
    for node in ast.walk(function.parse()):
        if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Name) and node.left.id in constants:
            right = {each.id for each in ast.walk(node.right) if isinstance(each, ast.Name)}
            assert right <= constants, ast.unparse(node)
