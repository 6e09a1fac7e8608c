"""The code that each stage of the pipeline really uses, as one small text file a notebook.

``dvc.yaml`` has a stage that writes these files, and every other stage depends on its own. They hold a line for each
module that the notebook imports, directly or through other modules, with a digest of its code without comments and
docstrings: better words run nothing again, and ``git diff results/code`` names the module that made a stage run.
"""

import ast
import hashlib
import io
import tokenize
from functools import cache
from pathlib import Path

from tlee.errors import UserError
from tlee.paths import CODE, STRIPPED

PACKAGE = Path(__file__).parent

#: Modules that check, name, show and write results, but cannot change them: no stage depends on their code.
BOOKKEEPING = {
    *("tlee", "tlee._papermill", "tlee.checksums", "tlee.distributed.launch", "tlee.environment", "tlee.errors"),
    *("tlee.execution", "tlee.notebook", "tlee.param_problems", "tlee.param_types", "tlee.params", "tlee.paths"),
    *("tlee.records", "tlee.reproducibility", "tlee.resumption", "tlee.sizes", "tlee.stage_code"),
}

_UNSEEN = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def write_stage_code() -> list[Path]:
    """Write ``results/code/<notebook>.txt`` for every stripped notebook; return the files.

    Raises ``UserError`` if a notebook cannot be read.
    """
    CODE.mkdir(parents=True, exist_ok=True)
    files = []
    for notebook in sorted(STRIPPED.glob("*.ipynb")):
        lines = [f"{code_digest(path)}  {path.relative_to(PACKAGE.parent).as_posix()}" for path in code_files(notebook)]
        files.append(CODE / f"{notebook.stem}.txt")
        files[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def code_files(notebook: Path) -> list[Path]:
    """The files whose code decides what ``notebook`` computes, sorted.

    A notebook that trains does not depend on the code of its figures: a better picture is not worth training again.
    """
    import nbformat  # slow to import, and training needs only the digests

    try:
        cells = nbformat.read(notebook, as_version=4).cells
        imported = imported_modules("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    except Exception:  # a damaged notebook can raise any
        raise UserError(f"{notebook} is damaged: `dvc repro` makes it again from notebooks/") from None
    used = closure(imported)
    if any(_is_in(module, "tlee.training") for module in used):
        used = {module for module in used if not _is_in(module, "tlee.figures")}
    files = {source_file(module) for module in used - BOOKKEEPING}
    return sorted(path for path in files if path.read_text(encoding="utf-8").strip())


def closure(modules: set[str]) -> set[str]:
    """``modules``, the packages that they lie in, and all that these import in turn."""
    found: set[str] = set()
    while modules - found:
        module = min(modules - found)
        found.add(module)
        modules = modules | imported_modules(source_file(module).read_text(encoding="utf-8"))
        if "." in module:
            modules = modules | {module.rpartition(".")[0]}
    return found


def imported_modules(code: str) -> set[str]:
    """The modules of the kit that ``code`` imports anywhere, also within functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name for name in names if _is_in(name, "tlee") and source_file(name).exists()}


def source_file(module: str) -> Path:
    """The file of a module of the kit; that of a package is its ``__init__.py``."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def code_digest(path: Path) -> str:
    """Digest of the code in ``path`` without comments, docstrings and blank lines, the same in every Python."""
    return _digest(path.read_text(encoding="utf-8"))


@cache
def _digest(source: str) -> str:
    return hashlib.sha256(bare_code(source).encode()).hexdigest()[:16]


def bare_code(source: str) -> str:
    """``source`` without comments, docstrings and blank lines."""
    lines, seen = source.splitlines(), set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
        elif token.type not in _UNSEEN:
            seen |= set(range(token.start[0], token.end[0] + 1))
    for start, end in _docstrings(ast.parse(source)):
        seen -= set(range(start, end + 1))
    return "\n".join(lines[row - 1] for row in sorted(seen))


def _docstrings(tree: ast.Module) -> list[tuple[int, int]]:
    """First and last row of each docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node, clean=False)]
    return [(node.body[0].lineno, node.body[0].end_lineno or node.body[0].lineno) for node in nodes]


def _is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
