"captioner: whatever is a picture goes in, the same words come out alone and in a batch, and what is saved reads back."
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from expblip.captioner import Captioner, CaptionerError, single
from expblip.drawing import draw
from expblip.faces import Face

FACES = [draw(Face(aus=aus)) for aus in ({6: (.9, .9), 12: (.9, .9), 25: (.8, .8)}, {4: (.9, .9), 15: (.9, .9)}, {}, {1: (.9, .9), 2: (.9, .9)})]


@pytest.fixture(scope="module")
def captioner():
    return Captioner.from_pretrained("drawn", device="cpu")


def test_import_is_light():
    code = "import sys; from expblip.captioner import Captioner; print(*{'torch', 'transformers', 'pandas', 'cv2'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


@pytest.mark.parametrize("decode", ["greedy", "beam"])
def test_a_batch_is_its_singles(captioner, decode):
    alone = [captioner.caption(face, decode=decode) for face in FACES]
    for batch in (3, 16):
        together = captioner.caption(FACES, decode=decode, batch=batch)
        assert [c.text for c in together] == [c.text for c in alone]
        for a, b in zip(together, alone, strict=True):
            assert a.scores == pytest.approx(b.scores, abs=1e-4) and np.allclose(a.attention, b.attention, atol=1e-5)


def test_every_kind_of_picture(captioner, tmp_path):
    for k, face in enumerate(FACES): Image.fromarray(face).save(tmp_path / f"{k}.png")
    want = [c.text for c in captioner.caption(FACES)]
    for images in (tmp_path, sorted(tmp_path.iterdir()), np.stack(FACES), [Image.fromarray(face) for face in FACES]):
        assert [c.text for c in captioner.caption(images)] == want
    assert single(FACES[0]) and single("a.png") and not single(tmp_path) and not single(np.stack(FACES))


def test_faults(captioner, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(CaptionerError, match="bad.jpg: cannot be read"): captioner.caption([FACES[0], tmp_path / "bad.jpg"])
    kept = captioner.caption([tmp_path / "bad.jpg", FACES[0]], faults="keep")
    assert kept[0].fault and not kept[0].text and kept[1].text


def test_saved_reads_back(captioner, tmp_path):
    again = Captioner.from_pretrained(captioner.save_pretrained(tmp_path / "mine", name="mine"), device="cpu")
    assert [c.text for c in again.caption(FACES)] == [c.text for c in captioner.caption(FACES)]
    card = (tmp_path / "mine" / "README.md").read_text()
    for words in ("license: apache-2.0", "must not be used for", "People it may fail", "drawn-bp4d"): assert words in card
    (tmp_path / "mine" / "lm" / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match="model.safetensors"): Captioner.from_pretrained(tmp_path / "mine")


def test_there_and_back_through_a_hub(captioner, tmp_path, monkeypatch):
    "The two calls that meet the network are replaced; what is uploaded is what is fetched."
    import shutil
    from types import SimpleNamespace

    import huggingface_hub

    asked = []

    class Hub:
        def __init__(self, token=None): pass
        def create_repo(self, repo, private, exist_ok): asked.append((repo, private))
        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / repo_id)
            return SimpleNamespace(commit_url="address of the commit")

    def fetch(repo, revision=None, allow_patterns=None):
        if not (tmp_path / repo).is_dir(): raise OSError("404: no such repository")
        return str(tmp_path / repo)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert captioner.push_to_hub("me/faces") == "address of the commit" and asked == [("me/faces", True)]
    assert Captioner.from_pretrained("me/faces", device="cpu").caption(FACES[0]).text == captioner.caption(FACES[0]).text
    with pytest.raises(CaptionerError, match="404"): Captioner.from_pretrained("me/other")


@pytest.mark.parametrize("option", [dict(max_new=0), dict(beams=0), dict(workers=0), dict(batch=0), dict(top_p=0.), dict(top_p=2.)], ids=str)
def test_options_out_of_range_are_named(captioner, option):
    (name, value), = option.items()
    with pytest.raises(CaptionerError, match=f"^{name} {value}: give a"): captioner.caption(np.zeros((96, 96, 3), np.uint8), **option)


def test_a_tensor_is_refused_with_what_to_give(captioner):
    import torch
    with pytest.raises(CaptionerError, match="picture is a Tensor; give a path"): captioner.caption(torch.zeros(96, 96, 3, dtype=torch.uint8))
