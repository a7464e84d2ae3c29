"""The Q-Former is transformers' own on the same weights, sees its windows, and refuses what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avalign.encoders.positions import spans
from avalign.errors import AvalignError
from avalign.projectors.qformer import QFormer
from avalign.types import Tokens
from tests.helpers.contract.saved import stir
from tests.helpers.projectors import film, jacobian
from tests.helpers.strategies import generator, quick, seeds
from tests.helpers.tolerances import assert_close

DIM, HIDDEN, OUT, QUERIES = 12, 16, 6, 3
SIZES: dict[str, Any] = {"queries": QUERIES, "hidden": HIDDEN, "layers": 3, "heads": 2}


def qformer(dim_in: int = DIM, dim_out: int = OUT, **options: Any) -> QFormer:
    torch.manual_seed(0)
    return QFormer(dim_in, dim_out, **{**SIZES, **options})


def tokens(seed: int = 0, n: int = 7, d: int = DIM) -> Tokens:
    mask = torch.ones(2, n, dtype=torch.bool)
    mask[0, n // 2 + 1 :] = False
    return Tokens(torch.randn(2, n, d, generator=generator(seed)), mask)


def asked(seed: int, t: int = 4, d: int = OUT) -> Tokens:
    mask = torch.ones(2, t, dtype=torch.bool)
    mask[1, 2:] = False
    return Tokens(torch.randn(2, t, d, generator=generator(seed)), mask)


# -- BLIP-2's and InstructBLIP's weights ---------------------------------------------------------------------


def stock(instruct: bool = False) -> nn.Module:
    """A whole model of transformers, tiny; every weight random, so that none can be mistaken for another."""
    import transformers

    kind = "InstructBlip" if instruct else "Blip2"
    config = getattr(transformers, f"{kind}Config")(
        vision_config={
            **{"hidden_size": DIM, "intermediate_size": 8, "num_hidden_layers": 1},
            **{"num_attention_heads": 2, "image_size": 28},
        },
        qformer_config={
            **{"hidden_size": HIDDEN, "num_hidden_layers": 3, "num_attention_heads": 2},
            **{"intermediate_size": 24, "encoder_hidden_size": DIM, "vocab_size": 40},
        },
        text_config={
            **{"model_type": "opt", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
            **{"ffn_dim": 8, "vocab_size": 50, "word_embed_proj_dim": 8},
        },
        num_query_tokens=QUERIES,
    )
    torch.manual_seed(3)
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    stir(model)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints as transformers writes them, BLIP-2's in one file and InstructBLIP's in shards."""
    root = tmp_path_factory.mktemp("blip")
    stock().save_pretrained(root / "blip2")
    stock(instruct=True).save_pretrained(root / "instructblip", max_shard_size="20kB")
    assert len(list((root / "instructblip").glob("*.safetensors"))) > 2
    return {path.name: path for path in root.iterdir()}


def test_it_is_blip2s_own(folders: dict[str, Path]) -> None:
    """Of the same weights and the same masks, up to the norm before and the map after."""
    ours, theirs, before = qformer(init=str(folders["blip2"])), stock(), tokens()
    ours.out = nn.Identity()
    expected = theirs.qformer(
        query_embeds=theirs.query_tokens.expand(2, -1, -1),
        encoder_hidden_states=ours.norm(before.values),
        encoder_attention_mask=before.mask,
    ).last_hidden_state
    assert_close(ours.eval()(before).values, expected, torch.float32)


def test_it_is_instructblips_own(folders: dict[str, Path]) -> None:
    """Where the LLM's embeddings are BERT's and the map from them changes nothing."""
    ours, theirs = qformer(dim_out=HIDDEN, instruction=True, init=str(folders["instructblip"])), stock(True)
    before, ids = tokens(), torch.tensor([[5, 9, 2, 7], [8, 1, 0, 0]])
    words = Tokens(theirs.qformer.embeddings.word_embeddings(ids), asked(0).mask)
    ours.out = ours.words = nn.Identity()
    ours.words.weight = torch.zeros(())  # whose dtype the embeddings take
    expected = theirs.qformer(
        input_ids=ids,
        attention_mask=torch.cat([torch.ones(2, QUERIES, dtype=torch.bool), words.mask], 1),
        query_embeds=theirs.query_tokens.expand(2, -1, -1),
        encoder_hidden_states=ours.norm(before.values),
        encoder_attention_mask=before.mask,
    ).last_hidden_state[:, :QUERIES]
    assert_close(ours.eval()(before, instruction=words).values, expected, torch.float32)


def test_an_instructblip_can_begin_one_without_text(folders: dict[str, Path]) -> None:
    ours, theirs = qformer(init=str(folders["instructblip"])), stock(True)
    weights = theirs.qformer.state_dict()
    for name, weight in ours.qformer.state_dict().items():
        assert torch.equal(weight, weights[name if "encoder" in name else f"embeddings.{name}"]), name
    assert torch.equal(ours.queries, theirs.query_tokens[0])


def test_one_file_will_do_and_another_width_has_a_map_before_it(folders: dict[str, Path]) -> None:
    file = folders["blip2"] / "model.safetensors"
    whole, alone = qformer(init=str(folders["blip2"])), qformer(init=str(file))
    assert torch.equal(whole.eval()(tokens()).values, alone.eval()(tokens()).values)
    wider = qformer(20, init=str(folders["blip2"]))
    assert wider.read.weight.shape == (DIM, 20)
    assert torch.equal(wider.queries, whole.queries)
    assert wider(tokens(d=20)).values.isfinite().all()


def test_without_memory_it_has_the_checkpoints_sizes(folders: dict[str, Path]) -> None:
    with torch.device("meta"):
        ghost = qformer(20, init=str(folders["blip2"]))
    real = qformer(20, init=str(folders["blip2"]))
    assert {k: v.shape for k, v in ghost.named_parameters()} == {
        k: v.shape for k, v in real.named_parameters()
    }


def test_only_the_q_formers_files_are_read(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "part"
    folder.mkdir()
    index = json.loads((folders["instructblip"] / "model.safetensors.index.json").read_text())["weight_map"]
    ours = {file for name, file in index.items() if name.startswith("qformer.") or name == "query_tokens"}
    assert ours < set(index.values())
    for file in ("config.json", "model.safetensors.index.json", *ours):
        (folder / file).write_bytes((folders["instructblip"] / file).read_bytes())
    assert qformer(init=str(folder)).queries.any()
    (folder / min(ours)).unlink()
    with pytest.raises(AvalignError, match=f"{min(ours)}: no such file"):
        qformer(init=str(folder))


def change(change_it: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    """Write a checkpoint anew with other tensors."""

    def write(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        change_it(weights)
        save_file(weights, folder / "model.safetensors")

    return write


def cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def rename(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "model.safetensors").rename(folder / name) and None


KEY = "qformer.encoder.layer.2.crossattention.attention.key.weight"


@pytest.mark.parametrize(
    ("spoil", "options", "said"),
    [
        (None, {"layers": 2}, "its Q-Former is of layers 3, not 2 as in the recipe"),
        (None, {"heads": 4, "hidden": 32}, "of hidden 16, not 32, heads 2, not 4 as in the recipe"),
        (None, {"cross_every": 1}, "cross_every 2, not 1"),
        (None, {"queries": 4}, r"its queries are \(3, 16\), the recipe makes them \(4, 16\)"),
        (None, {"instruction": True}, "reads no text, so it cannot begin one with instruction: true"),
        (change(lambda w: w.pop(KEY)), {}, "1 missing: encoder.layer.2.crossattention.attention.key.weight"),
        (
            change(lambda w: w.update({KEY: torch.ones(16, 5)})),
            {},
            r"another shape: .*\(16, 5\) for \(16, 12\)",
        ),
        (change(lambda w: w.update({"qformer.extra": torch.ones(1)})), {}, "1 unexpected: extra"),
        (change(lambda w: w.pop("query_tokens")), {}, "holds no query_tokens"),
        (change(lambda w: w.pop(KEY.replace("2", "0"))), {}, "has no weight 'encoder.layer.0.cross"),
        (cut, {}, "is not a complete safetensors file"),
        (rename("pytorch_model.bin"), {}, "Only safetensors are read, others can run code"),
        (lambda f: (f / "config.json").write_text("{}"), {}, "config.json: has no qformer_config"),
        (lambda f: (f / "config.json").write_text("{"), {}, "config.json: is not JSON"),
        (lambda f: (f / "config.json").unlink(), {}, "config.json: no such file"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), {}, "has no weight_map"),
    ],
)
def test_what_does_not_fit_is_refused(
    folders: dict[str, Path], tmp_path: Path, spoil: Any, options: dict[str, Any], said: str
) -> None:
    for file in folders["blip2"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if spoil is not None:
        spoil(tmp_path)
    with pytest.raises(AvalignError, match=said) as error:
        qformer(init=str(tmp_path), **options)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AvalignError, match="nowhere: no such file or folder"):
        qformer(init=str(tmp_path / "nowhere"))
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(AvalignError, match=r"only \.safetensors files are read"):
        qformer(init=str(tmp_path / "model.pth"))


# -- windows -------------------------------------------------------------------------------------------------


@quick
@given(st.integers(1, 12), st.integers(1, 6), st.data())
def test_windows_cover_every_step_and_none_is_only_of_old_ones(frames: int, window: int, data: Any) -> None:
    stride = data.draw(st.integers(1, window))
    module = qformer(layers=1, window=window, stride=stride)
    index, inside = module._index(film(0, frames, 2))
    assert module.token_count(2 * frames, frames) == len(index) * QUERIES
    seen: set[int] = set()
    for row, real in zip(index.tolist(), inside.tolist(), strict=True):
        now = {k for k, is_real in zip(row, real, strict=True) if is_real}
        assert now - seen, "a window that sees nothing new"
        assert len(now) <= 2 * window
        seen |= now
    assert seen == set(range(2 * frames))


@pytest.mark.parametrize("steps", ["frames", "tokens"])
def test_a_windows_queries_see_only_their_window(steps: str) -> None:
    module = qformer(window=4, stride=3, steps=steps)
    frames, places = (9, 2) if steps == "frames" else (1, 9)
    before = film(0, frames, places) if steps == "frames" else tokens(n=9)
    before = replace(before, values=torch.randn(2, before.values.shape[1], DIM, generator=generator(1)))
    before.mask[:] = True
    reach = jacobian(module, before)
    count = 3  # starts at 0, 3 and 6: the last is of three steps
    assert reach.shape == (count * QUERIES, 9 * places if steps == "frames" else 9)
    assert module.token_count(before.values.shape[1], frames) == count * QUERIES
    each = 2 if steps == "frames" else 1
    for row in range(count * QUERIES):
        start = 3 * (row // QUERIES)
        assert reach[row].tolist() == [start <= k // each < start + 4 for k in range(9 * each)]


def test_a_window_is_what_its_steps_alone_would_be() -> None:
    """The last one too, which is short, with the sample's own instruction beside it."""
    options: dict[str, Any] = {"instruction": True, "time_aware": True, "steps": "tokens"}
    whole, part = qformer(**options, window=4, stride=3), qformer(**options)
    before, words = replace(tokens(n=9), times=spans(9, 9.0)), asked(0)
    found = whole(before, instruction=words)
    for k, start in enumerate((0, 3, 6)):
        steps = slice(start, min(start + 4, 9))
        values, mask, times = before.values[:, steps], before.mask[:, steps], before.times[steps]
        alone = part(Tokens(values, mask, times=times), instruction=words)
        queries = slice(k * QUERIES, (k + 1) * QUERIES)
        assert torch.equal(found.mask[:, queries], alone.mask)
        assert_close(found.values[:, queries][alone.mask], alone.values[alone.mask], torch.float32)


def test_windows_know_their_times_and_what_is_real() -> None:
    module = qformer(window=2, stride=1, steps="tokens")
    short = replace(tokens(n=4), times=spans(4, 8.0))
    short.mask[0, 2:] = False
    heard = module(short)
    assert_close(heard.times[::QUERIES], [[0, 4], [2, 6], [4, 8]], torch.float32)
    assert torch.equal(heard.times[0].expand(QUERIES, 2), heard.times[:QUERIES])
    assert heard.mask[0].view(3, QUERIES).tolist() == [[True] * 3, [True] * 3, [False] * 3]
    shown = _wide(film(0, 4, 2, shift=1.0))  # at 1, 2, 3, 4 s; the first lacks the last
    seen = qformer(window=3, stride=2)(shown)
    assert_close(seen.frame_times[:, ::QUERIES], [[2, 3], [2, 3.5]], torch.float32)
    assert seen.times is None
    assert seen.mask.all()
    whole = qformer()(replace(tokens(n=4), times=spans(4, 8.0)))
    assert (whole.times, whole.frame_times) == (None, None)


def _wide(of: Tokens) -> Tokens:
    n = of.values.shape[1]
    return replace(of, values=torch.randn(2, n, DIM, generator=generator(2)))


# -- time and the instruction --------------------------------------------------------------------------------


@pytest.mark.parametrize("time_aware", [False, True])
def test_only_a_time_aware_one_knows_when(time_aware: bool) -> None:
    module = qformer(time_aware=time_aware)
    sounds = [replace(tokens(), times=spans(7, 7.0) + shift) for shift in (0.0, 0.5)]
    films = [_wide(film(0, 3, 2, shift=shift)) for shift in (0.0, 0.5)]
    for one, other in (sounds, films):
        moved = (module(one).values - module(other).values).abs().max()
        assert moved > 1e-3 if time_aware else moved == 0


def test_the_instruction_is_read_by_order_and_only_what_is_real_of_it() -> None:
    module, before, words = qformer(instruction=True), tokens(), asked(0)
    stir(module)
    plain = module(before, instruction=words).values
    for other in (asked(1), replace(words, values=words.values.flip(1), mask=words.mask)):
        assert (module(before, instruction=other).values - plain).abs().amax((1, 2)).min() > 1e-4
    loud = replace(words, values=torch.where(words.mask[..., None], words.values, torch.tensor(1e3)))
    assert torch.equal(module(before, instruction=loud).values, plain)
    nothing = Tokens(torch.zeros(2, 1, OUT), torch.zeros(2, 1, dtype=torch.bool))
    assert module(before, instruction=nothing).values.isfinite().all()


@quick
@given(seeds)
def test_queries_differ_from_the_first(seed: int) -> None:
    """BLIP-2's begin at 0 in transformers: equal queries would stay equal for ever."""
    found = qformer()(tokens(seed)).values
    assert found.std(1).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"queries": 0}, "queries is 0"),
        ({"window": 0}, "window is 0"),
        ({"heads": 3}, "3 heads cannot share a width of 16"),
        ({"stride": 2}, "stride 2 with window None"),
        ({"window": 2, "stride": 3}, "stride 3 with window 2 leaves steps out"),
        ({"steps": "seconds"}, "steps 'seconds' is not known. Known: frames, tokens"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        qformer(**options)


def test_what_cannot_be_read_is_said() -> None:
    with pytest.raises(ValueError, match="reads the prompt, which connectors are given"):
        qformer(instruction=True)(tokens())
    with pytest.raises(ValueError, match="an instruction of 513 tokens is longer than the 512"):
        qformer(instruction=True)(tokens(), instruction=asked(0, 513))
    with pytest.raises(ValueError, match="audio has no frames for its window: set steps: tokens"):
        qformer(window=2)(replace(tokens(), times=spans(7, 7.0)))
