"""Time and memory of encoders at full size, with random weights: python benchmarks/encoders.py

python benchmarks/encoders.py --batch 4 --repeats 5
python benchmarks/encoders.py --image 'clip: {model: openai/clip-vit-large-patch14}' --audio clap

Each encoder is written as in a recipe, `pretrained: false` added. Forward is without gradients, as of frozen
encoders; memory is what a run needs beyond the weights, their gradients included. All runs are interleaved.
A GPU is used where there is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import yaml

from avalign import registry
from avalign.bench.machine import all_versions, describe, warnings_of
from avalign.bench.measure import Times, interleaved, peak_memory

HEADER = (
    *("encoder", "tokens", "width", "parameters", "forward s/sample", "quartiles", "forward MiB"),
    *("fwd + bwd s/sample", "quartiles", "fwd + bwd MiB"),
)


def built(kind: str, written: str) -> tuple[str, Any]:
    """'clip: {size: 336}' -> the name shown, and the encoder with random weights."""
    read = yaml.safe_load(written)
    ((name, options),) = read.items() if isinstance(read, dict) else ((read, {}),)
    component = registry.load(kind, name)
    options = dict(options or {})
    if "pretrained" in registry.options(component):
        options["pretrained"] = False
    torch.manual_seed(0)
    shown = options.get("model") or getattr(registry.options(component).get("model"), "default", "")
    return f"{name} {shown}".strip(), component(**options).eval()


def batch_for(kind: str, encoder: Any, batch: int) -> torch.Tensor:
    """Noise, prepared as a picture or a sound is."""
    rng = np.random.default_rng(0)
    if kind == "image_encoder":
        side = encoder.size
        made = [encoder.preprocessing(rng.integers(0, 256, (side, side, 3), np.uint8)) for _ in range(batch)]
    else:
        count, rate = int(encoder.seconds * encoder.sample_rate), encoder.sample_rate
        heard = [(0.1 * rng.standard_normal(count)).astype(np.float32) for _ in range(batch)]
        made = [encoder.preprocessing(audio, rate) for audio in heard]
    return torch.stack(made)


def forward(encoder: Any, x: torch.Tensor) -> Callable[[], Any]:
    def run() -> Any:
        with torch.no_grad():
            return encoder(x).values

    return run


def backward(encoder: Any, x: torch.Tensor) -> Callable[[], Any]:
    def run() -> None:
        encoder(x).values.square().mean().backward()
        for weight in encoder.parameters():
            weight.grad = None

    return run


def row(shown: str, encoder: Any, batch: int, times: dict[str, Times], memory: dict[str, int | None]) -> str:
    cells = [
        *(shown, str(encoder.token_count), str(encoder.width)),
        f"{sum(weight.numel() for weight in encoder.parameters()) / 1e6:.1f} M",
    ]
    for way in ("forward", "both"):
        low, high = times[way].quartiles
        peak = memory[way]
        cells += [f"{times[way].median / batch:.3f}", f"{low / batch:.3f} to {high / batch:.3f}"]
        cells.append("not counted" if peak is None else f"{peak / 2**20:.0f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--image", action="append", help="an image encoder; may be given several times")
    parser.add_argument("--audio", action="append", help="an audio encoder; may be given several times")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine, versions = describe(device), all_versions()
    asked = [("image_encoder", one) for one in given.image or ["timm"]]
    asked += [("audio_encoder", one) for one in given.audio or ["clap"]]

    encoders, runs, memory = {}, {}, {}
    for number, (kind, written) in enumerate(asked):
        shown, encoder = built(kind, written)
        encoder = encoder.to(device)
        x = batch_for(kind, encoder, given.batch).to(device)
        found = encoder(x).values.shape
        assert found == (given.batch, encoder.token_count, encoder.width), found
        encoders[number] = (shown, encoder)
        runs |= {(number, "forward"): forward(encoder, x), (number, "both"): backward(encoder, x)}
    for key, run in runs.items():
        run()  # warm
        memory[key] = peak_memory(run, device)
    times = interleaved(runs, given.repeats, device, budget=120)

    names = ("torch", "transformers", "timm", "numpy", "python")
    print(
        f"{machine.get('gpu', machine['processor'])}, {machine['threads']} of {machine['cores']} threads;",
        end=" ",
    )
    print(", ".join(f"{name} {versions[name]}" for name in names), f"; avalign {versions['commit']}", sep="")
    print(
        f"batch {given.batch}, float32, {given.repeats} repeats, interleaved; load {machine['load_before']}"
    )
    for line in warnings_of(machine):
        print(f"warning: {line}")
    print("\n| " + " | ".join(HEADER) + " |\n|" + " --- |" * len(HEADER))
    for number, (shown, encoder) in encoders.items():
        ways = ("forward", "both")
        print(
            row(
                shown,
                encoder,
                given.batch,
                {way: times[number, way] for way in ways},
                {way: memory[number, way] for way in ways},
            )
        )


if __name__ == "__main__":
    main()
