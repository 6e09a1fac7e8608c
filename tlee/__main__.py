"""``python -m tlee``: what the pipeline and the Makefile call."""

import os
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import typer

from tlee.errors import UserError
from tlee.paths import CODE, find_root

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",  # so that paragraphs flow
)

PolicyName = Annotated[
    str | None,
    typer.Option(help="A policy of results/policy.json, such as full, or guaranteed; by default the method's."),
]


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
def code():
    """Write which code each stage of the pipeline uses (`dvc repro` calls this)."""
    from tlee.stage_code import write_stage_code

    os.chdir(find_root(Path.cwd()))
    typer.echo(f"wrote {len(write_stage_code())} files to {CODE}")


@app.command()
def summary():
    """Say what the last run found and which notebooks and figures to open."""
    from tlee.paper.summary import summarise

    os.chdir(find_root(Path.cwd()))
    typer.echo(summarise())


@app.command()
def bench(
    network: Annotated[list[str] | None, typer.Option(help="A backbone; by default mobilenet_v2 and resnet50.")] = None,
    videos: Annotated[int, typer.Option(min=2, help="Clips that each network is timed on.")] = 8,
    replayed: Annotated[int, typer.Option(min=64, help="Videos in the table that policies are replayed on.")] = 512,
    ucf101: Annotated[bool, typer.Option("--ucf101", help="As many as the test split of UCF101 has.")] = False,
    to: Annotated[Path | None, typer.Option(help="A CSV file for the same numbers.")] = None,
):
    """Time real exits against the ideal, decisions and sweeps: ratios, with random weights and nothing to download."""
    from tlee.benchmark import NETWORKS, UCF101_TEST, benchmark, markdown

    path = to.absolute() if to else None
    os.chdir(find_root(Path.cwd()))
    table = benchmark(tuple(network or NETWORKS), videos, UCF101_TEST if ucf101 else replayed)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
    typer.echo(markdown(table))


@app.command()
def pool(
    runs: Annotated[list[str], typer.Argument(help="DVC experiments or git revisions, one a fold.")],
    to: Annotated[Path | None, typer.Option(help="A CSV file to keep what was said of each video.")] = None,
):
    """Put the test videos of the folds of a cross-validation together, in one table."""
    from tlee.paper.folds import join_folds, markdown, pool_folds, read_traces

    os.chdir(find_root(Path.cwd()))
    videos = join_folds(read_traces(runs))
    if to:
        videos.to_csv(to, index=False, float_format="%.6g", lineterminator="\n")
    typer.echo(markdown(pool_folds(videos)))


@app.command()
def predict(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders of numbered frames.")],
    policy: PolicyName = None,
    figure: Annotated[Path | None, typer.Option(help="Folder for a film strip of each video.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line a video.")] = False,
):
    """Say what the trained network sees in videos of yours, with real exits, and what it took."""
    from tlee.live.prediction import Table, draw_strip, load_predictor, predict, strip_files, to_json
    from tlee.params import load_params

    files = [video.absolute() for video in videos]
    strips = strip_files(files, _folder(figure, "--figure")) if figure else []
    os.chdir(find_root(Path.cwd()))
    predictor = load_predictor(load_params(), policy)
    table = Table.of([str(video) for video in videos], predictor.classes)
    done = 0
    for number, (video, file) in enumerate(zip(videos, files, strict=True)):
        try:
            prediction = predict(predictor, file, str(video), number)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            continue
        if not done and not as_json:
            typer.echo(table.heading())
        typer.echo(to_json(prediction) if as_json else table.line(prediction))
        if figure:
            draw_strip(prediction, strips[number])
        done += 1
    if done < len(videos):
        raise typer.Exit(1)


@app.command()
def watch(
    source: Annotated[
        str, typer.Argument(help="A video file, a camera (0 or /dev/video0) or an address (rtsp://...).")
    ],
    policy: PolicyName = None,
    fps: Annotated[float, typer.Option(min=0.01, help="Frames that are sampled from a second of the source.")] = 5.0,
    realtime: Annotated[
        bool,
        typer.Option("--realtime/--as-fast-as-possible", help="Of a file: play it, and lose frames as a camera does."),
    ] = False,
    decisions: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    queue: Annotated[int, typer.Option(min=1, help="Frames that wait at most; beyond, old ones are dropped.")] = 5,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds of silence until a live source is lost.")] = 10.0,
    retries: Annotated[int, typer.Option(min=0, help="Attempts in a row to connect to a lost live source again.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, one line a decision.")] = False,
):
    """Decide on a source that goes on, frame by frame with real exits, until it ends or Ctrl-C.

    A decision takes up to as many frames as the network has learnt, as they come; as soon as the policy stops it is
    told, and the next one begins with the next fresh frame.
    """
    from tlee.live.prediction import load_predictor
    from tlee.live.streams import Following, is_address, is_camera, without_password
    from tlee.live.watching import Log, open_stream, to_json, warning, watch
    from tlee.params import load_params

    file = source if is_camera(source) or is_address(source) else str(Path(source).absolute())
    os.chdir(find_root(Path.cwd()))
    params = load_params()
    predictor = load_predictor(params, policy)
    if found := warning(params):
        typer.echo(f"warning: {found}", err=True)
    following = Following(queue, timeout, retries, realtime)
    name = without_password(source)
    stream = open_stream(name, file, params, fps, following, lambda line: typer.echo(f"warning: {line}", err=True))
    log = Log.of(name, predictor.classes)
    try:
        for decision in islice(watch(predictor, stream), decisions):
            if not log.decisions and not as_json:
                typer.echo(log.heading())
            log.add(decision)
            typer.echo(to_json(decision) if as_json else log.line(decision, stream.live))
    except KeyboardInterrupt:
        pass
    except UserError:
        if log.decisions:
            typer.echo(log.summary(), err=as_json)
        raise
    typer.echo(log.summary(), err=as_json)


def _folder(path: Path, option: str) -> Path:
    """A folder to write to, made if it is missing; absolute."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {path} ({error.strerror}): name another folder with {option}") from None
    return path.absolute()


@app.command()
def import_checkpoint(
    file: Annotated[Path, typer.Argument(help="A .pth file that the authors published.")],
    layout: Annotated[Literal["frameexit", "tlee"], typer.Option("--as", help="Whose code wrote it.")],
    params: Annotated[Path | None, typer.Option(help="params.yaml of the project, if it is another.")] = None,
    to: Annotated[Path | None, typer.Option(help="The .safetensors file to write; weights/NAME by default.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Class names, one a line, in the network's order.")] = None,
    normalise: Annotated[
        Literal["imagenet", "kinetics"] | None, typer.Option(help="How frames were normalised, if not as published.")
    ] = None,
    branches: Annotated[bool, typer.Option("--branches/--without-branches", help="Of TLEE: layer exits.")] = True,
):
    """Turn a published checkpoint into weights for `model.trained`, and print the parameters that go with it."""
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
    )
    typer.echo(report(imported))


def main() -> None:
    """The command line; a ``UserError`` is one line and exit status 1."""
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
