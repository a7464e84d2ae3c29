"""The querying transformer of BLIP-2 and its kin, with what InstructBLIP and TimeChat added to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avalign.errors import AvalignError
from avalign.interfaces import Projector
from avalign.layers.position_embedding import TimeEmbedding
from avalign.projectors.blip2_checkpoint import QFormerCheckpoint, read_qformer
from avalign.types import Tokens

WORDS = 512  # positions that BERT, which BLIP-2's Q-Former began as, has for text


class QFormer(nn.Module, Projector):
    """Learnt queries that attend to each other (and to the instruction), and now and then to the tokens.

    (b, n, dim_in) -> (b, windows * queries, dim_out). The transformer is transformers' own Blip2QFormerModel;
    before it stands a norm (BLIP-2's vision tower ends in one), after it one linear map. As in BLIP-2, the
    position of tokens is not told: an image encoder's tokens hold their own. What comes out is masked where a
    window has no real token.

    Source: BLIP-2, arXiv:2301.12597; instruction: InstructBLIP, arXiv:2305.06500, X-InstructBLIP,
            arXiv:2311.18799; time and windows: TimeChat, arXiv:2312.02051. There the instruction is embedded
            by BERT's words and a frame's time is written out ("This frame is sampled at 2s."); here the LLM's
            embeddings of the prompt pass through a linear map, and seconds through Fourier features

    queries:     tokens that come out, of each window
    hidden:      width of the queries
    layers:      of self-attention and feed-forward (BLIP-2 has 12, Video-LLaMA 2)
    heads:       of each attention; they share `hidden`
    cross_every: the first layer reads the tokens, and every so manyth after it
    instruction: whether the prompt's text joins the queries' self-attention; for connectors only
    time_aware:  whether the seconds of frames or of audio clips are added to the tokens
    seconds:     length that the time features span
    window:      steps that a set of queries sees; all when not given
    stride:      steps from one window to the next; `window` when not given
    steps:       what window and stride count: frames (a still is one), or tokens (of audio)
    dropout:     inside the transformer (BLIP-2 was trained with 0.1)
    init:        folder (config.json, safetensors) or .safetensors file of a BLIP-2 or InstructBLIP in
                 transformers' format: its Q-Former, queries and positions are loaded, and its other parts are
                 left out, its word table too. If it read tokens of another width than dim_in, a linear map
                 from dim_in to that width goes before. Only an InstructBLIP can begin an `instruction: true`
    """

    joins_frames = True

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        *,
        queries: int = 32,
        hidden: int = 768,
        layers: int = 12,
        heads: int = 12,
        cross_every: int = 2,
        instruction: bool = False,
        time_aware: bool = False,
        seconds: float = 10.0,
        window: int | None = None,
        stride: int | None = None,
        steps: Literal["frames", "tokens"] = "frames",
        dropout: float = 0.0,
        init: str | None = None,
    ) -> None:
        super().__init__()
        from transformers import Blip2QFormerConfig
        from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel

        counts = {"queries": queries, "layers": layers, "heads": heads, "cross_every": cross_every}
        for name, count in {**counts, "window": window, "stride": stride}.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}: at least one is needed")
        if hidden % heads:
            raise ValueError(
                f"{heads} heads cannot share a width of {hidden}: it has to be a multiple of them"
            )
        if stride is not None and (window is None or stride > window):
            raise ValueError(f"stride {stride} with window {window} leaves steps out: stride <= window")
        if steps not in ("frames", "tokens"):
            raise ValueError(f"steps {steps!r} is not known. Known: frames, tokens")
        checkpoint = None if init is None else read_qformer(Path(init))
        width = dim_in if checkpoint is None else checkpoint.reads
        sizes: dict[str, Any] = {
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "cross_attention_frequency": cross_every,
        }
        settings = {**sizes, "intermediate_size": 4 * hidden}
        if checkpoint is not None:
            settings |= _agreed(checkpoint, sizes)
        config = Blip2QFormerConfig(
            **settings,
            encoder_hidden_size=width,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            use_qformer_text_input=instruction,
            attn_implementation="sdpa",
        )
        self.window, self.stride, self.steps = window, window if stride is None else stride, steps
        self.norm = nn.LayerNorm(dim_in)
        self.read = nn.Identity() if width == dim_in else nn.Linear(dim_in, width)
        self.time = TimeEmbedding(width, seconds=seconds) if time_aware else None
        self.queries = nn.Parameter(0.02 * torch.randn(queries, hidden))
        self.qformer = Blip2QFormerModel(config)
        self.out = nn.Linear(hidden, dim_out)
        self.wants = ("instruction",) if instruction else ()
        if instruction:
            self.words = nn.Linear(dim_out, hidden)
            self.word_places = nn.Parameter(0.02 * torch.randn(WORDS, hidden))
            # what the last layer makes of the text is not read by anything
            last = self.qformer.encoder.layer[-1]
            last.intermediate.requires_grad_(False)
            last.output.requires_grad_(False)
        if checkpoint is not None and not self.queries.is_meta:  # a model without memory has only sizes
            self._load(checkpoint)

    def token_count(self, n: int, frames: int = 1) -> int:
        return self._windows(n if self.steps == "tokens" else frames) * len(self.queries)

    def _windows(self, steps: int) -> int:
        """How many windows cover so many steps; the last one may be short."""
        if self.window is None or self.stride is None or steps <= self.window:
            return 1
        return 1 + -(-(steps - self.window) // self.stride)

    def forward(self, tokens: Tokens, *, instruction: Tokens | None = None) -> Tokens:
        values = self.read(self.norm(tokens.values.masked_fill(~tokens.mask[..., None], 0.0)))
        if self.time is not None:
            values = values + self.time(tokens)
        index, inside = self._index(tokens)
        windows = len(index)
        windowed = values[:, index].flatten(0, 1)  # (b * windows, tokens of one, width)
        real = (tokens.mask[:, index] & inside).flatten(0, 1)
        found = self._ask(windowed, real, self._text(instruction, windows))
        count = len(self.queries)
        mask = real.any(1).unflatten(0, (-1, windows)).repeat_interleave(count, 1)
        times, frame_times = self._times(tokens, index, inside) if self.window is not None else (None, None)
        out = self.out(found).unflatten(0, (-1, windows)).flatten(1, 2)
        return Tokens(out, mask, times=times, frame_times=frame_times)

    def _ask(self, tokens: Tensor, real: Tensor, text: tuple[Tensor, Tensor] | None) -> Tensor:
        """The queries after all layers. (b, n, width), (b, n) -> (b, queries, hidden)"""
        asking = self.queries.expand(len(tokens), -1, -1)
        count, query_mask = asking.shape[1], None
        if text is not None:
            words, spoken = text
            asking = torch.cat([asking, words], 1)
            query_mask = torch.cat([spoken.new_ones(len(tokens), count), spoken], 1)[:, None, None]
        some = real.any(1, keepdim=True)
        # Not the model's own forward: it shapes the mask of the tokens for queries and text together, and
        # only the queries read tokens.
        asking = self.qformer.dropout(self.qformer.layernorm(asking))
        found: Tensor = self.qformer.encoder(
            asking,
            attention_mask=query_mask,
            encoder_hidden_states=tokens,
            encoder_attention_mask=(real | ~some)[:, None, None],  # a row without a key has no softmax
            query_length=count,
        ).last_hidden_state
        return found[:, :count]

    def _text(self, instruction: Tokens | None, windows: int) -> tuple[Tensor, Tensor] | None:
        """The instruction as queries are, once for every window. -> (b * windows, t, hidden), mask"""
        if not self.wants:
            return None
        if instruction is None:
            raise ValueError(
                "projector 'qformer' with instruction: true reads the prompt, which connectors are given"
            )
        length = instruction.values.shape[1]
        if length > len(self.word_places):
            raise ValueError(
                f"an instruction of {length} tokens is longer than the {len(self.word_places)} of projector "
                "'qformer': shorten the prompt or set instruction: false"
            )
        values = instruction.values.masked_fill(~instruction.mask[..., None], 0.0)
        words = self.words(values.to(self.words.weight.dtype)) + self.word_places[:length]
        return words.repeat_interleave(windows, 0), instruction.mask.repeat_interleave(windows, 0)

    def _index(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Which tokens each window sees, and which of them are inside the sequence. -> (windows, k) twice"""
        n, device = tokens.values.shape[1], tokens.values.device
        if self.window is not None and self.steps == "frames" and tokens.times is not None:
            raise ValueError("projector 'qformer': audio has no frames for its window: set steps: tokens")
        steps = n if self.steps == "tokens" else tokens.frames
        each, length = n // steps, steps if self.window is None else min(self.window, steps)
        starts = torch.arange(self._windows(steps), device=device) * (self.stride or 0)
        at = starts[:, None] + torch.arange(length, device=device)
        index = (at.clamp(max=steps - 1)[..., None] * each + torch.arange(each, device=device)).flatten(1)
        return index, (at < steps).repeat_interleave(each, 1)

    def _times(self, tokens: Tokens, index: Tensor, inside: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The span of each window of audio (windows * queries, 2), the mean time of each window's real
        frames (b, windows * queries)."""
        count, times = len(self.queries), tokens.times
        if tokens.frame_times is not None:
            real = (tokens.mask[:, index] & inside).to(tokens.frame_times.dtype)
            mean = (tokens.frame_times[:, index] * real).sum(2) / real.sum(2).clamp(min=1)
            return None, mean.repeat_interleave(count, 1)
        if times is None:
            return None, None
        last = inside.sum(1, keepdim=True) - 1
        ends = times[:, 1][index.gather(1, last)[:, 0]]
        return torch.stack([times[:, 0][index[:, 0]], ends], 1).repeat_interleave(count, 0), None

    def _load(self, checkpoint: QFormerCheckpoint) -> None:
        from avalign.weights.pretrained import load_all

        source, text = checkpoint.source, bool(self.wants)
        if text and not (checkpoint.takes_text and checkpoint.positions is not None):
            raise AvalignError(
                f"{source}: its Q-Former reads no text, so it cannot begin one with instruction: true. Take "
                "an InstructBLIP's, or set instruction: false."
            )
        weights = checkpoint.weights if text else checkpoint.without_text()
        load_all(self.qformer, weights, source)
        own = {"queries": checkpoint.queries.squeeze(0)}
        if text and checkpoint.positions is not None:
            own["word_places"] = checkpoint.positions
        for name, weight in own.items():
            held = getattr(self, name)
            if weight.shape != held.shape:
                raise AvalignError(
                    f"{source}: its {name} are {tuple(weight.shape)}, the recipe makes them "
                    f"{tuple(held.shape)}."
                )
            with torch.no_grad():
                held.copy_(weight)


def _agreed(checkpoint: QFormerCheckpoint, sizes: dict[str, Any]) -> dict[str, Any]:
    """The other settings of a checkpoint that is of these sizes; AvalignError if it is of others."""
    from transformers import Blip2QFormerConfig

    if checkpoint.settings is None:  # a file alone: load_all compares what can be told from shapes
        inner = checkpoint.weights.get("encoder.layer.0.intermediate_query.dense.weight")
        return {} if inner is None else {"intermediate_size": len(inner)}
    theirs = {**Blip2QFormerConfig().to_dict(), **checkpoint.settings}
    options = dict(zip(sizes, ("hidden", "layers", "heads", "cross_every"), strict=True))
    wrong = [
        f"{options[name]} {theirs[name]}, not {size}" for name, size in sizes.items() if theirs[name] != size
    ]
    if wrong:
        raise AvalignError(f"{checkpoint.source}: its Q-Former is of {', '.join(wrong)} as in the recipe.")
    return {name: theirs[name] for name in ("intermediate_size", "hidden_act", "layer_norm_eps")}
