"""Early-exit video recognition: `python -m tlee`, as called by the pipeline and the Makefile."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from tlee.errors import UserError, one_line, storage_error
from tlee.live.commands import predict, watch
from tlee.paths import CODE, find_root

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",  # so that paragraphs flow
)


@app.command()
def demo(
    root: Annotated[Path, typer.Option(help="Output folder, created if missing.")] = Path("data"),
):
    """Render the demo clips and their list files, byte-identical each time."""
    from tlee.demo import write_demo

    try:
        root.mkdir(parents=True, exist_ok=True)
        typer.echo(f"{write_demo(root)} clips in {root}")
    except OSError as error:
        raise UserError(f"cannot write to {root} ({error.strerror}): name another folder with --root") from None


@app.command()
def run(notebook: Annotated[str, typer.Argument(help="Name of the notebook, such as 5_evaluate.")]):
    """Run one notebook of the pipeline with papermill (called by `dvc repro`)."""
    from tlee.execution import run_notebook

    os.chdir(find_root(Path.cwd()))
    typer.echo(f"ran {run_notebook(notebook)}")


@app.command()
def lab():
    """Open JupyterLab on the notebooks, with the settings that `reproducible` asks for."""
    from tlee.params import load_params
    from tlee.reproducibility import kernel_settings

    os.chdir(find_root(Path.cwd()))
    with kernel_settings(load_params().reproducible):
        raise typer.Exit(subprocess.call(["jupyter", "lab", "--notebook-dir=.", "notebooks"]))


@app.command()
def code():
    """List the code that each stage of the pipeline uses (called by `dvc repro`)."""
    from tlee.stage_code import write_stage_code

    os.chdir(find_root(Path.cwd()))
    typer.echo(f"wrote {len(write_stage_code())} files to {CODE}")


@app.command()
def plan():
    """Say what a run with these parameters will take on this machine, before anything runs: time and disk."""
    from tlee.params import load_params
    from tlee.reproducibility import kernel_settings

    os.chdir(find_root(Path.cwd()))
    with kernel_settings(load_params().reproducible):  # read by the libraries that this imports
        from tlee.planning import plan_run

        typer.echo(plan_run())


@app.command()
def summary():
    """Print the results of the last run, and the notebooks and figures to open."""
    from tlee.paper.summary import summarise

    os.chdir(find_root(Path.cwd()))
    typer.echo(summarise())


@app.command()
def compare(
    revision: Annotated[
        str, typer.Argument(help="Commit, tag or branch of git with the run to compare with.")
    ] = "HEAD",
):
    """Compare your run with the committed one: the same bits, within what seeds make of it, or outside; or damaged.

    Exit status 0 for the same bits and numbers within, 1 otherwise.
    """
    from tlee.paper.agreement import compare, report

    os.chdir(find_root(Path.cwd()))
    agreement = compare(revision)
    typer.echo(report(agreement))
    if not agreement.agrees:
        raise typer.Exit(1)


@app.command()
def bench(
    network: Annotated[list[str] | None, typer.Option(help="Backbone. Default: mobilenet_v2 and resnet50.")] = None,
    videos: Annotated[int, typer.Option(min=2, help="Number of clips to time each network on.")] = 8,
    replayed: Annotated[int, typer.Option(min=64, help="Number of videos to replay policies on.")] = 512,
    whole: Annotated[bool, typer.Option(help="Stage 5 with as many videos as HVU's val too: half an hour.")] = False,
    to: Annotated[Path | None, typer.Option(help="CSV file to write the same numbers to.")] = None,
):
    """Time real exits, sweeps, stage 5, input and training as ratios, with random weights: nothing is downloaded."""
    from tlee.benchmark import NETWORKS, benchmark, markdown, workloads

    path = to.absolute() if to else None
    os.chdir(find_root(Path.cwd()))
    table = benchmark(tuple(network or NETWORKS), videos, replayed, evaluated=workloads(whole))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    typer.echo(markdown(table))


@app.command()
def pool(
    runs: Annotated[list[str], typer.Argument(help="DVC experiments or git revisions, one per fold.")],
    to: Annotated[Path | None, typer.Option(help="CSV file to write the results of each video to.")] = None,
):
    """Pool the test videos of all folds of a cross-validation in one table."""
    from tlee.paper.folds import join_folds, markdown, pool_folds, read_traces

    os.chdir(find_root(Path.cwd()))
    videos = join_folds(read_traces(runs))
    if to:
        videos.to_csv(to, index=False, float_format="%.6g", lineterminator="\n")
    typer.echo(markdown(pool_folds(videos)))


@app.command()
def replicates(
    files: Annotated[list[Path], typer.Argument(help="videos.csv of results/plots/evaluate, one per run.")],
):
    """Combine runs of several splits and seeds: mean areas, losses and costs, with 95% intervals."""
    from tlee.paper.replicates import Replicates, markdown, read_replicates

    typer.echo(markdown(Replicates(read_replicates(files))))


@app.command()
def seeds(
    train: Annotated[list[int] | None, typer.Argument(min=0, help="Seeds to train with first, unless done.")] = None,
):
    """Compare this run with those of other seeds: the tables and the figure that the documents show."""
    from tlee.paper.seed_runs import train as train_with
    from tlee.paper.seeds import collect, draw, load_trainings, report

    os.chdir(find_root(Path.cwd()))
    for seed in train or []:
        train_with(seed)
        typer.echo(f"wrote {collect(seed)}")
    trainings = load_trainings()
    typer.echo(report(trainings))
    typer.echo(f"\nFigure: {draw(trainings)}")


app.command()(predict)
app.command()(watch)


@app.command()
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="Checkpoint published by the authors (.pth).")],
    layout: Annotated[Literal["frameexit", "tlee"], typer.Option("--as", help="Code base that wrote it.")],
    params: Annotated[Path | None, typer.Option(help="params.yaml of another project.")] = None,
    to: Annotated[Path | None, typer.Option(help="Output file (.safetensors). Default: weights/NAME.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="File of class names, one per line, in the network's order.")
    ] = None,
    normalise: Annotated[
        Literal["imagenet", "kinetics"] | None, typer.Option(help="Normalisation of frames, if not as published.")
    ] = None,
    branches: Annotated[bool, typer.Option("--branches/--without-branches", help="Import TLEE's branches.")] = True,
    reuse: Annotated[
        Literal["ap", "ema"] | None, typer.Option(help="TLEE's useFeatureFunc, if it was a mean of two features.")
    ] = None,
):
    """Convert a published checkpoint to weights for `model.trained`, and print the matching parameters."""
    from tlee.checkpoints import import_checkpoint, report

    root = find_root(Path.cwd()) if params is None else params.parent
    name = file.name.removesuffix(".tar").removesuffix(".pth").removesuffix(".pt")
    imported = import_checkpoint(
        file,
        layout,
        params or root / "params.yaml",
        to or root / "weights" / f"{name}.safetensors",
        class_file=classes,
        normalise=normalise,
        branches=branches,
        reuse=reuse,
    )
    typer.echo(report(imported))


def main() -> None:
    """Run the command line; print an error that the user can fix as one line, with exit status 1.

    These are ``UserError`` and the errors of a full, read-only or forbidden file system.
    """
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {one_line(str(error))}")
    except OSError as error:
        file = "a file or the output" if error.filename is None else os.fsdecode(error.filename)
        fixable = storage_error(error.errno or 0, f"{file} cannot be read or written ({error.strerror})")
        if fixable is None:
            raise
        sys.exit(f"error: {one_line(str(fixable))}")


if __name__ == "__main__":
    main()
