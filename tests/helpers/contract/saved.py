"""What all modules keep to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.helpers.tolerances import assert_close

SEED = 5


def stir(module: nn.Module) -> None:
    """Move every weight a little, so that nothing is hidden by beginning at 0 (as half of LoRA does)."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.is_floating_point():
                weight += 0.05 * torch.randn(weight.shape, generator=generator)


def noise(*shape: int, seed: int = SEED) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def projection(tensors: list[Tensor]) -> Tensor:
    """A scalar to which every entry counts, by another factor each (norms make sums and squares constant)."""
    return torch.stack([(tensor.float() * noise(*tensor.shape)).sum() for tensor in tensors]).sum()


def assert_every_weight_learns(module: nn.Module, outputs: list[Tensor]) -> None:
    trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    if not trained:
        return
    found = torch.autograd.grad(projection(outputs), list(trained.values()), allow_unused=True)
    for name, gradient in zip(trained, found, strict=True):
        assert gradient is not None, f"{name} is not reached"
        assert gradient.isfinite().all(), name
        assert gradient.count_nonzero(), f"the gradient of {name} is 0"


def assert_near_in_bf16(run: Callable[[], list[Tensor]]) -> None:
    """Under autocast: no error, finite, and as near to float32 as 8 bits through some layers leave it."""
    with torch.no_grad():
        full = run()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = run()
    for exact, rounded in zip(full, low, strict=True):
        assert rounded.isfinite().all()
        assert (rounded.float() - exact).norm() <= 0.1 * exact.norm()


def assert_saved_to_the_bit(
    first: nn.Module, second: nn.Module, run: Callable[[nn.Module], list[Tensor]], file: Path
) -> None:
    """`second`, of the same options but another seed, computes the same once it has `first`'s weights."""
    with torch.no_grad():
        expected = run(first)
        before = run(second)
        if any(True for _ in first.parameters()):
            assert any(not torch.equal(a, b) for a, b in zip(expected, before, strict=True))
        save_file({name: weight.clone().contiguous() for name, weight in first.state_dict().items()}, file)
        second.load_state_dict(load_file(file), strict=True)
        for a, b in zip(expected, run(second), strict=True):
            assert torch.equal(a, b)


def assert_compiles(component: nn.Module, learnt: Iterable[Tensor], run: Callable[[], list[Tensor]]) -> None:
    """`run`, which calls `component`, computes the same under torch.compile, gradients of `learnt` too.

    A class that torch cannot compile says why in its attribute `not_compiled`, and then indeed cannot be.
    """
    why = component.not_compiled
    weights = [weight for weight in learnt if weight.requires_grad]

    def found(call: Callable[[], list[Tensor]]) -> list[Tensor]:
        outputs = call()
        gradients = torch.autograd.grad(projection(outputs), weights, retain_graph=True) if weights else ()
        return [*(tensor.detach().float() for tensor in outputs), *gradients]

    expected = found(run)
    torch._dynamo.reset()
    compiled = torch.compile(run, backend="aot_eager")
    if why is not None:
        assert len(why.split()) > 2, "a reason is a sentence"
        with pytest.raises(Exception):  # noqa: B017, PT011 (whatever torch says; the reason is ours)
            found(compiled)
        return
    # the graph is kept, as components share one: a compiled one's buffers may then not be given away
    with torch._functorch.config.patch(donated_buffer=False), warnings.catch_warnings():
        # torch asks tensors between its graphs for gradients they do not keep
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf", UserWarning)
        # transformers asks whether it runs under FSDP through a cached function, whose answer does not change
        warnings.filterwarnings("ignore", "Dynamo detected a call to a .functools.lru_cache", UserWarning)
        results = found(compiled)
    for one, other in zip(expected, results, strict=True):
        largest = one.abs().max().clamp(min=1)  # a gradient is a sum, and iterations as its largest terms do
        assert_close(other / largest, one / largest, torch.float32)
