"""Checksums of JSON, of lines, and of records that are read again."""

import json

import pytest
import torch
from support.refusals import one_line

from tlee.checksums import crc32, crc32_of_file, load_sealed, save_sealed, sealed, sealed_lines, unsealed_lines
from tlee.edge import runner
from tlee.extraction.journal import Journal, Record
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


def test_only_the_damaged_record_of_a_journal_is_skipped(tmp_path, capsys):
    path = tmp_path / "journal"
    with Journal(path) as journal:
        for row in range(3):
            journal.append(Record(row, f"{row}.mp4", "", [0], [b"jpeg %d" % row]))
        content = path.read_bytes()
        path.write_bytes(content.replace(b"jpeg 1", b"jpeg 7"))
        one_line(lambda: journal.read(1), path, "`dvc repro extract`")
    with Journal(path) as journal:
        assert sorted(journal.sources) == [0, 2]
        assert journal.read(2).frames == [b"jpeg 2"]
        journal.append(Record(1, "1.mp4", "", [0], [b"again"]))
    assert f"{path} has 1 damaged record" in capsys.readouterr().out
    with Journal(path) as journal:
        assert journal.read(1).frames == [b"again"]


def test_a_changed_tensor_in_a_pth_file_is_detected(tmp_path):
    """PyTorch does not compare the checksums in the file."""
    path = tmp_path / "a.pth"
    torch.save({"a": torch.full((100,), 3.0)}, path)
    path.write_bytes(path.read_bytes().replace(torch.full((50,), 3.0).numpy().tobytes(), bytes(200), 1))
    assert torch.load(path)["a"].sum() != 300
    one_line(lambda: read_weights(path, "a remedy"), path, "damaged", "a remedy")
