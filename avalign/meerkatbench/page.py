"""Pages of HTML that hold all they show and ask the network for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def whole_page(title: str, links: Iterable[tuple[str, str]], body: Iterable[str]) -> str:
    """links: (id of a heading, its name in the menu), as text; body: HTML, part by part."""
    menu = " ".join(f'<a href="#{escape(to)}">{escape(text)}</a>' for to, text in links)
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - avalign</title><style>{_STYLE}</style></head>\n"
        f"<body><nav>{menu}</nav><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def table(header: Iterable[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """header and cells are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    rows_shown = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class=wide><table class="{kind}">{rows_shown}</table></div>'


def folded(title: str, text: str) -> str:
    """Text that is shown when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


_STYLE = """
:root{--ink:#1d2327;--faint:#68737b;--line:#e3e7ea;--blue:#0072b2}
*{box-sizing:border-box}
body{margin:0;color:var(--ink);background:#fff;
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:0 24px 80px}
nav{position:sticky;top:0;z-index:1;background:#fffffff2;border-bottom:1px solid var(--line);padding:9px 24px;
 text-align:center;font-size:13px}
nav a{margin:0 9px}
a{color:var(--blue);text-decoration:none}a:hover{text-decoration:underline}
header p{color:var(--faint);margin:0}
h1{font-size:28px;font-weight:650;margin:34px 0 2px}
h2{font-size:20px;font-weight:650;margin:52px 0 12px;padding-top:10px;scroll-margin-top:36px}
h3{font-size:15px;font-weight:650;margin:26px 0 8px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
th{color:var(--faint);font-weight:500;font-size:12.5px;text-align:left;padding:4px 18px 6px 0;
 vertical-align:bottom;border-bottom:1px solid var(--line)}
td{padding:7px 18px 7px 0;border-bottom:1px solid var(--line);vertical-align:top}
td small{display:block;color:var(--faint);font-weight:400;font-size:12px;white-space:nowrap}
td b{font-weight:650}
.yes{color:#00795a}.no{color:#b34700}
h3.source{margin-top:38px;padding-top:14px;border-top:1px solid var(--line)}
table.samples td{font-size:13px;max-width:420px;overflow-wrap:anywhere}
table.versions td{font-size:13px;padding:3px 18px 3px 0}table.versions thead{display:none}
ul.note{padding-left:20px}
.note,.missing{color:var(--faint);font-size:13px;max-width:880px}
.missing{font-style:italic}
.warnings{border-left:3px solid #e69f00;background:#fdf8ec;margin:22px 0 0;padding:9px 14px 9px 32px;
 font-size:14px}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:20px 24px}
.curves figcaption{font-size:13px;font-weight:600}
.curves small{color:var(--faint);font-weight:400;margin-left:6px}
figure{margin:0}svg{display:block;max-width:100%}svg.bar{max-width:none}
svg text{fill:var(--faint);font-size:11px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(460px,1fr));gap:18px}
.cards figure{border:1px solid var(--line);border-radius:6px;padding:8px}
.cards img{width:100%;display:block}
.cards figcaption{color:var(--faint);font-size:12px;padding:2px 6px;overflow-wrap:anywhere}
details{margin:10px 0;font-size:13px}summary{cursor:pointer;color:var(--faint)}
details ul{margin:6px 0;padding-left:20px;overflow-wrap:anywhere}
pre{background:#f6f8f9;border-radius:6px;padding:14px;overflow-x:auto;font-size:12.5px;line-height:1.45}
code{background:#f1f4f5;border-radius:3px;padding:1px 4px}
@media(max-width:560px){.cards{grid-template-columns:1fr}}
"""
