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


def test_the_card_that_ships_says_all_that_a_card_must(captioner):
    "Data and licences, the language model's licence, intended use, what it must not be used for, whom it may fail, that it saw drawn faces only."
    from expblip.captioner import find_model
    card = (find_model() / "README.md").read_text()
    for words in ("## Data", "## Language model", "## Training", "## Measured", "## What it is for", "## What it must not be used for",
                  "## People it may fail", "age, gender, skin colour, culture and disability were not measured", "drawn faces only",
                  "a face is no window to the mind",
                  "emotion recognition at work and in education is prohibited"): assert words in card, words
    for name in captioner.about["data"]: assert f"| {name} | Apache-2.0" in card
    assert "`drawn-blip2/lm`: Apache-2.0" in card


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


# ---------------------------------------------------------------- what a newcomer gets wrong: one clear error each

@pytest.mark.parametrize(("how", "words"), [
    (dict(precision="fp16"), "precision 'fp16': choose one of auto, fp32, bf16"),
    (dict(device="gpu"), "device 'gpu': choose one of auto, cuda, mps, cpu")])
def test_a_choice_that_is_none_names_the_option_and_the_choices(how, words):
    with pytest.raises(CaptionerError, match=words): Captioner.from_pretrained("drawn", **{"device": "cpu"} | how)


@pytest.mark.parametrize(("how", "words"), [
    (dict(crops="face"), "unknown option 'crops': did you mean 'crop'"),
    (dict(colour=3), "unknown option 'colour': known are detector"),
    (dict(many="all"), "many 'all': choose one of fault, largest"),
    (dict(none=None), "none None: choose one of fault, whole"),
    (dict(min_side="9"), "min_side '9': give a number"),
    (dict(attention="word"), "attention 'word': give a function, or choose one of True, False, words"),
    (dict(decode="best"), "decode 'best': choose one of greedy, beam, sample"), (dict(detector=3), "detector 3: give a function"),
    (dict(attention="words", aspect="au"), "attention 'words' with aspect 'au'")], ids=str)
def test_options_are_checked_also_for_a_small_picture(captioner, how, words):
    with pytest.raises(CaptionerError, match=words): captioner.caption(FACES[0], **how)


@pytest.mark.parametrize("config", ["[]", "{}", "3", '{"qformer": {}}', '{"qformer": {}, "encoder": {}, "start": []}'])
def test_a_config_that_describes_nothing(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(ValueError, match=r"config.json: '\w+' is (missing|a list), a dict is needed"):
        Captioner.from_pretrained(tmp_path, device="cpu")


def test_a_file_stands_where_a_model_shall_be_saved(captioner, tmp_path):
    (tmp_path / "model").write_text("mine")
    for place in (tmp_path / "model", tmp_path / "model" / "inside"):
        with pytest.raises(CaptionerError, match="a file is there .*; name a folder"): captioner.save_pretrained(place)
    assert (tmp_path / "model").read_text() == "mine"


def test_an_empty_path_is_not_this_folder(captioner, tmp_path, monkeypatch):
    Image.fromarray(FACES[0]).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for images in ("", [FACES[0], ""]):
        with pytest.raises(CaptionerError, match="is an empty path; give a picture file, or a folder"): captioner.caption(images)
    assert len(captioner.caption(".")) == 1


@pytest.mark.parametrize("largest", [255, 1023, 4095])
def test_twelve_bits_in_sixteen_are_not_captioned_as_night(captioner, tmp_path, largest):
    grey = FACES[0].mean(-1)
    Image.fromarray((grey / grey.max() * largest).astype(np.uint16)).save(tmp_path / "lab.png")
    for image in (tmp_path / "lab.png", Image.open(tmp_path / "lab.png")):
        with pytest.raises(CaptionerError, match=f"its 16-bit numbers end at {largest}: 12 bits or fewer"): captioner.caption(image)
    Image.fromarray((grey * 257).astype(np.uint16)).save(tmp_path / "whole.png")
    assert captioner.caption(tmp_path / "whole.png").text


def test_an_empty_folder_costs_nothing_that_was_done(captioner, tmp_path, monkeypatch):
    "Folders and paths are looked at before the model works; with faults kept, a folder has its own."
    (tmp_path / "empty").mkdir()
    Image.fromarray(FACES[0]).save(tmp_path / "a.png")
    worked = []
    whole = captioner.net.generate
    monkeypatch.setattr(captioner.net, "generate", lambda *a, **k: worked.append(1) or whole(*a, **k))
    for late in (tmp_path / "empty", tmp_path / "no.png"):
        with pytest.raises(CaptionerError, match="no picture in this folder|no such file"): captioner.caption([tmp_path / "a.png", late], batch=1)
    assert worked == []
    kept = captioner.caption([tmp_path / "a.png", tmp_path / "empty", FACES[1]], batch=1, faults="keep")
    assert [bool(one.text) for one in kept] == [True, False, True]
    assert kept[1].image == str(tmp_path / "empty") and kept[1].fault.startswith("no picture in this folder")


def test_what_was_done_before_a_fault_is_handed_over(captioner, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(CaptionerError, match="bad.jpg") as told: captioner.caption([FACES[0], FACES[1], tmp_path / "bad.jpg"], batch=1)
    assert [one.text for one in told.value.done] == [captioner.caption(face).text for face in FACES[:2]]


def test_a_stream_without_end_is_not_run_ahead_of(captioner):
    def camera():
        while True: yield FACES[0]
    first = next(captioner.stream(camera(), batch=1))
    assert first.text == captioner.caption(FACES[0]).text


# ---------------------------------------------------------------- words

def test_every_word_has_a_map_and_no_word_changes(captioner):
    for face, plain in zip(FACES[:2], captioner.caption(FACES[:2]), strict=True):
        said = captioner.caption(face, attention="words")
        assert said.text == plain.text and np.allclose(said.attention, plain.attention, atol=1e-5) and not plain.words
        assert [said.text[w.start:w.end] for w in said.words] == [word.strip(".,") for word in said.text.split()]
        assert {w.about for w in said.words} - {None} == {*said.aus, *said.emotions}
        assert all(w.heat.shape == said.attention.shape and w.heat.min() >= 0 and abs(w.heat.sum() - 1) < 1e-4 for w in said.words)
        assert said._repr_html_().count("<img") == 2 + len(said.words)
    assert all(p.grad is None for p in captioner.net.parameters())


def test_maps_in_a_batch_are_those_of_singles(captioner):
    for one, alone in zip(captioner.caption(FACES[:2], attention="words"), (captioner.caption(f, attention="words") for f in FACES[:2]), strict=True):
        for a, b in zip(one.words, alone.words, strict=True): assert np.allclose(a.heat, b.heat, atol=1e-4)


def test_words_point_to_their_action_more_than_chance_and_shuffled_weights(captioner):
    "The pointing game on drawn faces nobody trained on."
    from expblip.words import word_game
    from expblip.world import draw_world
    game, _ = word_game(captioner.net, draw_world(dict(rafau=32, val=0, test=1.), 779_000).faces[:8])
    assert len(game) >= 20 and game.hit.mean() > 2.5 * game.chance.mean() and game.hit.mean() > game.shuffled.mean() + .15


def test_a_captioner_of_an_absent_stage_says_why_there_is_none(tmp_path):
    from expblip.checkpoints import CheckpointError
    from expblip.io import write_json

    write_json(tmp_path / "step2-exp/absent.json", {"reason": "no training image carries emotions"})
    with pytest.raises(CheckpointError, match="this stage trained nothing: no training image carries emotions; name another folder"):
        Captioner.from_pretrained(tmp_path / "step2-exp")
