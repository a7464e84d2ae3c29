"""Every loss on one batch, of which two processes hold a half each.

`python -m tests.helpers.contract.processes FOLDER`. Each leaves what it found in FOLDER: the total, and the
gradients of what the loss reads and of its weights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

from avalign import registry
from avalign.losses.objective import Objective, refuse_unreachable
from avalign.types import Batch, Outputs
from tests.helpers.contract.saved import stir
from tests.helpers.objectives import example, rows

SIZE = 8  # of the batch; the halves hold 3 pairs and 1


# what is compared: a loss's name, or a name of its own for one with options
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "contrastive by transport": ("contrastive", {"similarity": "transport"}),
    "siglip by soft attention": ("siglip", {"similarity": "soft_attention"}),
    "avopt against the batch": ("avopt", {"negatives": "batch"}),
}


def objective(name: str) -> Objective:
    loss_name, options = VARIANTS.get(name, (name, {}))
    loss = registry.load("loss", loss_name)(**options)
    stir(loss)
    return Objective({name: (loss, 1.0)})


def batch() -> tuple[Outputs, Batch, dict[str, Tensor]]:
    outputs, given, parameters = example(SIZE)
    given.has_audio[2] = outputs.audio.mask.new_tensor(True)
    given.has_audio[5] = outputs.audio.mask.new_tensor(False)
    outputs.audio.mask = given.has_audio[:, None].expand(outputs.audio.mask.shape)
    return outputs, given, parameters


def found(name: str, part: slice) -> dict[str, Tensor]:
    """Of these rows of the batch. Named by what they are: total, given/image, weight/log_temperature."""
    outputs, given, parameters = batch()
    term = objective(name)
    total = term.terms(*rows(outputs, given, part))[name].total
    total.backward()
    learnt = {f"given/{key}": tensor for key, tensor in parameters.items()}
    learnt |= {f"weight/{key}": weight for key, weight in term.losses[name].named_parameters()}
    gradients = {key: tensor.grad for key, tensor in learnt.items() if tensor.grad is not None}
    return {"total": total.detach(), **gradients}


def judge(name: str, part: slice) -> None:
    """Ask whether the loss teaches, of a batch whose second half has no sound: both halves come to an end."""
    outputs, given, parameters = batch()
    given.has_audio[SIZE // 2 :] = False
    terms = objective(name).terms(*rows(outputs, given, part))
    refuse_unreachable(terms, [nn.Parameter(torch.zeros(1)), *parameters.values()])


def main(folder: Path) -> None:
    rank = 0 if os.fork() else 1  # so that torch is imported once
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    half = SIZE // 2
    for name in (*registry.names("loss"), *VARIANTS):
        results = found(name, slice(rank * half, (rank + 1) * half))
        save_file({key: tensor.contiguous() for key, tensor in results.items()}, folder / f"{name}-{rank}")
        judge(name, slice(rank * half, (rank + 1) * half))
    distributed.barrier()
    distributed.destroy_process_group()
    if rank == 1:
        os._exit(0)
    if os.wait()[1] != 0:
        sys.exit("the other process failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
