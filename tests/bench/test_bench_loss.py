"""bench-loss measures what it says: the right losses, their errors, a floor; who cannot run is a row."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from avalign.bench import floor, show, truth
from avalign.bench.bench_loss import OURS, PEERS, competitors, read_settings
from avalign.bench.competitor import Competitor, Settings, marginal_error
from avalign.bench.inputs import Features, Shape, generate
from avalign.bench.limits import Limits
from avalign.bench.peers.plain import IPOT_BETA, IPOT_ITERATIONS, IPOT_THRESHOLD
from avalign.bench.trial import Trial
from avalign.cli.app import app
from tests.helpers.preloaded import preload
from tests.helpers.tolerances import TOLERANCES, assert_close

SMALL = generate("structured", Shape(3, 20, 13, 16), seed=0)
ALL = [*OURS, *PEERS]


@cache
def truth_of(given: Settings) -> truth.Truth:
    return truth.work_out(SMALL, given)


def row_of(each: Competitor, **given):
    """What is told of it in this process, without its times."""
    for name in each.modules:
        pytest.importorskip(name)
    settings = Settings(**given)
    row = Trial(SMALL, settings, truth_of(settings), Limits()).prepare(each)
    if row["status"] == "unavailable":
        pytest.skip(row["note"])
    assert row["status"] == "measured", row["note"]
    return row


class TestCompetitors:
    @pytest.mark.parametrize("each", [c for c in ALL if c.name != "meerkat-ipot"], ids=lambda c: c.name)
    def test_each_computes_the_value_and_the_gradients_it_claims(self, each: Competitor) -> None:
        """Near convergence all of them meet the float64 solution: the right cost, epsilon, value and mean."""
        row = row_of(each, epsilon=0.2, tolerance=1e-4)
        if row["products"] == "bfloat16":
            near = TOLERANCES[torch.bfloat16].relative
            assert row["value_error"] < near / 10
            assert row["gradient_error"] < near
            assert row["marginal_error"]["worst"] < near
            return
        if each.name == "geomloss":  # has no stopping rule; its schedule leaves an error in the marginals
            assert row["value_error"] < 1e-3
            assert row["gradient_error"] < 3 * row["marginal_error"]["worst"] < 0.05
            return
        assert row["marginal_error"]["worst"] < 1.1e-4
        assert row["value_error"] < 1e-5, "second order in the marginals"
        assert row["gradient_error"] < 1e-3

    @pytest.mark.parametrize("each", OURS, ids=lambda c: c.name)
    def test_ours_after_few_iterations_is_float64_after_as_many(self, each: Competitor) -> None:
        row = row_of(each, epsilon=0.05, iterations=3)
        if row["value_of"] == "exact":
            pytest.skip("it makes no iterations")
        assert row["iterations"] == 3
        near = TOLERANCES[torch.bfloat16 if row["products"] == "bfloat16" else torch.float32].relative
        assert row["value_error_same_iterations"] < near
        assert row["gradient_error_same_iterations"] < near
        assert row["gradient_error"] > 10 * row["gradient_error_same_iterations"], (
            "three iterations are too few"
        )
        assert row["marginal_error"]["worst"] > 0.01

    def test_the_released_ipot_is_a_power_of_its_kernel_and_pays_a_thresholded_cost(self) -> None:
        """T = diag(p) A^30 diag(q), A = exp(-C / beta): log T + 30 C / beta is a sum of rows and columns."""
        (ipot,) = competitors(["meerkat-ipot"])
        ready = ipot.prepare(SMALL, Settings(0.05, 1e-3))
        cost = 1 - torch.cosine_similarity(SMALL.image[:, :, None], SMALL.audio[:, None], dim=3)
        least, most = cost.min(), cost.max()
        cost = (cost - least - IPOT_THRESHOLD * (most - least)).clamp(min=0)
        plan = ready.plan()
        form = plan.log() + IPOT_ITERATIONS * cost / IPOT_BETA
        form = form - form[:, :1] - form[:, :, :1] + form[:, :1, :1]
        assert_close(form, torch.zeros_like(form), torch.bfloat16)
        assert marginal_error(plan).max() < 0.05
        assert_close(ready.answer().value, (plan * cost).sum((1, 2)), torch.float32)

    def test_names_are_all_different_and_all_means_all(self) -> None:
        assert competitors(["all"]) == ALL
        assert len({each.name for each in ALL}) == len(ALL)
        assert [c.name for c in competitors(["pot-emd2", "sinkhorn"])] == ["sinkhorn", "pot-emd2"]


class TestTruth:
    @pytest.mark.parametrize("epsilon", [0.1, 0.02])
    def test_it_is_converged_and_its_gradient_is_that_of_its_value(self, epsilon: float) -> None:
        """Against the difference of two values along a direction, in float64."""
        found = truth.work_out(SMALL, Settings(epsilon, 1e-3))
        assert found.marginal_error < 1e-8
        assert (found.smoothed.value > found.exact.value).all()
        step, random = 1e-4, torch.Generator().manual_seed(1)
        way = [torch.randn(s.shape, generator=random).double() for s in (SMALL.image, SMALL.audio)]
        ends = [
            truth.work_out(
                Features(SMALL.image.double() + k * way[0], SMALL.audio.double() + k * way[1]),
                Settings(epsilon, 1e-3),
            ).smoothed.value.mean()
            for k in (-step, step)
        ]
        slope = (found.smoothed.image * way[0]).sum() + (found.smoothed.audio * way[1]).sum()
        assert float((ends[1] - ends[0]) / (2 * step)) == pytest.approx(float(slope), rel=1e-5)

    def test_where_there_is_no_gradient_any_is_infinitely_wrong(self) -> None:
        none = truth.Answer(torch.ones(2), torch.zeros(1), torch.zeros(1))
        some = truth.Answer(torch.ones(2), torch.ones(1), torch.zeros(1))
        assert truth.gradient_error(none, none) == 0
        assert truth.gradient_error(some, none) == math.inf

    def test_errors_are_relative_norms(self) -> None:
        right = truth.Answer(torch.tensor([2.0, 4.0]), torch.tensor([3.0]), torch.tensor([4.0]))
        wrong = truth.Answer(torch.tensor([2.0, 5.5]), torch.tensor([3.0]), torch.tensor([5.0]))
        assert truth.value_error(wrong, right, right) == pytest.approx(0.75 / 3)
        assert truth.gradient_error(wrong, right) == pytest.approx(1 / 5)

    def test_the_marginal_error_is_that_of_the_worse_side(self) -> None:
        plan = torch.tensor([[[0.5, 0.0], [0.1, 0.4]], [[0.25, 0.25], [0.25, 0.25]]])
        assert_close(marginal_error(plan), [0.2, 0.0], torch.float32)


class TestReport:
    @pytest.fixture(scope="class")
    @classmethod
    def told(cls, tmp_path_factory):
        """The command on everything there is, its JSON and its picture."""
        folder = tmp_path_factory.mktemp("bench")
        with pytest.MonkeyPatch.context() as patch:
            preload(patch)
            patch.setattr(floor, "PRODUCT_SIZES", {"cpu": (64,)})
            patch.setattr(floor, "COPY_BYTES", {"cpu": 2**20})
            words = ["--shape", "2x9x7x8", "--shape", "1x5x6x4", "--repeats", "2", "--epsilon", "0.1"]
            files = ["--json", str(folder / "b.json"), "--plot", str(folder / "b.png")]
            result = CliRunner().invoke(app, ["bench-loss", *words, *files])
        assert result.exit_code == 0, result.output
        return result.stdout, json.loads((folder / "b.json").read_text()), folder / "b.png"

    def test_every_competitor_has_a_row_and_who_cannot_run_says_why(self, told) -> None:
        text, report, _ = told
        assert [p["shape"] for p in report["problems"]] == [
            {"b": 2, "n": 9, "m": 7, "d": 8},
            {"b": 1, "n": 5, "m": 6, "d": 4},
        ]
        for problem in report["problems"]:
            assert [row["name"] for row in problem["rows"]] == [each.name for each in ALL]
            status = {row["name"]: row["status"] for row in problem["rows"]}
            always = (
                "sinkhorn",
                "sinkhorn-torch",
                "exact",
                "pot-batch",
                "pot-emd2",
                "autograd",
                "meerkat-ipot",
            )
            assert {status[name] for name in always} == {"measured"}
            assert "failed" not in status.values()
            for row in problem["rows"]:
                if row["status"] != "measured":
                    assert f"{row['name']}: {row['status']}: {row['note']}" in text
                if row["status"] == "absent":
                    assert row["note"].startswith("pip install ")

    def test_numbers_agree_with_one_another(self, told) -> None:
        _, report, _ = told
        for problem in report["problems"]:
            rows = [row for row in problem["rows"] if row["status"] == "measured"]
            ours = next(row for row in rows if row["name"] == "sinkhorn")["step"]["median"]
            for row in rows:
                for part in ("forward", "step"):
                    seconds = row[part]["seconds"]
                    assert len(seconds) == 2
                    assert row[part]["median"] == pytest.approx(sum(seconds) / 2)
                    low, high = row[part]["quartiles"]
                    assert min(seconds) <= low <= row[part]["median"] <= high <= max(seconds)
                assert row["ratio"] == pytest.approx(row["step"]["median"] / ours)
                assert row["share_of_floor"] == pytest.approx(row["floor"] / row["step"]["median"])
                assert row["floor"] == problem["floor"][row["products"]]
                assert row["ratio_to"] == "sinkhorn"

    def test_the_bracket_holds_the_exact_cost_of_each_item(self, told) -> None:
        _, report, _ = told
        for problem in report["problems"]:
            assert len(problem["bracket"]) == problem["shape"]["b"]
            for item in problem["bracket"]:
                assert item["lower"] - 2e-6 <= item["exact"] <= item["upper"] + 2e-6
                assert item["upper"] - item["lower"] < 0.5 * item["exact"]

    def test_it_says_on_what_with_what_and_how(self, told) -> None:
        text, report, picture = told
        assert report["settings"]["epsilon"] == 0.1
        assert report["settings"]["tolerance"] == 1e-3
        assert report["machine"]["threads"] == torch.get_num_threads()
        assert report["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert {"commit", "pot", "ott-jax", "geomloss"} <= report["versions"].keys()
        for name, rate in report["rates"]["product"].items():
            assert f"products in {name}: {rate['value'] / 1e9:.0f} G operations/s ({rate['source']})" in text
        assert picture.read_bytes().startswith(b"\x89PNG")

    def test_what_json_has_no_word_for_is_null(self, tmp_path: Path) -> None:
        show.write_json({"a": [math.nan, 1.5, {"b": -math.inf}]}, tmp_path / "x.json")
        assert json.loads((tmp_path / "x.json").read_text()) == {"a": [None, 1.5, {"b": None}]}

    def test_threads_that_are_not_pinned_and_a_busy_machine_are_warned_of(self) -> None:
        machine = {"threads": 2, "pinned": False, "load_before": 2.5}
        pinning, load = show.warnings_of(machine)
        assert "OMP_PROC_BIND=true OMP_PLACES=cores" in pinning
        assert "2.5" in load
        assert show.warnings_of({"threads": 1, "pinned": False, "load_before": 0.1}) == []
        assert show.warnings_of({"threads": 2, "pinned": True, "load_before": None}) == []


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (
                ["--backend", "sinkhrn"],
                "no back end is named 'sinkhrn'. Did you mean 'sinkhorn'? Known: all, ",
            ),
            (["--shape", "16x196x64"], "'16x196x64' is no shape. It is BxNxMxD"),
            (["--shape", "16x0x64x8"], "'16x0x64x8' is no shape"),
            (["--epsilon", "0"], "--epsilon must be above 0"),
            (["--tolerance", "1e-3", "--iterations", "5"], "exclude each other"),
            (["--tolerance", "2"], "--tolerance must be between 0 and 1"),
            (["--iterations", "0"], "--iterations must be at least 1"),
            (["--plot", "picture.xyz"], "--plot picture.xyz: no image format ends so. Known: "),
            (["--plot", f"{__file__}/picture.png"], "picture.png: cannot be written: "),
            (["--json", "."], "--json .: is a folder; name a file"),
            (["--repeats", "0"], "--repeats must be at least 1"),
            (["--time-limit", "0"], "--time-limit must be above 0 seconds"),
            (["--time-limit", "nan"], "--time-limit must be above 0 seconds"),
            (["--memory-limit", "-1"], "--memory-limit must be above 0 GiB"),
            (["--dtype", "float16"], "not measured in 'float16'. Did you mean 'bfloat16'?"),
            (["--device", "gpu"], "'gpu' is none torch knows"),
            (["--features", "structurd"], "Did you mean 'structured'? Known: gaussian, structured."),
            (["--features", "none.safetensors"], "none.safetensors does not exist"),
            (["--features", "f.safetensors", "--shape", "1x2x3x4"], "has its own shape"),
        ],
    )
    def test_a_mistake_is_one_line(self, words: list[str], message: str) -> None:
        result = CliRunner().invoke(app, ["bench-loss", *words])
        assert result.exit_code == 2
        (line,) = result.stderr.strip().splitlines()
        assert line.startswith("error: ")
        assert message in line

    def test_the_folders_of_its_files_are_made_before_it_measures(self, tmp_path: Path) -> None:
        files = ("--json", tmp_path / "a" / "b" / "x.json", "--plot", tmp_path / "c" / "x.png")
        result = CliRunner().invoke(app, ["bench-loss", *map(str, files), "--repeats", "0"])
        assert "--repeats must be at least 1" in result.stderr
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "c"]

    def test_without_a_word_it_ends_by_the_error(self) -> None:
        assert read_settings(0.05, None, None) == Settings(0.05, 1e-3, None)
        assert read_settings(0.05, None, 7) == Settings(0.05, None, 7)
