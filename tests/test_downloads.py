"downloads: what a file is by its bytes, what a folder lacks, and names as people write them."
import json
import subprocess
import sys

import pytest
import torch

from expblip import downloads
from expblip.downloads import ENCODER_NAMES, file_fault, folder_faults, kind_of, names_of, on_hub, place_of, start_faults
from expblip.io import project_root, save_tensors

DRAWN = "data/drawn-blip2"


def test_encoders_known_by_name_are_those_of_models():
    from expblip.models import ENCODERS
    assert set(ENCODER_NAMES) == {name for name in ENCODERS if name != "tiny"}


def test_it_needs_no_torch():
    code = f"import sys; from expblip.downloads import start_faults; assert not start_faults('eva_vit_g', '{DRAWN}/lm', '{DRAWN}/lm', '{DRAWN}')\n"
    got = subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"],
                         capture_output=True, text=True, cwd=project_root())
    assert got.returncode == 0, got.stderr


@pytest.mark.parametrize("ending", (".pth", ".safetensors", ""))
def test_every_cut_of_a_whole_file_is_seen(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    if ending == ".safetensors": save_tensors(path, {"a": torch.zeros(50), "b": torch.ones(3, 3)})
    else: torch.save({"a": torch.zeros(50)}, path)
    whole = path.read_bytes()
    assert file_fault(path) == ""
    for length in (0, 1, 4, 9, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert file_fault(path), length


def test_a_header_that_lies(tmp_path):
    path = tmp_path / "a.safetensors"
    for said in (b"{}x", b'{"a": 3}', b'{"a": {"data_offsets": [0]}}', b'{"a": {"data_offsets": 7}}'):
        path.write_bytes(len(said).to_bytes(8, "little") + said)
        assert "fetch it again" in file_fault(path), said
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    assert kind_of(path) == "safetensors" and file_fault(path) == ""


def test_a_folder_by_what_it_must_hold(tmp_path):
    assert "no config.json" in folder_faults(tmp_path)[0] and "no tokenizer" in folder_faults(tmp_path, weights=False, tokenizer=True)[0]
    (tmp_path / "config.json").write_text("[1]")
    (tmp_path / "tokenizer.json").write_text('{"broken')
    faults = folder_faults(tmp_path, tokenizer=True)
    assert [any(word in fault for fault in faults) for word in ("config.json holds no entries", "neither model.safetensors", "tokenizer.json is not")
            ] == [True] * 3
    (tmp_path / "vocab.txt").write_text("a")
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "config.json").write_text('{"a": 1}')
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert folder_faults(tmp_path, tokenizer=True) == []


def test_an_index_names_every_piece_that_is_gone(tmp_path):
    (tmp_path / "config.json").write_text('{"a": 1}')
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(dict(weight_map=dict(a="x-1.bin", b="x-2.bin", c="x-3.bin"))))
    torch.save({"a": torch.zeros(1)}, tmp_path / "x-2.bin")
    assert [fault.split(" is missing")[0].split("/")[-1] for fault in folder_faults(tmp_path)] == ["x-1.bin", "x-3.bin"]


def test_names_as_people_write_them(tmp_path, monkeypatch):
    assert names_of(" a.pth , b/c ,,") == ["a.pth", "b/c"] and names_of("") == names_of(None) == []
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.pth").touch()
    assert place_of("~/w.pth") == tmp_path / "w.pth" and place_of(DRAWN) == project_root() / DRAWN
    assert place_of("a/b/c") is None and place_of("some/name") is None


def test_the_hub_is_asked_only_where_it_can_be_reached(monkeypatch):
    from huggingface_hub import HfApi, constants
    asked = []
    monkeypatch.setattr(HfApi, "file_exists", lambda self, repo, name: asked.append(repo) or True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not on_hub("owner/name") and not asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(downloads, "getproxies", lambda: {})
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert not on_hub("owner/name") and not asked
    monkeypatch.setattr(downloads, "getproxies", lambda: {"https": "a proxy"})
    assert on_hub("owner/name") and asked == ["owner/name"] and not on_hub("blip2_pretrained.pth")
    assert start_faults("eva_vit_g", "owner/opt", "bert-base-uncased", "owner/blip2") == []


def test_a_file_where_a_folder_is_wanted(tmp_path):
    (tmp_path / "x").touch()
    faults = start_faults(str(tmp_path / "x"), str(tmp_path / "x"), f"{DRAWN}/lm", DRAWN)
    assert len(faults) == 2 and faults[0].endswith("is a file: name a folder with its config.json in start.encoder")
