"""The model card of an exported model: what is known of it from its run, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

from avalign.config.portable import left_elsewhere
from avalign.config.recipe import Component, Recipe
from avalign.export.load import CONNECTOR, LLM
from avalign.model.build import trained_parts
from avalign.model.model import ADAPTER, PARTS, AudioVisualLM
from avalign.report.tables import as_markdown
from avalign.system.escape import code, markdown
from avalign.system.json_file import json_if_there
from avalign.system.markdown_table import table
from avalign.types import TASKS

_HUB_ID = r"[\w-][\w./-]*"
_ASKED = {
    "arig": "where in the picture the thing is that is heard (a box)",
    "igatl": "when the thing that is seen is heard (intervals in seconds)",
    "avfc": "whether a statement about both is true",
    "avqa": "questions about both",
    "avcap": "what happens, in a sentence",
}


def write_card(file: Path, run: Path, folder: Path, model: AudioVisualLM, recipe: Recipe) -> None:
    """From recipe, versions.json and eval/scores.json of the run; what is not there is said to be missing."""
    base = _base(recipe, model)
    sections = [
        _front(base if base not in left_elsewhere(folder) else None),
        f"# {markdown(recipe.name)}",
        "An audio-visual language model: it is given a picture, a sound and a question, and answers in text. "
        "Exported from a run of avalign.",
        "## Use\n\n"
        "```python\nimport avalign\n\n"
        'model = avalign.load("this folder")\n'
        'model.generate(image, (audio, rate), "Where is it?")\n```\n\n'
        "A picture is uint8 (height, width, 3), a sound float32 (samples,) with its rate in Hz; "
        "either may be None.",
        _files(folder),
        _parts(model, recipe),
        _training(recipe),
        _scores(run),
        _intended(recipe),
        _licence(model, recipe, base),
        _versions(run),
    ]
    file.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _base(recipe: Recipe, model: AudioVisualLM) -> str | None:
    """The released language model that this one began as."""
    options = recipe.model.llm.options
    return str(options["model"]) if options.get("pretrained") and "model" in options else None


def _front(base: str | None) -> str:
    lines = ["---", "library_name: avalign", "tags:", "- audio-visual"]
    if base is not None:
        lines.append(f"base_model: {base if re.fullmatch(_HUB_ID, base) else json.dumps(base)}")
    return "\n".join([*lines, "---"])


def _files(folder: Path) -> str:
    told = {
        LLM: "the language model, as transformers writes one (`AutoModelForCausalLM.from_pretrained`)",
        ADAPTER: "its LoRA, as peft writes it, to be put on the released language model",
        CONNECTOR: "the weights of all other parts (safetensors) and their shapes (JSON)",
        "tokenizer": "with its chat template",
    }
    rows = [f"- `{name}/`: {text}" for name, text in told.items() if (folder / name).is_dir()]
    return "\n".join(["## Files\n", *rows, "- `recipe.yaml`: every setting of its training"])


def _parts(model: AudioVisualLM, recipe: Recipe) -> str:
    trained = trained_parts(recipe)
    space = f"## Parts\n\nAlignment and fusion work in a space {recipe.model.width} wide.\n"
    rows = []
    for part in PARTS:
        component: Component = getattr(recipe.model, part)
        module = getattr(model, part)
        options = ", ".join(
            f"{key}: {value}" for key, value in component.options.items() if value is not None
        )
        count = sum(weight.numel() for weight in module.parameters())
        how = module.tuning if part in trained else "no"
        rows.append([part, component.name, options, f"{count:,}", how])
    header = ("part", "component", "options", "parameters", "trained")
    return "\n".join([space, *table(header, rows)])


def _training(recipe: Recipe) -> str:
    source = recipe.data.source
    options = ", ".join(f"{key}: {value}" for key, value in source.options.items() if value is not None)
    head = [
        "## Training\n",
        f"Data: source `{code(source.name)}`" + (f" ({markdown(options)})" if options else "") + ". "
        f"{recipe.train.batch_size} samples a step, seed {recipe.seed}, {recipe.train.precision}.\n",
    ]
    rows = []
    for stage in recipe.train.stages:
        weights = {label: stage.weights.get(label, term.weight) for label, term in recipe.losses.items()}
        rows.append(
            [
                stage.name,
                str(stage.steps),
                ", ".join(f"{task} ({share:g})" for task, share in stage.tasks.items() if share),
                ", ".join(f"{label} ({weight:g})" for label, weight in weights.items() if weight),
                ", ".join(stage.train) or "all that can learn",
            ]
        )
    header = ("stage", "steps", "tasks (share)", "losses (weight)", "parts")
    return "\n".join([*head, *table(header, rows)])


def _scores(run: Path) -> str:
    scores = json_if_there(run / "eval" / "scores.json")
    if scores is None:
        return "## Scores\n\nNot scored yet (`avalign eval`)."
    return as_markdown(scores).strip().replace("\n## ", "\n### ").replace("# Scores", "## Scores", 1)


def _intended(recipe: Recipe) -> str:
    tasks = {task for stage in recipe.train.stages for task, share in stage.tasks.items() if share}
    asked = "; ".join(_ASKED[task] for task in TASKS if task in tasks)
    return (
        "## Intended use\n\n"
        f"Research on audio-visual alignment. It was trained to answer: {asked}. Of other questions, "
        f"and of pictures and sounds unlike those of `{code(recipe.data.source.name)}`, nothing is known."
    )


def _licence(model: AudioVisualLM, recipe: Recipe, base: str | None) -> str:
    named = {part: getattr(recipe.model, part) for part in PARTS}
    stock = [
        f"`{code(str(component.options.get('model', component.name)))}` ({part})"
        for part, component in named.items()
        if getattr(model, part).pretrained or (part == "llm" and base is not None)
    ]
    if not stock:
        return "## Licence\n\nNo released weights are in it. Its owner has named no licence."
    return (
        "## Licence\n\n"
        f"It builds on released weights, whose licences hold for what is derived from them: "
        f"{', '.join(stock)}. Read them before use. For the rest its owner has named no licence."
    )


def _versions(run: Path) -> str:
    found = json_if_there(run / "versions.json")
    if found is None:
        return "## Versions\n\nNot known: the run has no versions.json."
    return (
        "## Versions\n\nTrained with "
        + ", ".join(markdown(f"{name} {text}") for name, text in found.items())
        + "."
    )
