"""Checksums of JSON, of lines, and of record batches."""

import json

import pyarrow as pa
import pytest
import torch
from support.refusals import one_line

from tlee.checksums import crc32, crc32_of_file, load_sealed, save_sealed, sealed, sealed_lines, unsealed_lines
from tlee.edge import runner
from tlee.sealed_batches import read_sealed_batch, save_sealed_batch
from tlee.weights import read_weights

CONTENT = {"name": "é", "values": [0.1, 1e-09, 3], "nested": {"b": None, "a": True}}


def test_the_runner_has_the_same_checksum():
    assert runner.sealed(CONTENT) == sealed(CONTENT) == sealed(sealed(CONTENT))
    assert runner.unsealed(json.dumps(sealed(CONTENT))) == CONTENT


@pytest.mark.parametrize("content", ["[]", "1", "null", "{}", '{"a": 1}', '{"crc32": 1}', "[" * 100_000, "{"])
def test_json_without_its_checksum_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    one_line(lambda: load_sealed(tmp_path / "a.json", "a remedy"), tmp_path / "a.json", "damaged: a remedy")
    with pytest.raises(ValueError):
        runner.unsealed(content)


def test_a_changed_number_is_detected(tmp_path):
    path = save_sealed(tmp_path / "a.json", CONTENT)
    assert load_sealed(path, "a remedy") == CONTENT
    path.write_text(path.read_text().replace("0.1", "0.2"))
    one_line(lambda: load_sealed(path, "a remedy"), path)


def test_the_checksum_of_a_file_is_that_of_its_bytes(tmp_path):
    content = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(content)
    assert crc32_of_file(tmp_path / "a") == crc32(content)


def test_each_line_has_a_checksum():
    text = "a,b\n1,x\u2028y\n2,\n"
    lines = sealed_lines(text)
    assert lines.startswith("a,b,crc32\n1,x")
    assert unsealed_lines(lines) == text
    for damaged in (lines.replace("2", "3"), lines.replace("crc32", "crc33"), text, ""):
        with pytest.raises(ValueError):
            unsealed_lines(damaged)


def test_a_sealed_batch_is_read_as_it_was_written(tmp_path):
    path, batch = tmp_path / "a", pa.RecordBatch.from_pydict({"n": [1, 2], "t": ["x", "é"]}, metadata={"k": "v"})
    save_sealed_batch(path, batch)
    read = read_sealed_batch(path)
    assert read.equals(batch, check_metadata=True)
    assert pa.ipc.open_stream(path.read_bytes()).read_all().to_batches() == [batch]  # others can read it
    content = path.read_bytes()
    for damaged in (b"", content[:3], content[:-1], content[:-5] + content[-4:], content[:99] + b"?" + content[100:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            read_sealed_batch(path)
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_changed_tensor_in_a_pth_file_is_detected(tmp_path):
    """PyTorch does not compare the checksums in the file."""
    path = tmp_path / "a.pth"
    torch.save({"a": torch.full((100,), 3.0)}, path)
    path.write_bytes(path.read_bytes().replace(torch.full((50,), 3.0).numpy().tobytes(), bytes(200), 1))
    assert torch.load(path)["a"].sum() != 300
    one_line(lambda: read_weights(path, "a remedy"), path, "damaged", "a remedy")
