"""A check's outcome: report.json, report.md, every finding in findings.txt, a table on the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from avalign import __version__
from avalign.avfit.check.check import Checked, Options, check
from avalign.avfit.check.findings import ERROR, WARNING, Findings
from avalign.system.atomic_write import atomic_write, unfinished
from avalign.system.escape import code, markdown, visible

ALL = "findings.txt"
_NOTES = (
    "Pictures are decoded whole, sounds whole; of videos all packets are read and the key frames decoded.",
    "A finding about a media file counts once a file; one about a span, an interval or a frame time once "
    "a use.",
    "Silent, peaks and spectrum: of the mean of a sound's channels. A sound may be upsampled: where its rate "
    "is at least the stated one and yet all but a millionth of its energy lies below 0.55 of half of that.",
    "The class or answer of a task: a record's label; AVFC: the verdict; AVQA: the response.",
)


def checked_and_reported(folder: Path, root: Path, out: Path, options: Options) -> dict[str, Any]:
    """Check a manifest and write the report's three files to `out`. Returns what report.json holds."""
    with unfinished(out / ALL) as beside, open(beside, "w", encoding="utf-8") as sink:
        sink.write("severity\tfinding\twhere\trecord\tdetail\n")
        checked = check(folder, root, options, Findings(sink))
    report = _as_json(checked, folder, root, options)
    atomic_write(out / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    atomic_write(out / "report.md", "\n".join(_as_markdown(report)) + "\n")
    return report


def _as_json(checked: Checked, folder: Path, root: Path, options: Options) -> dict[str, Any]:
    findings = checked.findings
    stated = {name: value for name, value in asdict(options).items() if name != "processes"}
    return {
        "avalign": __version__,
        "manifest": str(folder),
        "media root": str(root) if options.media else None,
        "options": stated,
        "files": checked.files,
        "lines": checked.lines,
        "records": checked.records,
        "errors": findings.total(ERROR),
        "warnings": findings.total(WARNING),
        "tasks": checked.tasks,
        "media": checked.media,
        "findings": findings.as_json(),
        "notes": list(_NOTES),
    }


def told(report: dict[str, Any], examples: int) -> None:
    """Print the findings as a table, each with some examples."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if report["findings"]:
        table = Table(box=None, pad_edge=False)
        for name, justify in (("", "left"), ("finding", "left"), ("count", "right")):
            table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for finding in report["findings"]:
            style = "bold red" if finding["severity"] == ERROR else "yellow"
            table.add_row(Text(finding["severity"], style), finding["code"], f"{finding['count']:,}")
        console.print(table)
    for finding in report["findings"]:
        for one in finding["examples"][:examples]:
            named = f"record {one['record']!r}: " if one["record"] else ""
            text = f"{one['where']}: {finding['code']}: {named}{one['detail']}"
            console.print(Text(visible(text)), soft_wrap=True)
    console.print(Text(summary(report)), soft_wrap=True)


def summary(report: dict[str, Any]) -> str:
    """ "12 records: 1 error, 3 warnings; media: 4 of 4 files checked" """
    counted = ", ".join(_many(report[f"{kind}s"], kind) for kind in (ERROR, WARNING))
    if report["media root"] is None:
        media = "media not looked at"
    else:
        files, checked = (sum(m[name] for m in report["media"].values()) for name in ("files", "checked"))
        media = f"{checked:,} of {files:,} media files checked"
        if report["options"]["sample"] is not None:
            media += f" (a sample, seed {report['options']['seed']})"
    return f"{_many(report['records'], 'record')}: {counted}; {media}"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"


def _as_markdown(report: dict[str, Any]) -> Iterator[str]:
    yield "# Check of a manifest\n"
    yield f"{summary(report)}. Every finding stands in {ALL}.\n"
    if report["findings"]:
        yield "| severity | finding | count | meaning |\n|---|---|---:|---|"
        for finding in report["findings"]:
            meaning = markdown(finding["meaning"])
            yield f"| {finding['severity']} | {finding['code']} | {finding['count']:,} | {meaning} |"
    else:
        yield "Nothing was found to be wrong."
    for finding in report["findings"]:
        examples = finding["examples"]
        yield f"\n## {finding['code']}\n\n{len(examples)} of {finding['count']:,}:\n"
        for one in examples:
            named = f" `{code(one['record'])}`" if one["record"] else ""
            yield f"- `{code(one['where'])}`{named} `{code(one['detail'])}`"
    yield "\n## Tasks\n\n| task | split | records | most common | its share |\n|---|---|---:|---|---:|"
    for line in report["tasks"]:
        share = "" if line["share"] is None else f"{line['share']:.1%}"
        common = "" if line["most common"] is None else f"`{code(line['most common'])}`"
        yield f"| {line['task']} | {line['split']} | {line['records']:,} | {common} | {share} |"
    if report["media"]:
        yield "\n## Media\n"
        yield "| kind | files | checked | measured now | known from the cache |\n|---|---:|---:|---:|---:|"
        for kind, counts in report["media"].items():
            yield f"| {kind} | " + " | ".join(f"{count:,}" for count in counts.values()) + " |"
    yield "\n## What was checked\n"
    limits = report["options"]["limits"]
    yield (
        f"- A sound's rate: at least {limits['min_rate']:,} Hz; silent: nothing above "
        f"{limits['silence']:g} dB of full scale; clipped: more than {limits['clipped']:g} of the samples at "
        f"full scale; a picture's shorter side: at least {limits['min_side']} pixels; a class or answer: at "
        f"most {report['options']['share']:g} of a task and split of 20 records or more."
    )
    for note in report["notes"]:
        yield f"- {markdown(note)}"
