"""Commands that run the trained network on videos, cameras and streams; ``python -m tlee`` offers them."""

import os
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from tlee.errors import UserError, one_line
from tlee.paths import find_root

PolicyName = Annotated[
    str | None,
    typer.Option(
        help="Policy from results/policy.json, such as full, or guaranteed. Default: the policy of model.method."
    ),
]


def predict(
    videos: Annotated[
        list[Path],
        typer.Argument(help="Video files, or folders of numbered frames; `./-a.mp4` if a name begins with a dash."),
    ],
    policy: PolicyName = None,
    figure: Annotated[Path | None, typer.Option(help="Output folder for a film strip of each video.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line and video.")] = False,
):
    """Classify your own videos with the trained network and real exits, and report the cost."""
    from tlee.live.prediction import (
        PredictionTable,
        draw_film_strip,
        film_strip_paths,
        load_predictor,
        predict,
        to_json,
    )
    from tlee.params import load_params

    files = [video.absolute() for video in videos]
    strips = film_strip_paths(files, _output_folder(figure, "--figure")) if figure else []
    os.chdir(find_root(Path.cwd()))
    predictor = load_predictor(load_params(), policy)
    names = [one_line(str(video)) for video in videos]
    table = PredictionTable.of(names, predictor.classes)
    num_predicted = 0
    for index, (name, file) in enumerate(zip(names, files, strict=True)):
        try:
            prediction = predict(predictor, file, name, index)
        except UserError as error:
            typer.echo(f"error: {one_line(str(error))}", err=True)
            continue
        if not num_predicted and not as_json:
            typer.echo(table.heading())
        typer.echo(to_json(prediction) if as_json else table.line(prediction))
        if figure:
            draw_film_strip(prediction, strips[index])
        num_predicted += 1
    if num_predicted < len(videos):
        raise typer.Exit(1)


def watch(
    source: Annotated[str, typer.Argument(help="Video file, camera (0 or /dev/video0) or address (rtsp://...).")],
    policy: PolicyName = None,
    fps: Annotated[float, typer.Option(min=0.01, help="Frames to sample per second.")] = 5.0,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime/--as-fast-as-possible", help="For a file: play at its own speed, dropping frames like a camera."
        ),
    ] = False,
    decisions: Annotated[int | None, typer.Option(min=1, help="Number of decisions to stop after.")] = None,
    queue: Annotated[int, typer.Option(min=1, help="Maximum number of queued frames; older ones are dropped.")] = 5,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds without a frame after which a live source is lost.")
    ] = 10.0,
    retries: Annotated[int, typer.Option(min=0, help="Consecutive attempts to reconnect to a lost live source.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line and decision.")] = False,
):
    """Classify a continuous source online, with real exits, until it ends or Ctrl-C is pressed.

    A decision processes frames as they arrive, at most as many as the network was trained on. It is printed as soon as
    the policy stops, and the next one starts with the next frame.
    """
    from tlee.live.capture import is_address, is_camera, without_password
    from tlee.live.prediction import load_predictor
    from tlee.live.streams import StreamOptions
    from tlee.live.watching import DecisionLog, open_stream, order_warning, to_json, watch
    from tlee.params import load_params

    file = source if is_camera(source) or is_address(source) else str(Path(source).absolute())
    os.chdir(find_root(Path.cwd()))
    params = load_params()
    predictor = load_predictor(params, policy)
    if message := order_warning(params):
        _warn(message)
    name = one_line(without_password(source))
    stream = open_stream(name, file, params, fps, StreamOptions(queue, timeout, retries, realtime), _warn)
    log = DecisionLog.of(name, predictor.classes)
    try:
        for decision in islice(watch(predictor, stream), decisions):
            if not log.num_decisions and not as_json:
                typer.echo(log.heading())
            log.add(decision)
            typer.echo(to_json(decision) if as_json else log.line(decision, stream.is_live))
    except KeyboardInterrupt:
        pass
    except UserError:
        if log.num_decisions:
            typer.echo(log.summary(), err=as_json)
        raise
    typer.echo(log.summary(), err=as_json)


def _warn(message: str) -> None:
    typer.echo(f"warning: {message}", err=True)


def _output_folder(path: Path, option: str) -> Path:
    """Return the absolute path of an output folder, created if missing; ``option`` names it in errors."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {path} ({error.strerror}): name another folder with {option}") from None
    return path.absolute()
