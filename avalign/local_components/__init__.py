"""Components from a file beside the recipe: `name: ./my_loss.py:MyLoss`.

A file is loaded as the module `avalign.local_components.<its path in hex>`, so that its classes can be
pickled: a loader process that is started anew imports this package, which finds the module by its name. The
file stands for itself: what it imports must be installed or on the Python path, for a run keeps a copy of the
file alone.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from avalign.errors import AvalignError, suggest

SEPARATOR = ".py:"  # what tells "my_loss.py:MyLoss", a file, from "my_module:MyLoss", a module


class LocalFileError(AvalignError, ValueError):
    """A file that is not there or cannot be read as Python, or a class that it does not have."""


def is_local(name: str) -> bool:
    """Whether a component's name is one of a file: "./my_loss.py:MyLoss"."""
    return SEPARATOR in name or name.endswith(".py")


def split(name: str) -> tuple[Path, str]:
    """ "./my_loss.py:MyLoss" -> its file and its class ("" if it names none)."""
    file, _, class_name = name.rpartition(":") if SEPARATOR in name else (name, "", "")
    return Path(file), class_name


def resolved(name: str, folder: Path) -> str:
    """The same with the file's whole path: from `folder`, else from the working directory."""
    file, class_name = split(name)
    tried = [Path(os.path.normpath(base / file.expanduser())) for base in (folder.absolute(), Path.cwd())]
    for path in tried:
        if path.is_file():
            return f"{path}:{class_name}" if class_name else str(path)
    beside = sorted(p.name for p in tried[0].parent.glob("*.py"))
    folders = " or ".join(dict.fromkeys(map(str, tried)))
    raise LocalFileError(f"there is no file {folders}.{suggest(file.name, beside) if beside else ''}")


def beside(name: str, folder: Path) -> str:
    """A component's name, from `folder` on where its file lies in there: "./code/my_loss.py:MyLoss"."""
    if not is_local(name):
        return name
    file, class_name = split(resolved(name, Path()))
    folder = folder.absolute()
    return f"./{file.relative_to(folder).as_posix()}:{class_name}" if file.is_relative_to(folder) else name


def digest(path: Path) -> str:
    """sha256 of a file's content, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_class(name: str) -> type[Any]:
    """The class that "path/to/file.py:Class" names, of the file as it is now."""
    path, class_name = split(resolved(name, Path()))
    module = _load(path)
    own = [n for n, v in vars(module).items() if isinstance(v, type) and v.__module__ == module.__name__]
    if not class_name:
        example = f"{path.name}:{own[0] if own else 'MyClass'}"
        raise LocalFileError(f"{name!r} is a file: name one of its classes too, as in {example!r}.")
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        raise LocalFileError(f"{path} has no class {class_name!r}.{suggest(class_name, own)}")
    return found


def _load(path: Path) -> ModuleType:
    """The module of a file; loaded anew when the file is no longer what was loaded."""
    name = f"{__name__}.{os.fsencode(path).hex()}"
    loaded = sys.modules.get(name)
    try:
        now = digest(path)
        if loaded is not None and loaded.__dict__.get("__digest__") == now:
            return loaded
        spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        module.__dict__["__digest__"] = now
        sys.modules[name] = module  # before it runs: dataclasses look their module up
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    except SyntaxError as error:
        raise LocalFileError(
            f"{error.filename or path}:{error.lineno}  is not Python: {error.msg}."
        ) from error
    except UnicodeDecodeError as error:
        raise LocalFileError(f"{path}: is not UTF-8 text.") from error
    except ModuleNotFoundError as error:
        raise LocalFileError(
            f"{path} needs the module {error.name!r}, which is neither installed nor on the Python path."
        ) from error
    except OSError as error:
        raise LocalFileError(f"{path}: {error.strerror or error}.") from error
    except AvalignError:
        raise
    except Exception as error:
        line = _line_in(path, error)
        raise LocalFileError(
            f"{path}{line}  fails when it is loaded: {type(error).__name__}: {error}"
        ) from error
    return module


def _line_in(path: Path, error: Exception) -> str:
    """ ":12", the last line of the file that the error passed through."""
    line, trace = "", error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = f":{trace.tb_lineno}"
        trace = trace.tb_next
    return line


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles the file as it is. Its cached bytecode, told by size and second, may be of another content."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `avalign.local_components.<hex>` where its file is not loaded yet: what a pickle asks for."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        parent, _, last = fullname.rpartition(".")
        if parent != __name__:
            return None
        try:
            file = os.fsdecode(bytes.fromhex(last))
        except ValueError:
            return None
        return importlib.util.spec_from_file_location(fullname, file, loader=_Loader(fullname, file))


sys.meta_path.append(_Finder())
