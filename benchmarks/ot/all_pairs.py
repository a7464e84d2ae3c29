"""Every image of a batch against every audio clip: transport beside the products that anyone must make.

    python benchmarks/ot/all_pairs.py --shape 64x196x64x512 --out results

A step is the contrastive loss over all B x B pairs and both gradients. Beside it: the three products alone
(all features with all, and the gradient to either side); max_mean and soft attention in torch, as the loss
`contrastive` has them; OTT-JAX and POT's ot.batch on one row of B pairs, times B (all of them would not fit
into memory). All in one process, in an order drawn anew for each repeat, one at work at a time; medians.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from avalign.bench.bench_loss import competitors
from avalign.bench.competitor import Settings
from avalign.bench.inputs import Features, Shape, generate
from avalign.losses import Contrastive

EPSILON, TOLERANCE = 0.1, 1e-3
PEERS = ("ott-kernel", "pot-batch-detached")


def ways(features: Features) -> dict[str, tuple[Callable[[], Any], int]]:
    """name -> (what takes a step, how many of its steps make one of the batch)"""
    image, audio = (side.clone().requires_grad_() for side in (features.image, features.audio))
    b = len(image)
    x, y = (F.normalize(side.detach(), dim=2).flatten(0, 1) for side in (image, audio))

    def products() -> None:
        similarity = x @ y.T
        _ = similarity @ y, similarity.T @ x

    def contrastive(**options: Any) -> Callable[[], Any]:
        loss = Contrastive(**options)
        return lambda: torch.autograd.grad(loss(image, audio), (image, audio))

    found: dict[str, tuple[Callable[[], Any], int]] = {
        "three products": (products, 1),
        "transport, semi-relaxed (rho_image 0.02)": (contrastive(similarity="transport", epsilon=EPSILON), 1),
        "transport, balanced": (
            contrastive(similarity="transport", epsilon=EPSILON, rho_image=float("inf")),
            1,
        ),
        "soft attention, torch": (contrastive(similarity="soft_attention", epsilon=EPSILON), 1),
        "max_mean, torch": (contrastive(similarity="max_mean"), 1),
    }
    row = Features(features.image[:1].expand(b, -1, -1).contiguous(), features.audio)
    for peer in competitors(PEERS):
        ready = peer.prepare(row, Settings(EPSILON, tolerance=TOLERANCE))
        found[f"{peer.name}, balanced, a row x {b}"] = (ready.step, b)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="64x196x64x512")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = Shape.read(options.shape)
    steps = ways(generate("structured", shape, seed=0))
    if options.no_peers:
        steps = {name: step for name, step in steps.items() if step[1] == 1}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(options.repeats + 1):  # the first one warms up
        for name in random.Random(repeat).sample(list(steps), len(steps)):
            step, times = steps[name]
            start = time.perf_counter()
            step()
            spent = (time.perf_counter() - start) * times
            if repeat:
                seconds[name].append(spent)
    median = {name: statistics.median(spent) for name, spent in seconds.items()}
    floor = median["three products"]
    print(f"{shape}, {options.threads} threads, float32, epsilon {EPSILON}, to {TOLERANCE}\n")
    print("| step | median s | least, most | x three products |\n|---|---|---|---|")
    for name, spent in seconds.items():
        ends = f"{min(spent):.3g}, {max(spent):.3g}"
        print(f"| {name} | {median[name]:.3g} | {ends} | {median[name] / floor:.2f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nPeak memory of the process, whatever ran in it: {peak:.2f} GiB")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        found = {
            "shape": str(shape),
            "threads": options.threads,
            "torch": torch.__version__,
            "seconds": seconds,
        }
        (options.out / f"all-pairs-{shape}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
