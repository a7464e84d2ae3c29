"""Pages of HTML out of templates/: plain data go in, and all that is text in them stays text."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avalign.system.escape import visible

if TYPE_CHECKING:  # imported where a page is made: reading scores needs none
    from jinja2 import Environment


def render(template: str, **data: Any) -> str:
    """A page, in which control characters of the data are written out.

    data: what the template names in its first lines
    """
    return visible(environment().get_template(template).render(data), keep="\n\t")


def data_url(kind: str, content: bytes) -> str:
    """A file that a page holds within itself. kind: its media type, such as image/jpeg"""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


@cache
def environment() -> Environment:
    """Of the templates: every text is escaped, and a name that was not given is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["visible"] = visible
    return made
