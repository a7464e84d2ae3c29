"""Small XML files, such as one annotation of an image each, read without what XML could do besides."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from avalign.errors import AvalignError

LIMIT = 1 << 20  # bytes; more is no annotation of one image


class _NoDoctype(TreeBuilder):
    """Entities can be declared in a DOCTYPE only: they grow without bound, or name other files."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise AvalignError("has a DOCTYPE, which annotations do not need; it is not read")


def read_xml(file: Path) -> Element:
    """The file's root element. AvalignError names what is missing, too big, no XML, or has a DOCTYPE."""
    try:
        with open(file, "rb") as opened:
            content = opened.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise AvalignError(f"is larger than {LIMIT} bytes")
        parser = XMLParser(target=_NoDoctype())
        parser.feed(content)
        root: Element = parser.close()
    except FileNotFoundError:
        raise AvalignError(f"{file}: no such file") from None
    except OSError as error:
        raise AvalignError(f"{file}: cannot be read: {error.strerror}") from error
    except (ParseError, ValueError, LookupError) as error:  # LookupError: an encoding nobody knows
        raise AvalignError(f"{file}: is not XML: {error}") from error
    except AvalignError as error:
        raise AvalignError(f"{file}: {error}") from error
    return root
