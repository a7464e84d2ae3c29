"""What a loop of a Triton kernel must hand from one visit of its body to the next, and whether it does.

Triton visits a loop's body once to see which names it changes: those become values of the loop, the others
are taken for constants. It compares values, not names. So a name that was bound to another one's value
before the loop, and is bound to it again inside, looks unchanged, and has its old value ever after:

    next_q = q
    for k in range(count):
        q = next_q  # not carried: after the loop, q is what it was before
        next_q = ...

The compiled code is then another program than the interpreter runs. `Loops` watches the compiler: at the end
of a loop's body, a name that is not carried must hold the very value it had before the loop.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from triton.compiler.code_generator import CodeGenerator, flatten_values_to_ir


@dataclass
class _Loop:
    """A loop being compiled: its names before it, and which of them it carries."""

    node: Any
    before: dict[str, Any]
    carried: list[str]


@dataclass
class Loops:
    """While entered, what the compiler makes of loops. `seen`: functions and lines; `lost`: what is wrong."""

    seen: set[tuple[str, int]] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    _open: list[_Loop] = field(default_factory=list)

    def __enter__(self) -> Loops:
        self._find, self._visit = CodeGenerator._find_carries, CodeGenerator.visit_compound_statement
        loops = self

        def find(generator: Any, node: Any, *args: Any, **kwargs: Any) -> Any:
            before = dict(generator.lscope)  # bound when the loop is reached
            depth = len(loops._open)
            found = loops._find(generator, node, *args, **kwargs)
            del loops._open[depth:]  # inner loops that were only looked into
            before.pop(getattr(getattr(node, "target", None), "id", None), None)  # a for's own, made anew
            loops._open.append(_Loop(node, before, list(found[0])))
            return found

        def visit(generator: Any, statements: Any) -> None:
            loops._visit(generator, statements)
            if loops._open and statements is loops._open[-1].node.body:
                loops._judge(generator, loops._open.pop())

        CodeGenerator._find_carries, CodeGenerator.visit_compound_statement = find, visit
        return self

    def __exit__(self, *_: Any) -> None:
        CodeGenerator._find_carries, CodeGenerator.visit_compound_statement = self._find, self._visit

    def _judge(self, generator: Any, loop: _Loop) -> None:
        fn = generator.jit_fn.fn
        function = f"{fn.__module__}.{fn.__name__}"
        self.seen.add((function, loop.node.lineno))
        for name, value in loop.before.items():
            if name in loop.carried or not _is_of_the_kernel(value):
                continue
            after = generator.lscope.get(name)
            if flatten_values_to_ir([value]) != flatten_values_to_ir([after]):
                self.lost.add(f"{function}, loop in line {loop.node.lineno} of it: {name}")


def _is_of_the_kernel(value: Any) -> bool:
    """Whether a name stands for something that is computed on the device (not a constant, a function)."""
    from triton.compiler.code_generator import _is_triton_value

    return bool(_is_triton_value(value))


def loops_in(function: Any) -> int:
    """How many loops a jitted function has in its source, but for those that are unrolled as constants."""
    tree = function.parse()
    return sum(
        isinstance(node, ast.While)
        or (isinstance(node, ast.For) and "static_range" not in ast.dump(node.iter))
        for node in ast.walk(tree)
    )
