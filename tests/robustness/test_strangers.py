"""Files of strangers: code in weights and parameters, paths that leave a folder, odd names, huge frames, playlists."""

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import av
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from support.bundles import small_bundle
from support.clips import encode, seen
from support.commands import ROOT, TLEE, error_line, make_folder, run
from support.dataset_files import TINY, lay_out, make_tiny, read, refusal
from support.projects import make_project
from support.refusals import one_line
from support.small import small_params
from typer.testing import CliRunner

from tlee.__main__ import app
from tlee.edge import runner
from tlee.edge.runner import MANIFEST, Bundle, RunnerError, sealed, unsealed
from tlee.edge.targets import Remote
from tlee.extraction import Sampling, decode, extract
from tlee.extraction.limits import MAX_PIXELS, FrameSizeError
from tlee.extraction.videos import upright
from tlee.live.capture import CaptureError, is_address, open_capture
from tlee.params import load_params
from tlee.paths import FAILED_VIDEOS
from tlee.weights import load_pickle, read_weights

pytestmark = pytest.mark.slow

#: Names that work: options, formats, quotes, substitutions, mathematics, protocols.
ODD_NAMES = [
    "-rf.mp4",
    "--policy=full.mp4",
    "%03d %s.mp4",
    'it\'s "quoted".mp4',
    "$(touch pwned).mp4",
    r"$\frac{a_{b$.mp4",
    "concat:a|b.mp4",
    "file:c.mp4",
    "été 日本 🎬.mp4",
    "a;b&c #d?.mp4",
]

# --- code in files -----------------------------------------------------------------------------------------


class Attack:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.file),)


@pytest.fixture
def pwned(tmp_path: Path) -> Path:
    """The file that attacks create."""
    return tmp_path / "pwned"


@pytest.fixture(params=["torch", "plain", "hidden"])
def weights(request: pytest.FixtureRequest, tmp_path: Path, pwned: Path) -> Path:
    """Weights that run code: of ``torch.save``, a bare pickle, and within a state dictionary."""
    path = tmp_path / "weights.pth"
    if request.param == "plain":
        path.write_bytes(pickle.dumps(Attack(pwned)))
    else:
        torch.save(Attack(pwned) if request.param == "torch" else {"a": torch.zeros(2), "b": Attack(pwned)}, path)
    return path


def test_the_attack_works_where_pickles_are_trusted(tmp_path, pwned):
    torch.save(Attack(pwned), tmp_path / "weights.pth")
    torch.load(tmp_path / "weights.pth", weights_only=False)
    assert pwned.exists()


@pytest.mark.parametrize("load", [load_pickle, read_weights])
def test_weights_that_run_code_are_refused(weights, pwned, load):
    one_line(lambda: load(weights, "download it again"), weights, "nothing but tensors", "download it again")
    assert not pwned.exists()


@pytest.mark.parametrize("layout", ["frameexit", "tlee"])
def test_a_checkpoint_that_runs_code_is_not_imported(tmp_path, pwned, layout):
    project = make_folder(tmp_path / "project")
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": Attack(pwned)}, project / "evil.pth")
    error_line(run(project, *TLEE, "import-checkpoint", "evil.pth", "--as", layout), "evil.pth")
    assert not pwned.exists()
    assert not (project / "weights").exists()


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [{pwned}]",
        "!!python/object/new:os.mkdir [{pwned}]",
        "!!python/name:os.mkdir",
        "!!python/module:os",
    ],
)
def test_parameters_that_run_code_are_refused(tmp_path, pwned, value):
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    path.write_text(re.sub(r"^seed: .*", f"seed: {value.format(pwned=pwned)}", text, flags=re.MULTILINE))
    one_line(lambda: load_params(path), path, "not valid YAML")
    assert not pwned.exists()


def test_code_in_a_parameter_is_only_text_to_a_notebook(tmp_path, monkeypatch, pwned):
    monkeypatch.chdir(make_folder(tmp_path / "project"))
    for code in (f"$(mkdir {pwned})", f"'; mkdir {pwned}; '", f"__import__('os').mkdir('{pwned}')", f"!mkdir {pwned}"):
        params = load_params(overrides={"dataset.root": code})
        assert params.dataset.root == code
        message = one_line(lambda name=code: load_params(overrides={"model.backbone": name}), "model.backbone")
        assert "mobilenet_v2" in message
    html = load_params(overrides={"dataset.root": "<script>alert(1)</script>"}).table("dataset").to_html()
    assert "<script>" not in html
    assert not pwned.exists()


def test_no_parameter_becomes_part_of_a_command_of_the_pipeline():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in stages.values():
        assert not re.findall(r"\$\{[^}]*\}", str(stage["cmd"]))


@pytest.mark.parametrize("name", ["../stripped/any", "/etc/any", "..", "a/b"])
def test_only_notebooks_of_the_project_are_run(tmp_path, name):
    project = make_folder(tmp_path)
    (project / "results/stripped").mkdir(parents=True)
    (project / "results/stripped/any.ipynb").write_text("{}")
    error_line(run(project, *TLEE, "run", name), "without its folder")
    assert not (project / "runs").exists()


# --- bundles -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bundle(tmp_path_factory.mktemp("made"), videos=2)


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def change_manifest(folder: Path, change) -> None:
    """Apply ``change`` to the manifest, which remains valid in itself."""
    program = unsealed((folder / MANIFEST).read_text())
    change(program)
    (folder / MANIFEST).write_text(json.dumps(sealed(program)))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "engines/../../secret", "..", "", "a\nb", "a\\b"])
@pytest.mark.parametrize("section", ["files", "graphs"])
def test_a_manifest_that_leaves_its_folder_is_refused(bundle, capsys, section, name):
    change_manifest(bundle, lambda program: program[section].update({name: next(iter(program[section].values()))}))
    one_line(lambda: Bundle(bundle), MANIFEST, ascii(name), "outside its folder", error=RunnerError)
    with pytest.raises(SystemExit, match="outside its folder"):
        runner.main(["--bundle", str(bundle)])


@pytest.mark.parametrize(
    ("section", "content"),
    [(section, content) for section in ("files", "graphs", "videos") for content in (None, 3)]
    + [("files", ["a"]), ("graphs", ["a"]), ("videos", {"a": "b"})],
)
def test_a_manifest_of_another_form_is_refused(bundle, section, content):
    change_manifest(bundle, lambda program: program.update({section: content}))
    one_line(lambda: Bundle(bundle), MANIFEST, "export it again", error=RunnerError)


def test_a_file_that_the_manifest_does_not_list_is_not_used(bundle):
    (bundle / "extra.onnx").write_bytes(b"")
    one_line(lambda: Bundle(bundle).file("extra.onnx"), "extra.onnx", "not the file", error=RunnerError)


@pytest.mark.parametrize(
    ("target", "login", "folder"),
    [
        ("ssh://nano/~/-rf", ("nano",), "./-rf"),
        ("ssh://nano/-rf", ("nano",), "/-rf"),
        ("ssh://nano/~/$(reboot);'x", ("nano",), "$(reboot);'x"),
    ],
)
def test_folders_on_a_device_are_never_options(target, login, folder):
    remote = Remote.of(load_params(ROOT / "params.yaml", {"latency.target": target}).latency.target)
    assert (remote.login, remote.folder) == (login, folder)


@pytest.mark.parametrize(
    "target", ["ssh://-oProxyCommand=reboot/x", "ssh://-x@nano/y", "ssh://nano:-1/x", "ssh://nano/a b"]
)
def test_a_device_whose_name_is_an_option_is_refused(target):
    one_line(lambda: load_params(ROOT / "params.yaml", {"latency.target": target}), "latency.target", "ssh://")


# --- lists that leave the folder of the videos ---------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(TINY) - {"folder"}))
def test_a_list_that_climbs_out_of_the_folder_is_refused(tmp_path, name):
    files, _ = TINY[name]()
    lay_out(tmp_path, {file: text.replace("jump_____01", "x/../../../jump_____01") for file, text in files.items()})
    for file in (tmp_path / "ucfTrainTestlist").glob("trainlist*"):
        file.write_text(file.read_text().replace("v_jump_g01", "../../v_jump_g01"))
    refusal(name, tmp_path, name, "../", "outside")


@pytest.mark.parametrize("name", ["hvu", "mini_kinetics", "something_v2"])
def test_a_list_with_an_absolute_path_is_refused(tmp_path, name):
    files, _ = TINY[name]()
    lay_out(tmp_path, {file: text.replace("jump_____01", "/etc/jump_____01") for file, text in files.items()})
    refusal(name, tmp_path, name, "/etc/jump_____01", "outside")


@pytest.mark.parametrize("path", ["../../etc/passwd.avi", "/etc/passwd", "a/../../b", "..", "."])
def test_a_list_of_frames_that_leaves_the_folder_is_refused(tmp_path, path):
    train = f"a 9 0\nb 9 0\nc 9 1\nd 9 1\n{path} 9 0\n"
    lay_out(tmp_path, {"mini_kinetics_train.txt": train, "mini_kinetics_val.txt": "e 9 0\nf 9 1\n"})
    refusal("mini_kinetics", tmp_path, f"`{path}`", "outside")


# --- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\x1bcb", "a\u2028b", os.fsdecode(b"a\xffb")])
def test_names_that_break_lines_are_refused_in_one_line(tmp_path, name):
    make_tiny("folder", tmp_path)
    shutil.copy(next(tmp_path.glob("jump/*.mp4")), tmp_path / "jump" / f"{name}.mp4")
    refusal("folder", tmp_path, "a video is named", "rename it").encode()
    (tmp_path / "jump" / f"{name}.mp4").unlink()
    labels = {"jump": "0", name: "1"}
    files, _ = TINY["something_v2"]()
    files = {file: text.replace('"run"', json.dumps(name)).replace("[run]", "[X]") for file, text in files.items()}
    listed = {file: text.replace('"[X]"', json.dumps(name)) for file, text in files.items()}
    assert json.loads(next(text for file, text in listed.items() if "labels" in file)) == labels
    refusal("something_v2", lay_out(tmp_path / "list", listed), "a class is named", "rename it").encode()


def test_odd_names_are_extracted(tmp_path, monkeypatch):
    make_tiny("folder", tmp_path / "data")
    source = next((tmp_path / "data/jump").iterdir())
    for name in ODD_NAMES:
        shutil.copy(source, tmp_path / "data/jump" / name)
    (tmp_path / "data/jump").rename(tmp_path / "data/-été %d $x$ 'q'")
    monkeypatch.chdir(tmp_path)
    dataset = read("folder", Path("data"))
    extraction = extract(dataset, small_params({"compute.jobs": 1}).extract, Path("frames"))
    assert len(extraction.failed) == 0
    assert set(ODD_NAMES) <= {Path(video).name for video in extraction.stored["video"]}
    assert not list(tmp_path.rglob("pwned*"))


def test_a_name_too_long_for_the_disk_is_listed_as_failed(tmp_path):
    reason = one_line(lambda: decode(tmp_path / f"{'a' * 300}.mp4", sampling()), "cannot be read", error=ValueError)
    assert "too long" in reason


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("projet été 50%")
    make_project(root)
    return root


@pytest.fixture
def project(trained: Path, monkeypatch: pytest.MonkeyPatch, five_layer_backbone: None) -> Path:
    monkeypatch.chdir(trained)
    return trained


@pytest.mark.parametrize("name", [*ODD_NAMES, "two\nlines.mp4", os.fsdecode(b"latin\xe9.mp4")])
def test_odd_names_are_predicted_watched_and_drawn(project, tmp_path, name):
    shutil.copy("videos/0.mp4", name)
    call = CliRunner().invoke
    done = call(app, ["predict", f"./{name}", "--json", "--figure", str(tmp_path / "figures")])
    assert (done.exit_code, done.stderr) == (0, ""), done
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["label"] == json.loads(call(app, ["predict", "videos/0.mp4", "--json"]).stdout)["label"]
    assert len(list((tmp_path / "figures").glob("*.png"))) == 1
    table = call(app, ["predict", "--", name])
    assert (table.exit_code, len(table.stdout.splitlines())) == (0, 2), table
    watched = call(app, ["watch", f"./{name}", "--decisions", "1"])
    assert (watched.exit_code, len(watched.stdout.splitlines())) == (0, 3), watched
    Path(name).unlink()


@pytest.mark.parametrize("command", ["predict", "watch"])
def test_a_missing_file_with_an_odd_name_is_one_line(trained, command):
    error_line(run(trained, *TLEE, command, "two\nlines.mp4"))


@pytest.mark.parametrize("command", ["predict", "watch"])
def test_a_name_with_a_leading_dash_is_an_option_unless_it_is_marked(project, command):
    done = CliRunner().invoke(app, [command, "-rf.mp4"])
    assert done.exit_code == 2
    assert "No such option" in done.stderr


@pytest.mark.parametrize(("source", "expected"), [("rtsp://h/p", True), ("./a://b.mp4", False), ("a b://c", False)])
def test_only_protocols_make_an_address(source, expected):
    assert is_address(source) == expected


# --- frames ---------------------------------------------------------------------------------------------------


def sampling() -> Sampling:
    return Sampling.of(small_params().extract)


def huge_folder(path: Path) -> None:
    path.mkdir(parents=True)
    Image.new("1", (10_000, 10_000)).save(path / "1.png")


def huge_video(path: Path) -> None:
    """Write one frame of 100 megapixels, a few kilobytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as file:
        stream = file.add_stream("png", rate=12)
        stream.width, stream.height, stream.pix_fmt = 10_000, 10_000, "monob"
        frame = av.VideoFrame(10_000, 10_000, "monob")
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        file.mux(stream.encode(frame))
        file.mux(stream.encode())


def elongated_folder(path: Path) -> None:
    path.mkdir(parents=True)
    Image.new("1", (40_000, 8)).save(path / "1.png")


def playlist(path: Path) -> None:
    encode(path.with_name("secret.mp4"))
    path.write_text("ffconcat version 1.0\nfile secret.mp4\n")


@pytest.mark.parametrize(
    ("name", "write", "reason"),
    [
        ("huge", huge_folder, "10000 x 10000"),
        ("huge.mov", huge_video, "10000 x 10000"),
        ("long", elongated_folder, "40000 x 8"),
        ("list.mp4", playlist, "playlist"),
    ],
)
def test_frames_too_large_and_playlists_are_listed_as_failed(tmp_path, monkeypatch, recwarn, name, write, reason):
    monkeypatch.chdir(tmp_path)
    make_tiny("folder", tmp_path / "data")
    write(tmp_path / "videos" / name)
    dataset = read("folder", Path("data"))
    dataset.manifest.loc[0, "video"] = f"../videos/{name}"
    params = small_params({"compute.jobs": 1, "extract.max_failed_share": 0.5, "extract.short_side": 64}).extract
    extraction = extract(dataset, params, Path("frames"))
    (failed,) = pd.read_csv(FAILED_VIDEOS).itertuples()
    assert failed.video.endswith(name)
    assert reason in failed.reason
    assert len(extraction.stored) == len(dataset.manifest) - 1
    assert not [warning for warning in recwarn if "bomb" in str(warning.message)]


def test_frames_at_the_limit_are_read(tmp_path):
    Image.new("1", (8000, MAX_PIXELS // 8000)).save(tmp_path / "1.png")
    _, images = decode(tmp_path, sampling(), finish=lambda image: image.size)
    assert set(images) == {(8000, MAX_PIXELS // 8000)}


def test_a_frame_larger_than_the_file_announces_is_refused():
    with pytest.raises(FrameSizeError, match="10000 x 10000"):
        upright(av.VideoFrame(10_000, 10_000, "gray"))


def test_watching_refuses_huge_frames_and_playlists(tmp_path):
    huge_video(tmp_path / "huge.mov")
    playlist(tmp_path / "list.mp4")
    for name, reason in (("huge.mov", "10000 x 10000"), ("list.mp4", "playlist")):
        with pytest.raises(CaptureError, match=reason):
            open_capture(str(tmp_path / name), timeout=1.0)
    assert len(seen([frame.to_image() for _, frame in open_capture(str(tmp_path / "secret.mp4"), 1.0).frames])) == 24
