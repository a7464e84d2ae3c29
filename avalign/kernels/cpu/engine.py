"""The fused CPU kernel (source/): built once where a compiler is found, called by a plain C interface.

torch's own extension loader is not used: it needs ninja, takes half a minute over torch's headers, hangs on
the lock of a build that was killed, and shares one folder between machines of different processors.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from avalign.errors import AvalignError
from avalign.kernels.cpu.ownership import load_own, who_else
from avalign.kernels.solution import Gradients, Solution
from avalign.system.cache import cache_folder

SOURCE = Path(__file__).with_name("source")
# Never -ffast-math: linked in, it changes denormals for the whole process.
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fopenmp", "-fPIC", "-shared"]
FLAGS += ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
NO_MEMORY, NO_INSTRUCTION = 1, 2


class Unavailable(Exception):
    """Why the kernel cannot be used here."""


def why_unavailable() -> str | None:
    """None where the kernel can be used, else the reason in a line."""
    try:
        library()
    except Unavailable as reason:
        return str(reason)
    return None


def has_bfloat16_products() -> bool:
    return why_unavailable() is None and bool(library().avalign_has_bf16())


def product_rate(dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of the kernel's inner loop at torch's number of threads; 0 of what it lacks."""
    return float(library().avalign_product_rate(int(dtype == torch.bfloat16), torch.get_num_threads()))


def from_features(
    x: Tensor,
    y: Tensor,
    a: Tensor,
    b: Tensor,
    init_g: Tensor | None,
    upstream: Tensor | None,
    *,
    epsilon: float,
    iterations: int,
    tolerance: float | None,
    half: bool,
) -> tuple[Solution, Gradients | None]:
    """Sinkhorn under cosine distance, and with `upstream` (b,) the gradients of sum_k upstream_k value_k.

    half: bfloat16 factors in the products. Tokens whose weight is 0 may hold anything.

    Shapes: x (b, n, d), y (b, m, d), float32 or bfloat16, both alike; a (b, n), b, init_g (b, m) float32
    """
    kernel = library()
    x, y, a, b = x.contiguous(), y.contiguous(), a.contiguous(), b.contiguous()
    init_g = None if init_g is None else init_g.contiguous()
    items, n, d = x.shape
    out = _answer(items, n, y.shape[1])
    upstream = None if upstream is None else upstream.contiguous()
    slopes = None if upstream is None else (torch.empty_like(x), torch.empty_like(y))
    code = kernel.avalign_from_features(
        *(pointer(t) for t in (x, y)), items, n, y.shape[1], d, int(x.dtype == torch.bfloat16), int(half),
        *(pointer(t) for t in (a, b, init_g)), epsilon, iterations, tolerance or 0.0, pointer(upstream),
        *(pointer(t) for t in (*out, *(slopes or (None, None)))), torch.get_num_threads(),
    )  # fmt: skip
    check(code)
    return out, slopes


def from_cost(
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    init_g: Tensor | None,
    *,
    epsilon: float,
    iterations: int,
    tolerance: float | None,
) -> Solution:
    """Sinkhorn on a cost. Shapes: cost (b, n, m), a (b, n), b, init_g (b, m), all float32."""
    kernel = library()
    cost, a, b = cost.contiguous(), a.contiguous(), b.contiguous()
    init_g = None if init_g is None else init_g.contiguous()
    items, n, m = cost.shape
    out = _answer(items, n, m)
    code = kernel.avalign_from_cost(
        pointer(cost), items, n, m, *(pointer(t) for t in (a, b, init_g)), epsilon, iterations,
        tolerance or 0.0, *(pointer(t) for t in out), torch.get_num_threads(),
    )  # fmt: skip
    check(code)
    return out


def bracket_from_features(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, *, epsilon: float
) -> tuple[Tensor, Tensor]:
    """avalign.ot.certificate's bounds (b,), without a cost in memory. Shapes as in from_features."""
    x, y, *sides = (t.contiguous() for t in (x, y, a, b, f, g))
    items, n, d = x.shape
    lower, upper = torch.empty(items), torch.empty(items)
    code = library().avalign_bracket_from_features(
        *(pointer(t) for t in (x, y)), items, n, y.shape[1], d, int(x.dtype == torch.bfloat16),
        *(pointer(t) for t in sides), epsilon, pointer(lower), pointer(upper), torch.get_num_threads(),
    )  # fmt: skip
    check(code)
    return lower, upper


def bracket_from_cost(
    cost: Tensor, a: Tensor, b: Tensor, f: Tensor, g: Tensor, *, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The same from a cost (b, n, m) in float32."""
    cost, *sides = (t.contiguous() for t in (cost, a, b, f, g))
    items, n, m = cost.shape
    lower, upper = torch.empty(items), torch.empty(items)
    code = library().avalign_bracket_from_cost(
        pointer(cost), items, n, m, *(pointer(t) for t in sides), epsilon, pointer(lower), pointer(upper),
        torch.get_num_threads(),
    )  # fmt: skip
    check(code)
    return lower, upper


def _answer(items: int, n: int, m: int) -> Solution:
    return Solution(
        value=torch.empty(items),
        f=torch.empty(items, n),
        g=torch.empty(items, m),
        error=torch.empty(items),
        iterations=torch.empty(items, dtype=torch.int64),
    )


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def check(code: int) -> None:
    if code == NO_MEMORY:
        raise MemoryError("the CPU kernel found no memory for the cost of one item a thread")
    if code == NO_INSTRUCTION:
        raise Unavailable("this processor has no bfloat16 product (AVX512-BF16)")


@cache
def _outcome() -> ctypes.CDLL | Unavailable:
    """Once a process, also when it fails: a failed build is not tried again at every step."""
    try:
        return _declare(load_own(_built()))
    except Unavailable as reason:
        return reason
    except OSError as error:
        return Unavailable(f"the built kernel cannot be loaded: {error}")


def library() -> ctypes.CDLL:
    outcome = _outcome()
    if isinstance(outcome, Unavailable):
        raise outcome
    return outcome


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    address, integer, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    library.avalign_all_pairs.argtypes = [
        address, ctypes.c_int64, *[integer] * 4, *[address] * 3, *[real] * 4, integer, real, *[address] * 5,
        integer,
    ]  # fmt: skip
    library.avalign_all_pairs_plan.argtypes = [
        *[address] * 2, ctypes.c_int64, *[integer] * 4, *[address] * 5, real, *[address] * 2, integer,
    ]  # fmt: skip
    library.avalign_from_features.argtypes = [
        *[address] * 2, *[integer] * 6, *[address] * 3, real, integer, real, *[address] * 8, integer,
    ]  # fmt: skip
    library.avalign_from_cost.argtypes = [
        address, *[integer] * 3, *[address] * 3, real, integer, real, *[address] * 5, integer,
    ]  # fmt: skip
    library.avalign_bracket_from_features.argtypes = [
        *[address] * 2, *[integer] * 5, *[address] * 4, real, *[address] * 2, integer,
    ]  # fmt: skip
    library.avalign_bracket_from_cost.argtypes = [
        address, *[integer] * 3, *[address] * 4, real, *[address] * 2, integer,
    ]  # fmt: skip
    library.avalign_product_rate.argtypes = [integer, integer]
    library.avalign_product_rate.restype = ctypes.c_double
    return library


def _built() -> Path:
    """The shared library of this source, compiler and processor; built and saved under the cache folder."""
    compiler = _compiler()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    source = [path.read_text() for path in sorted(SOURCE.glob("*.[ch]pp"))]
    key = "\n".join([*source, *FLAGS, version, _processor()])
    name = f"sinkhorn-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    path = _cache_folder() / name
    if path.is_file() and not path.is_symlink() and who_else(path) is None:
        return path
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".so", delete=False) as scratch:
        pass
    try:
        command = [compiler, *FLAGS, str(SOURCE / "sinkhorn.cpp"), "-o", scratch.name]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode != 0:
            said = [line for line in made.stderr.splitlines() if "error" in line] or made.stderr.splitlines()
            raise Unavailable(f"{compiler} could not build the CPU kernel: {(said or ['no message'])[0]}")
        os.chmod(scratch.name, 0o700)  # the linker writes by the umask, which may let a group write
        os.replace(scratch.name, path)  # at once, whoever else builds it meanwhile
    finally:
        Path(scratch.name).unlink(missing_ok=True)
    return path


def _compiler() -> str:
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["c++", "g++", "clang++"]:
        if found := shutil.which(name):
            return found
    raise Unavailable(f"no C++ compiler was found ({wanted or 'c++, g++, clang++'})")


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _cache_folder() -> Path:
    folders, why = [], ""
    try:
        folders.append(cache_folder())
    except AvalignError as error:
        why = str(error)
    folders.append(Path(tempfile.gettempdir()) / f"avalign-{os.getuid()}")
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.access(folder, os.W_OK) and who_else(folder) is None:
                return folder.resolve()
        except OSError:
            continue
    why = why or who_else(folders[0]) or f"{folders[0]} cannot be written"
    raise Unavailable(f"nowhere to keep the CPU kernel: {why} (set AVALIGN_CACHE to a folder of your own)")
