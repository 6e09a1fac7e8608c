"""``python -m tlee``: what the pipeline and the Makefile call."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from tlee.errors import UserError
from tlee.paths import find_root

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


@app.command()
def demo(
    root: Annotated[Path, typer.Option(help="Folder to fill; it is made if it is missing.")] = Path("data"),
):
    """Render the demo clips and their list files: the same bytes each time."""
    from tlee.demo import write_demo

    try:
        root.mkdir(parents=True, exist_ok=True)
        typer.echo(f"{write_demo(root)} clips in {root}")
    except OSError as error:
        raise UserError(f"cannot write to {root} ({error.strerror}): name another folder with --root") from None


@app.command()
def run(notebook: Annotated[str, typer.Argument(help="Such as 5_evaluate.")]):
    """Run one notebook of the pipeline with papermill (`dvc repro` calls this)."""
    from tlee.notebook import run_notebook

    os.chdir(find_root(Path.cwd()))
    typer.echo(f"ran {run_notebook(notebook)}")


@app.command()
def summary():
    """Say what the last run found and which notebooks and figures to open."""
    from tlee.summary import summarise

    os.chdir(find_root(Path.cwd()))
    typer.echo(summarise())


@app.command()
def pool(runs: Annotated[list[str], typer.Argument(help="DVC experiments or git revisions, one a fold.")]):
    """Put the test videos of the folds of a cross-validation together, in one table."""
    from tlee.folds import markdown, read_traces
    from tlee.folds import pool as pool_traces

    os.chdir(find_root(Path.cwd()))
    typer.echo(markdown(pool_traces(read_traces(runs))))


def main() -> None:
    """The command line; a ``UserError`` is one line and exit status 1."""
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
