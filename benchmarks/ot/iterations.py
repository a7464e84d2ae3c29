"""How many iterations Sinkhorn needs, plain and relaxed: python benchmarks/ot/iterations.py

To a marginal error of 1e-3, mean and worst of a batch of structured features; a Markdown table. Plain
iterations are counted by solving anew with 8 % more of them each time, until every item is done.
"""

from __future__ import annotations

import argparse
import warnings

import torch

from avalign.bench.inputs import Shape, generate
from avalign.ot import NotConverged, cosine_sinkhorn

SHAPES = ((64, 196, 64, 512), (32, 196, 512, 768), (4, 1024, 1024, 512))
EPSILONS = (0.05, 0.02, 0.01, 0.005)
TOLERANCE = 1e-3


def plain(x: torch.Tensor, y: torch.Tensor, epsilon: float, most: int) -> torch.Tensor:
    """Iterations of each item, 0 where `most` were not enough."""
    found, iterations = torch.zeros(len(x), dtype=torch.long), 2
    while (found == 0).any() and iterations <= most:
        error = cosine_sinkhorn(x, y, epsilon=epsilon, iterations=iterations, tolerance=None).marginal_error
        found[(found == 0) & (error <= TOLERANCE)] = iterations
        iterations = max(iterations + 2, int(1.08 * iterations))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--most", type=int, default=6000, help="plain iterations")
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    warnings.simplefilter("ignore", NotConverged)
    print("| shape | epsilon | plain | relaxed |\n|---|---|---|---|")
    for shape in SHAPES:
        for epsilon in EPSILONS:
            slow, quick = [], []
            for seed in range(given.seeds):
                features = generate("structured", Shape(*shape), seed)
                with torch.no_grad():
                    slow.append(plain(features.image, features.audio, epsilon, given.most))
                    settings = {"epsilon": epsilon, "iterations": 20_000, "tolerance": TOLERANCE}
                    quick.append(cosine_sinkhorn(features.image, features.audio, **settings).iterations)
            counts, ours = torch.cat(slow), torch.cat(quick)
            worst = str(int(counts.max())) if (counts > 0).all() else f"> {given.most}"
            mean = f"{counts.double().mean():.0f}" if (counts > 0).all() else ""
            print(
                f"| {'x'.join(map(str, shape))} | {epsilon} | {mean} / {worst} "
                f"| {ours.double().mean():.0f} / {int(ours.max())} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
