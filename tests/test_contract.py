"""What every registered component keeps to, whoever wrote it: a new one is tested by being registered.

It is built with its own defaults. One whose defaults ask for a download, a folder or much memory has its
smallest options in TINY.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avalign import registry
from avalign.batch import Tokens
from avalign.collate import check
from avalign.encoders.places import patch_boxes, spans
from avalign.grammar import write_box
from avalign.llm import AUDIO, IMAGE, LanguageModel, SmallLlama
from avalign.losses import LossValue
from avalign.losses.objective import Objective
from avalign.meerkatbench.evaluate import TASKS as SCORERS
from tests.test_encoders_pretrained import TINY_CLAP
from tests.test_objective import example, rows
from tests.test_paired_folder import LOOKS, write_folder
from tests.tolerances import assert_close

pytestmark = pytest.mark.filterwarnings(  # peft asks transformers for it by the old name
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
TEXTS = [f"Which object makes the sound? [dog, 0.1{k}, 0.2{k}, 0.5{k}, 0.9{k}] True False" for k in range(10)]
SPLITS = ("train", "val", "test")
DIM, GRID, SPANS = 16, 4, 6  # of the tokens that projectors and fusions are given
SEED = 5


# ---- how they are built --------------------------------------------------------------------------


def tiny_llama(folder: Path) -> str:
    """A model and its tokenizer in Hugging Face's format."""
    stock = SmallLlama(TEXTS, hidden=16, layers=1, heads=2)
    stock.lm.save_pretrained(folder / "llama")
    stock.tokenizer.save_pretrained(folder / "llama")
    return str(folder / "llama")


# What cannot be had with defaults in a test. Given a folder, the options; for a source, "root" besides.
TINY: dict[tuple[str, str], Callable[[Path], dict[str, Any]]] = {
    ("image_encoder", "timm"): lambda folder: {"model": "test_vit", "pretrained": False},
    ("audio_encoder", "clap"): lambda folder: {"pretrained": False, "config": TINY_CLAP},
    ("llm", "huggingface"): lambda folder: {"model": tiny_llama(folder), "rank": 2, "dropout": 0.0},
    ("source", "avworld"): lambda folder: {"root": str(folder), "train": 40, "val": 20, "test": 20},
    ("source", "paired_folder"): lambda folder: {
        **{"root": str(write_folder(folder / "zoo")), "classes": list(LOOKS)},
        **{"seconds": 2.0, "canvas": 64, "sample_rate": 8000},
    },
}

# What build.py wires into each kind, beside its options.
WIRED: dict[str, tuple[Any, ...]] = {
    "image_encoder": (),
    "audio_encoder": (),
    "projector": (DIM, 24),
    "fusion": (DIM,),
    "loss": (),
    "llm": (TEXTS,),
    "source": (),
}


def every(kind: str) -> Any:
    """Parametrises a test with all components of a kind."""
    return pytest.mark.parametrize("name", registry.names(kind))


EVERYTHING = [(kind, name) for kind in registry.SHIPPED for name in registry.names(kind)]


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, Any]]:
    @cache
    def of(kind: str, name: str) -> dict[str, Any]:
        return TINY.get((kind, name), lambda _: {})(tmp_path_factory.mktemp(name))

    return of


@pytest.fixture
def build(options: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A component of a kind, its weights drawn from a seed."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def made(kind: str, name: str, seed: int = 0) -> Any:
        chosen = {key: value for key, value in options(kind, name).items() if key != "root"}
        torch.manual_seed(seed)
        try:
            return registry.load(kind, name)(*WIRED[kind], **chosen)
        except Exception as error:
            pytest.fail(
                f"{kind} {name!r} cannot be built with {chosen or 'its defaults'}: {error!r}. If it needs "
                f"options in a test, put its smallest ones into TINY, in {Path(__file__).name}."
            )

    return made


def test_every_kind_has_a_contract() -> None:
    assert set(WIRED) == set(registry.SHIPPED), "a new kind needs its tests here, and what is wired into it"
    unknown = set(TINY) - set(EVERYTHING)
    assert not unknown, f"no longer registered: {unknown}"


@pytest.mark.parametrize(("kind", "name"), EVERYTHING)
def test_the_manual_describes_every_option(kind: str, name: str) -> None:
    """In a line of the docstring that begins with the option's name, and with a type that people can read."""
    manual = registry.manual(kind, name)
    for option in manual.options:
        described = rf"^ *(\w+, )*{option.name}(, \w+)*: +\S"
        assert re.search(described, manual.text, re.MULTILINE), f"'{option.name}: ...' is not in the manual"
        assert option.type
        assert not re.search(r"Annotated|FieldInfo|typing\.|<class|ForwardRef", option.type), option


# ---- what all modules keep to --------------------------------------------------------------------


def stir(module: nn.Module) -> None:
    """Move every weight a little, so that nothing is hidden by beginning at 0 (as half of LoRA does)."""
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.is_floating_point():
                weight += 0.05 * torch.randn(weight.shape, generator=generator)


def noise(*shape: int, seed: int = SEED) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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


# ---- encoders ------------------------------------------------------------------------------------

PICTURES = [np.random.default_rng(k).integers(0, 256, (40 + 9 * k, 70, 3), np.uint8) for k in range(3)]


def sounds(encoder: Any) -> list[tuple[np.ndarray, int]]:
    """Of three lengths, at three rates: samples (n,) and Hz."""
    rng = np.random.default_rng(0)
    lengths = [encoder.seconds, encoder.seconds / 4, encoder.seconds / 2]
    rates = [encoder.sample_rate, 16_000, 11_025]
    return [
        ((0.1 * rng.standard_normal(int(s * r))).astype(np.float32), r)
        for s, r in zip(lengths, rates, strict=True)
    ]


def prepared(kind: str, encoder: Any) -> tuple[Tensor, ...]:
    """A batch of three as the encoder's forward takes it."""
    if kind == "image_encoder":
        return (torch.stack([encoder.prepare(picture) for picture in PICTURES]),)
    heard = sounds(encoder)
    waves = torch.stack([encoder.prepare(audio, rate) for audio, rate in heard])
    return waves, torch.tensor([len(audio) / rate for audio, rate in heard])


ENCODERS = [(kind, name) for kind, name in EVERYTHING if kind.endswith("_encoder")]


@pytest.mark.parametrize(("kind", "name"), ENCODERS)
class TestEncoder:
    def test_its_tokens_are_as_many_and_as_wide_as_it_says(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        given = prepared(kind, encoder)
        tokens = encoder(*given)
        assert tokens.values.shape == (3, encoder.token_count, encoder.width)
        assert tokens.values.isfinite().all()
        assert tokens.mask.shape == (3, encoder.token_count)
        assert tokens.mask.dtype == torch.bool
        assert torch.equal(tokens.where, encoder.where)
        assert isinstance(encoder.pretrained, bool)
        assert given[0].dtype == torch.float32
        if kind == "image_encoder":
            assert tokens.mask.all()

    def test_its_tokens_say_where_they_lie(self, build: Any, kind: str, name: str) -> None:
        """Patches tile the picture; spans go on from each other, from the start of the clip to its end."""
        encoder = build(kind, name)
        where = encoder.where
        assert not where.requires_grad
        if kind == "image_encoder":
            left, top, right, bottom = where.unbind(1)
            assert ((right - left) * (bottom - top)).sum().item() == pytest.approx(1, abs=1e-5)
            assert (where.min().item(), where.max().item()) == (0, 1)
            assert ((left < right) & (top < bottom)).all()
            assert len(set(map(tuple, where.tolist()))) == encoder.token_count
        else:
            assert where.shape == (encoder.token_count, 2)
            steps = sorted(set(map(tuple, where.tolist())))
            assert (steps[0][0], steps[-1][1]) == (0, pytest.approx(encoder.seconds))
            assert [end for _, end in steps[:-1]] == [start for start, _ in steps[1:]]
            assert where[:, 0].tolist() == sorted(where[:, 0].tolist()), "in order of time"

    def test_only_what_sounds_is_real(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        if kind == "image_encoder":
            assert encoder(*prepared(kind, encoder)).mask.all()
            return
        waves, seconds = prepared(kind, encoder)
        assert torch.equal(encoder(waves, seconds).mask, encoder.where[None, :, 0] < seconds[:, None])
        assert not encoder(waves, torch.zeros(3)).mask.any()
        assert encoder(waves).mask.all(), "all are real where no length is told"

    def test_prepare_takes_any_size_and_rate_and_changes_nothing(
        self, build: Any, kind: str, name: str
    ) -> None:
        encoder = build(kind, name)
        if kind == "image_encoder":
            before = [picture.copy() for picture in PICTURES]
            frozen = before[0].copy()
            frozen.flags.writeable = False  # as Pillow hands them out
            assert torch.equal(encoder.prepare(frozen), encoder.prepare(PICTURES[0]))
            assert len({encoder.prepare(picture).shape for picture in PICTURES}) == 1
            assert all(np.array_equal(a, b) for a, b in zip(before, PICTURES, strict=True))
            whites = encoder.prepare(np.full((9, 9, 3), 255, np.uint8))
            blacks = encoder.prepare(np.zeros((9, 9, 3), np.uint8))
            assert (whites > blacks).all()
            return
        for audio, rate in sounds(encoder):
            before = audio.copy()
            assert encoder.prepare(audio, rate).shape == (round(encoder.seconds * encoder.sample_rate),)
            assert np.array_equal(audio, before)
        # Fault 5 of the released code: whatever rate it comes at, a tone stays the tone it was.
        for rate in (encoder.sample_rate, 16_000, 11_025):
            tone = np.sin(2 * np.pi * 440 * np.arange(int(encoder.seconds * rate)) / rate).astype(np.float32)
            heard = encoder.prepare(tone, rate).numpy()
            peak = np.abs(np.fft.rfft(heard)).argmax() * encoder.sample_rate / len(heard)
            assert peak == pytest.approx(440, abs=2)

    def test_batch_mates_change_nothing(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        given = prepared(kind, encoder)
        with torch.no_grad():
            together = encoder(*given)
            for k in range(3):
                alone = encoder(*(tensor[k : k + 1] for tensor in given))
                assert_close(together.values[k], alone.values[0], torch.float32)
                assert torch.equal(together.mask[k], alone.mask[0])

    def test_every_weight_learns(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        stir(encoder)
        assert_every_weight_learns(encoder, [encoder(*prepared(kind, encoder)).values])

    def test_it_works_in_bf16(self, build: Any, kind: str, name: str) -> None:
        encoder = build(kind, name).eval()
        given = prepared(kind, encoder)
        assert_near_in_bf16(lambda: [encoder(*given).values])

    def test_it_is_saved_and_loaded_to_the_bit(
        self, build: Any, kind: str, name: str, tmp_path: Path
    ) -> None:
        first, second = (build(kind, name, seed).eval() for seed in (1, 2))
        given = prepared(kind, first)
        assert_saved_to_the_bit(first, second, lambda e: [e(*given).values], tmp_path / "weights.safetensors")


# ---- projectors ----------------------------------------------------------------------------------


def patches(values: Tensor | None = None, mask: Tensor | None = None) -> Tokens:
    """Three samples of GRID x GRID patches."""
    values = noise(3, GRID * GRID, DIM) if values is None else values
    mask = torch.ones(values.shape[:2], dtype=torch.bool) if mask is None else mask
    return Tokens(values, mask, patch_boxes(GRID, GRID))


@every("projector")
class TestProjector:
    def test_its_tokens_are_as_many_and_as_wide_as_it_says(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        count = projector.token_count(GRID * GRID)
        assert 0 < count <= GRID * GRID
        tokens = projector(patches())
        assert tokens.values.shape == (3, count, 24)
        assert tokens.mask.shape == (3, count)
        assert tokens.mask.all()
        assert tokens.mask.dtype == torch.bool
        if tokens.where is not None:  # patches still tile the picture
            left, top, right, bottom = tokens.where.unbind(1)
            assert ((right - left) * (bottom - top)).sum().item() == pytest.approx(1, abs=1e-5)

    def test_it_takes_tokens_without_a_place(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        placed, bare = projector(patches()), projector(replace(patches(), where=None))
        assert bare.where is None
        assert torch.equal(placed.values, bare.values)

    def test_padding_and_batch_mates_change_nothing(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        mask = torch.ones(3, GRID * GRID, dtype=torch.bool)
        mask[0, 3], mask[1] = False, False
        values = noise(3, GRID * GRID, DIM)
        one = projector(patches(values, mask))
        other = projector(patches(torch.where(mask[..., None], values, torch.full_like(values, 1e4)), mask))
        assert torch.equal(one.mask, other.mask)
        assert not one.mask[1].any()
        assert one.mask[2].all()
        assert_close(one.values[one.mask], other.values[one.mask], torch.float32)
        alone = projector(patches(values[2:], mask[2:]))
        assert_close(one.values[2], alone.values[0], torch.float32)

    def test_every_weight_learns(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        assert_every_weight_learns(projector, [projector(patches()).values])

    def test_it_works_in_bf16(self, build: Any, name: str) -> None:
        projector = build("projector", name)
        assert_near_in_bf16(lambda: [projector(patches()).values])

    def test_it_is_saved_and_loaded_to_the_bit(self, build: Any, name: str, tmp_path: Path) -> None:
        first, second = (build("projector", name, seed) for seed in (1, 2))
        assert_saved_to_the_bit(first, second, lambda p: [p(patches()).values], tmp_path / "w.safetensors")


# ---- fusion --------------------------------------------------------------------------------------


def clip_tokens(mask: Tensor | None = None) -> Tokens:
    mask = torch.ones(3, SPANS, dtype=torch.bool) if mask is None else mask
    return Tokens(noise(3, SPANS, DIM, seed=6), mask, spans(SPANS, 3.0))


def fused_tensors(fused: Any) -> list[Tensor]:
    maps = [one for one in (fused.image_map, fused.audio_map) if one is not None]
    return [fused.image.values, fused.audio.values, *maps]


@every("fusion")
class TestFusion:
    def test_it_keeps_the_tokens_shapes_masks_and_places(self, build: Any, name: str) -> None:
        image, audio = patches(), clip_tokens()
        fused = build("fusion", name)(image, audio)
        for before, after in ((image, fused.image), (audio, fused.audio)):
            assert after.values.shape == before.values.shape
            assert after.values.isfinite().all()
            assert torch.equal(after.mask, before.mask)
            assert torch.equal(after.where, before.where)

    def test_its_maps_are_over_real_keys_and_can_be_wrong(self, build: Any, name: str) -> None:
        """Rows sum to 1 over what is real. Fault 2 of the released code: a map that is the same whatever is
        seen and heard."""
        fusion = build("fusion", name)
        stir(fusion)
        heard = torch.ones(3, SPANS, dtype=torch.bool)
        heard[0, 4:], heard[1] = False, False  # a short clip, and none
        seen = torch.ones(3, GRID * GRID, dtype=torch.bool)
        seen[2] = False
        fused = fusion(patches(mask=seen), clip_tokens(heard))
        assert all(tensor.isfinite().all() for tensor in fused_tensors(fused))
        for found, keys in ((fused.image_map, seen), (fused.audio_map, heard)):
            if found is None:
                assert not any(True for _ in fusion.parameters()), "a fusion that learns shows what it does"
                continue
            assert found.shape[2] == keys.shape[1]
            assert (found >= 0).all()
            assert (found.transpose(1, 2)[~keys] == 0).all()
            expected = keys.any(1).float()[:, None].expand(found.shape[:2])
            assert_close(found.sum(2), expected, torch.float32)
            assert found[0].std(0).max() > 1e-4, "the same for every query"
            assert (found[0][:, keys[0]].std(1) > 1e-4).any(), "the same for every key"

    def test_padding_and_batch_mates_change_nothing(self, build: Any, name: str) -> None:
        fusion = build("fusion", name)
        stir(fusion)
        heard = torch.ones(3, SPANS, dtype=torch.bool)
        heard[0, 4:] = False
        image, audio = patches(), clip_tokens(heard)
        loud = replace(audio, values=audio.values.masked_fill(~heard[..., None], 1e3))
        one, other = fusion(image, audio), fusion(image, loud)
        assert_close(one.image.values, other.image.values, torch.float32)
        assert_close(one.audio.values[heard], other.audio.values[heard], torch.float32)
        alone = fusion(
            Tokens(image.values[:1], image.mask[:1], image.where),
            Tokens(audio.values[:1], heard[:1], audio.where),
        )
        for together, single in zip(fused_tensors(one), fused_tensors(alone), strict=True):
            assert_close(together[0], single[0], torch.float32)

    def test_it_takes_tokens_without_a_place(self, build: Any, name: str) -> None:
        bare = [replace(tokens, where=None) for tokens in (patches(), clip_tokens())]
        fused = build("fusion", name)(*bare)
        assert all(tensor.isfinite().all() for tensor in fused_tensors(fused))

    def test_every_weight_learns(self, build: Any, name: str) -> None:
        fusion = build("fusion", name)
        stir(fusion)
        assert_every_weight_learns(fusion, fused_tensors(fusion(patches(), clip_tokens())))

    def test_it_works_in_bf16(self, build: Any, name: str) -> None:
        fusion = build("fusion", name)
        assert_near_in_bf16(lambda: fused_tensors(fusion(patches(), clip_tokens())))

    def test_it_is_saved_and_loaded_to_the_bit(self, build: Any, name: str, tmp_path: Path) -> None:
        first, second = (build("fusion", name, seed) for seed in (1, 2))
        assert_saved_to_the_bit(
            first, second, lambda f: fused_tensors(f(patches(), clip_tokens())), tmp_path / "w.safetensors"
        )


# ---- losses --------------------------------------------------------------------------------------

LEARNT = {"image", "audio", "image_map", "audio_map", "logits"}  # what a loss may teach, of what it may name


@every("loss")
class TestLoss:
    def test_it_teaches_what_it_names_and_nothing_else(self, build: Any, name: str) -> None:
        objective = Objective({name: (build("loss", name), 1.0)})
        outputs, batch, parameters = example()
        value = objective.terms(outputs, batch)[name]
        assert isinstance(value, LossValue)
        assert value.total.shape == ()
        assert value.total.isfinite()
        value.total.backward()
        named = LEARNT & set(objective._arguments[name])
        assert named, "it reads nothing that can learn"
        for key, tensor in parameters.items():
            if key in named:
                assert tensor.grad.isfinite().all()
                assert tensor.grad.count_nonzero(), f"the gradient of {key} is 0"
            else:
                assert tensor.grad is None, f"{key} is taught, which it does not name"

    def test_it_is_the_mean_of_its_samples(self, build: Any, name: str) -> None:
        """Each by itself: batch mates change nothing, and a shard of a batch weighs its share."""
        objective = Objective({name: (build("loss", name), 1.0)})
        outputs, batch, _ = example()
        together = objective.terms(outputs, batch)[name]
        alone = [objective.terms(*rows(outputs, batch, slice(k, k + 1)))[name] for k in range(len(batch))]
        assert_close(together.total, torch.stack([one.total for one in alone]).mean(), torch.float32)
        if together.samples is not None:
            assert_close(together.samples, torch.cat([one.samples for one in alone]), torch.float32)

    def test_what_is_masked_is_not_read(self, build: Any, name: str) -> None:
        """NaN in the place of absent pictures and sounds changes neither value nor gradient."""
        objective = Objective({name: (build("loss", name), 1.0)})
        outputs, batch, _ = example()
        spoilt = replace(
            outputs,
            **{
                side: replace(tokens, values=tokens.values.masked_fill(~tokens.mask[..., None], torch.nan))
                for side, tokens in (("image", outputs.image), ("audio", outputs.audio))
            },
        )
        expected, found = (objective.terms(out, batch)[name].total for out in (outputs, spoilt))
        assert_close(found, expected, torch.float32)

    def test_it_works_in_bf16(self, build: Any, name: str) -> None:
        objective = Objective({name: (build("loss", name), 1.0)})
        outputs, batch, _ = example()
        fused = replace(
            outputs.fused,
            image_map=outputs.fused.image_map.bfloat16(),
            audio_map=outputs.fused.audio_map.bfloat16(),
        )
        low = replace(
            outputs,
            image=replace(outputs.image, values=outputs.image.values.bfloat16()),
            audio=replace(outputs.audio, values=outputs.audio.values.bfloat16()),
            fused=fused,
            logits=outputs.logits.bfloat16(),
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = objective.terms(low, batch)[name].total
        assert found.dtype in (torch.float32, torch.float64)
        assert_close(found, objective.terms(outputs, batch)[name].total, torch.bfloat16)


# ---- language models -----------------------------------------------------------------------------

QUESTION = "<image><audio>Which object makes the sound?"
ANSWERS = ["[dog, 0.12, 0.34, 0.56, 0.78]", "True", "a dog sounds"]
SEEN, HEARD = 4, 3  # tokens in the places


def asked(
    llm: LanguageModel, answers: list[str], seen: Tensor | None = None
) -> tuple[Tensor, Tensor, Tokens, Tokens]:
    """What forward takes, padded on the right."""
    ids = [llm.prompt_ids(QUESTION, SEEN, HEARD) + llm.response_ids(answer) for answer in answers]
    longest = max(map(len, ids))
    input_ids = torch.tensor([row + [llm.pad_id] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    image = Tokens(
        noise(3, SEEN, llm.width)[: len(ids)],
        torch.ones(len(ids), SEEN, dtype=torch.bool) if seen is None else seen,
    )
    audio = Tokens(
        noise(3, HEARD, llm.width, seed=7)[: len(ids)], torch.ones(len(ids), HEARD, dtype=torch.bool)
    )
    return input_ids, mask, image, audio


@every("llm")
class TestLlm:
    def test_it_predicts_every_position(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        given = asked(llm, ANSWERS)
        logits = llm(*given)
        assert logits.shape[:2] == given[0].shape
        assert logits.shape[2] > max(given[0].max().item(), llm.end_id, llm.pad_id)
        assert logits.isfinite().all()
        assert llm.width == llm.lm.get_input_embeddings().weight.shape[1]

    def test_places_are_widened_and_answers_read_back(self, build: Any, name: str) -> None:
        llm = build("llm", name)
        ids = llm.prompt_ids(QUESTION, SEEN, HEARD)
        assert (ids.count(IMAGE), ids.count(AUDIO)) == (SEEN, HEARD)
        assert [i for i in ids if i < 0] == [IMAGE] * SEEN + [AUDIO] * HEARD
        for answer in [*ANSWERS, write_box((0.0, 0.05, 0.99, 1.0), "cat")]:
            *told, end = llm.response_ids(answer)
            assert end == llm.end_id
            assert llm.tokenizer.decode(told) == answer

    def test_padding_and_batch_mates_change_nothing(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        with torch.no_grad():
            together = llm(*asked(llm, ANSWERS))
            alone = llm(*asked(llm, ANSWERS[:1]))
            short = asked(llm, ["True", ANSWERS[0]])
            padded = llm(*short)
            single = llm(*(part[:1] if isinstance(part, Tensor) else first(part) for part in short))
        assert_close(together[0, : alone.shape[1]], alone[0], torch.float32)
        real = int(short[1][0].sum())
        assert_close(padded[0, :real], single[0, :real], torch.float32)

    def test_tokens_that_are_absent_are_not_read(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        seen = torch.ones(3, SEEN, dtype=torch.bool)
        seen[1] = False
        input_ids, mask, image, audio = asked(llm, ANSWERS, seen)
        other = replace(image, values=image.values.masked_fill(~seen[..., None], 50.0))
        with torch.no_grad():
            one, two = (llm(input_ids, mask, tokens, audio) for tokens in (image, other))
        real = mask.bool() & ~((input_ids == IMAGE) & ~seen.any(1, keepdim=True))
        assert_close(one[real], two[real], torch.float32)
        spoilt = replace(image, values=image.values + seen[..., None])
        with torch.no_grad():
            assert not torch.allclose(llm(input_ids, mask, spoilt, audio)[0], one[0]), "the rest is read"

    def test_tokens_that_are_absent_are_as_if_they_were_not_there(self, build: Any, name: str) -> None:
        """Also in what they would push apart: the words before the place and those behind it."""
        llm = build("llm", name).eval()
        stir(llm)
        question = "What is in <image>, and what in <audio>? Which object?"
        _, _, image, audio = asked(llm, ANSWERS[:1], torch.zeros(1, SEEN, dtype=torch.bool))
        found = []
        for places in (SEEN, 0):
            ids = torch.tensor([llm.prompt_ids(question, places, HEARD)])
            with torch.no_grad():
                found.append(llm(ids, torch.ones_like(ids), image, audio)[ids != IMAGE])
        assert_close(found[0], found[1], torch.float32)

    def test_it_generates_alone_as_in_a_batch(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        stir(llm)
        prompts = [llm.prompt_ids(q, SEEN, HEARD) for q in (QUESTION, QUESTION + " True or False? Which?")]
        longest = max(map(len, prompts))
        input_ids = torch.tensor([[llm.pad_id] * (longest - len(row)) + row for row in prompts])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in prompts])
        _, _, image, audio = asked(llm, ANSWERS[:2])
        together = llm.generate(input_ids, mask, image, audio, 4)
        start = longest - len(prompts[0])
        alone = llm.generate(input_ids[:1, start:], mask[:1, start:], first(image), first(audio), 4)
        assert len(together) == 2
        assert together[:1] == alone

    def test_every_weight_learns_and_so_do_its_inputs(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        stir(llm)
        input_ids, mask, image, audio = asked(llm, ANSWERS)
        image.values.requires_grad_()
        audio.values.requires_grad_()
        logits = llm(input_ids, mask, image, audio)[mask.bool()]
        assert_every_weight_learns(llm, [logits])
        for gradient in torch.autograd.grad(
            projection([llm(input_ids, mask, image, audio)]), [image.values, audio.values]
        ):
            assert gradient.isfinite().all()
            assert gradient.flatten(0, 1).any(1).all(), "a token is not read"

    def test_it_works_in_bf16(self, build: Any, name: str) -> None:
        llm = build("llm", name).eval()
        given = asked(llm, ANSWERS)
        assert_near_in_bf16(lambda: [llm(*given)])

    def test_it_is_saved_and_loaded_to_the_bit(self, build: Any, name: str, tmp_path: Path) -> None:
        first_one, second = (build("llm", name, seed).eval() for seed in (1, 2))
        stir(first_one)
        given = asked(first_one, ANSWERS)
        assert_saved_to_the_bit(first_one, second, lambda m: [m(*given)], tmp_path / "weights.safetensors")


def first(tokens: Tokens) -> Tokens:
    return Tokens(tokens.values[:1], tokens.mask[:1], tokens.where)


# ---- sources -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(options: Any) -> Callable[..., Any]:
    @cache
    def of(name: str, seed: int = 0, copy: int = 0) -> Any:
        chosen = dict(options("source", name))
        root = chosen.pop("root", None)
        try:
            source = registry.load("source", name)(**chosen)
            source.on_error = "raise"
            source.prepare(root, seed=seed, workers=1)
        except Exception as error:
            pytest.fail(
                f"source {name!r} cannot be prepared with {chosen or 'its defaults'} from {root}: {error!r}. "
                f"If it needs options or a folder, put them into TINY, in {Path(__file__).name}."
            )
        return source

    return of


def told(sample: Any) -> str:
    """All of a sample as text that two equal samples share."""
    shown = {key: value for key, value in vars(sample).items() if key not in ("image", "audio", "provenance")}
    return json.dumps(shown, default=list, sort_keys=True)


@every("source")
class TestSource:
    def test_every_sample_is_sound_and_its_answer_can_be_read(self, sources: Any, name: str) -> None:
        source = sources(name)
        assert set(source.tasks) <= set(SCORERS)
        assert source.skipped == []
        for split in SPLITS:
            for task in source.tasks:
                for index in range(8):
                    sample = source.sample(split, task, index)
                    check(sample)
                    assert sample.task == task
                    assert sample.instruction.count("<image>") == sample.instruction.count("<audio>") == 1
                    assert sample.provenance, "it does not say what it was made from"
                    for answer in (sample.response, *sample.references):
                        (judged,) = SCORERS[task].score([sample], [answer])
                        assert judged.parsed is not None, (sample.id, answer)
                    for box in sample.boxes if task == "arig" else ():
                        assert write_box(box)[1:-1] in sample.response, "fault 6: one box format for all"

    def test_a_sample_is_decided_by_its_split_task_and_number(self, sources: Any, name: str) -> None:
        """Asked for again, in another order, of another instance: the same. Other numbers: others."""
        source, again = sources(name), sources(name, copy=1)
        assert again is not source
        places = [(split, task, index) for split in SPLITS for task in source.tasks for index in (0, 5)]
        expected = {place: source.sample(*place) for place in places}
        for place in reversed(places):
            one, two = expected[place], again.sample(*place)
            assert told(one) == told(two)
            assert np.array_equal(one.image, two.image)
            assert np.array_equal(one.audio, two.audio)
        ids = [sample.id for sample in expected.values()]
        assert len(set(ids)) == len(ids)
        sounds_ = {sample.audio.tobytes() for sample in expected.values()}
        assert len(sounds_) > len(ids) / 2, "most samples differ"

    def test_another_seed_makes_other_samples(self, sources: Any, name: str) -> None:
        one, two = (sources(name, seed) for seed in (0, 1))
        task = one.tasks[0]
        pairs = [(one.sample("train", task, k), two.sample("train", task, k)) for k in range(4)]
        assert any(told(a) != told(b) for a, b in pairs)

    def test_its_texts_cover_what_it_asks_and_answers(self, sources: Any, name: str) -> None:
        """A tokenizer is built from them: a word it never saw costs many tokens."""
        source = sources(name)
        words = set(re.findall(r"[A-Za-z]+", " ".join(source.texts())))
        for task in source.tasks:
            for index in range(8):
                sample = source.sample("train", task, index)
                assert set(re.findall(r"[A-Za-z]+", f"{sample.instruction} {sample.response}")) <= words
