"io: whole or absent files, strict JSON, one clear error for damaged tensors."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from expblip import io


def test_project_root_walks_up_and_falls_back(tmp_path):
    (tmp_path / "settings.ini").write_text("[DEFAULT]\n")
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert io.project_root(deep) == tmp_path.resolve()
    (tmp_path / "settings.ini").unlink()
    assert io.project_root(deep) == deep.resolve()


def test_hashes_agree(tmp_path):
    (tmp_path / "x").write_text("née", encoding="utf-8")
    assert io.sha256_file(tmp_path / "x") == io.sha256_text("née")


def test_failed_write_leaves_the_old_file_and_no_debris(tmp_path):
    io.atomic_write(tmp_path / "x.txt", "old")
    with pytest.raises(RuntimeError), io.atomic_path(tmp_path / "x.txt") as half:
        half.write_text("half")
        raise RuntimeError
    assert (tmp_path / "x.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]


def test_kill_never_leaves_half_a_file(tmp_path):
    target = tmp_path / "x.json"
    io.write_json(target, [0] * 1000)
    code = f"from expblip.io import write_json\nwhile True:\n    for i in range(9): write_json({str(target)!r}, [i] * 100000)"
    for wait in (0.25, 0.33, 0.41):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert len(set(json.loads(target.read_text()))) == 1


def test_json_is_strict_and_plain(tmp_path):
    value = {"a": np.float32(0.5), "b": float("nan"), "c": (1, 2), "d": {3, 1}, "e": Path("x/y"), "f": np.arange(2), "g": [float("inf")], "h": True}
    assert io.read_json(io.write_json(tmp_path / "x.json", value)) == {
        "a": 0.5, "b": None, "c": [1, 2], "d": [1, 3], "e": "x/y", "f": [0, 1], "g": [None], "h": True}


def test_damaged_json_names_the_file(tmp_path):
    (tmp_path / "manifest.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"manifest\.json.*rerun"):
        io.read_json(tmp_path / "manifest.json")


def test_tensors_round_trip_with_ties_and_metadata(tmp_path):
    w = torch.randn(3, 4)
    path = io.save_tensors(tmp_path / "m.safetensors", {"a": w, "tied": w, "view": w.t(), "half": w.bfloat16()}, {"name": "x", "seeds": [1, 2]})
    back = io.load_tensors(path)
    assert torch.equal(back["tied"], w) and torch.equal(back["view"], w.t()) and back["half"].dtype == torch.bfloat16
    assert io.tensor_metadata(path) == {"name": "x", "seeds": "[1, 2]"}
    assert list(io.load_tensors(path, keys=["a"])) == ["a"]


@pytest.mark.parametrize("size", [0, 4, 40, -1])
def test_truncated_tensors_are_one_clear_error(tmp_path, size):
    path = io.save_tensors(tmp_path / "m.safetensors", {"a": torch.zeros(64)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(io.TensorFileError, match=r"m\.safetensors.*rerun"):
        io.load_tensors(path)
    with pytest.raises(io.TensorFileError, match="rerun"):
        io.tensor_metadata(path)


def test_a_pickle_is_refused(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "m.safetensors")
    with pytest.raises(io.TensorFileError, match="not a whole safetensors"):
        io.load_tensors(tmp_path / "m.safetensors")


def test_missing_name_missing_file_and_wrong_hash(tmp_path):
    path = io.save_tensors(tmp_path / "m.safetensors", {"a": torch.zeros(2)})
    with pytest.raises(io.TensorFileError, match="lacks b"):
        io.load_tensors(path, keys=["a", "b"])
    with pytest.raises(io.TensorFileError, match="no such file"):
        io.load_tensors(tmp_path / "other.safetensors")
    with pytest.raises(io.TensorFileError, match="sha256"):
        io.load_tensors(path, sha256="0" * 64)
