#!/usr/bin/env bash
# Triton's compiler: what a loop does with a name that shares another name's value when the loop is reached.
#
# Guess, written down before the run: a loop carries every name that lived before it and is assigned in it.
#   So `next_q = q` before the loop is as good as `next_q = q + 0`, for every version: the loop carries both
#   names, and what is stored as q after it is the loop's result: 13 after 4 rounds from 10, as in Python.
# Versions: triton 3.4.0, 3.5.0, 3.8.0 (only their Python front end runs: no GPU, no PyTorch), Python 3.11.
# Behaviour: so it is in 3.4. From 3.5 on the compiler compares values, not names: in the one visit of the body
#   that finds what a loop carries, `q = next_q` binds q to the value it had before the loop, so q counts as
#   unchanged. After the loop q is what was loaded before it: 10, without a word. Triton's interpreter runs
#   Python and gives 13, so a test by the interpreter cannot see it. The cure: a value of its own, `q + 0`.
# Output seen: the text at the end; any other output ends this script with 1.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
cat > loops.py <<'PY'
import inspect
import re
import triton
import triton.language as tl
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend

@triton.jit
def aliased(start, out, count):
    q = tl.load(start)
    next_q = q
    for _ in range(count):
        q = next_q
        next_q = q + 1
    tl.store(out, q)

@triton.jit
def cured(start, out, count):
    q = tl.load(start)
    next_q = q + 0
    for _ in range(count):
        q = next_q
        next_q = q + 1
    tl.store(out, q)

def ir_of(kernel):
    """What the compiler makes of the source, before any pass."""
    target = GPUTarget("cuda", 90, 32)
    backend, context = make_backend(target), ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    source = ASTSource(kernel, {"start": "*i32", "out": "*i32", "count": "i32"}, {})
    options = backend.parse_options({})
    functions = backend.get_codegen_implementation(options)
    given = [target] if "target" in inspect.signature(source.make_ir).parameters else []  # from 3.5 on
    return str(source.make_ir(*given, options, functions, backend.get_module_map(), context))

for kernel in (aliased, cured):
    code = ir_of(kernel)
    carried = re.search(r"= scf\.for .*iter_args\((.*?)\)", code)[1].count("=")
    stored = re.search(r"tt\.store %\w+, (%\w+)", code)[1]
    made_by = re.search(rf"{stored}(?::\d+)? = (\S+)", code)[1]
    print(f"triton {triton.__version__} {kernel.__name__}: scf.for carries {carried}, stored is made by {made_by}")
PY

for version in 3.4.0 3.5.0 3.8.0; do
    python3.11 -m venv "env-$version"
    "env-$version/bin/pip" install -q --disable-pip-version-check "triton==$version" setuptools==65.5.1
    "env-$version/bin/python" loops.py
done > seen.txt
diff - seen.txt <<'EXPECTED'
triton 3.4.0 aliased: scf.for carries 2, stored is made by scf.for
triton 3.4.0 cured: scf.for carries 2, stored is made by scf.for
triton 3.5.0 aliased: scf.for carries 1, stored is made by tt.load
triton 3.5.0 cured: scf.for carries 2, stored is made by scf.for
triton 3.8.0 aliased: scf.for carries 1, stored is made by tt.load
triton 3.8.0 cured: scf.for carries 2, stored is made by scf.for
EXPECTED
