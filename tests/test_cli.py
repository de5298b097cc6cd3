"cli: captions from the shell, exit statuses, and a start that waits for nothing."
import json
import subprocess
import sys
import time

import pytest
from PIL import Image

from expblip.cli import main
from expblip.drawing import draw
from expblip.faces import Face


@pytest.fixture(scope="module")
def smile(tmp_path_factory):
    path = tmp_path_factory.mktemp("faces") / "smile.png"
    Image.fromarray(draw(Face(aus={6: (.9, .9), 12: (.9, .9)}))).save(path)
    return path


def test_help_is_quick():
    code = "import sys; from expblip.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    best = 9.
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        best = min(best, time.perf_counter() - start)
    assert best < .3


def test_captions(smile, tmp_path, capsys):
    assert main(["caption", str(smile), "--device", "cpu", "--format", "json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert 12 in row["aus"] and row["image"] == str(smile)
    assert main(["caption", str(smile.parent), "--device", "cpu", "-o", str(tmp_path / "a.csv")]) == 0
    assert (tmp_path / "a.csv").read_text().count("smile.png") == 1


def test_exit_statuses(smile, capsys):
    assert main(["caption", str(smile), "no.jpg", "--device", "cpu"]) == 1
    told = capsys.readouterr()
    assert "smile.png: " in told.out and "no.jpg: no such file" in told.err
    assert main(["caption", str(smile), "--model", "./nowhere"]) == 2
    with pytest.raises(SystemExit) as ended: main(["captoin"])
    assert ended.value.code == 2


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["torch"]["good"] and rows["weights 'drawn'"]["found"] == "there"
