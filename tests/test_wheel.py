"The wheel carries the drawn Exp-BLIP: installed into an empty folder, away from the checkout, it captions a face."
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CODE = """
import expblip
from expblip.captioner import Captioner
from expblip.drawing import draw
from expblip.faces import Face
print(expblip.__file__)
print(Captioner.from_pretrained("drawn", device="cpu").caption(draw(Face(aus={6: (.9, .9), 12: (.9, .9)}))).text)
"""


def test_the_wheel_captions_a_face(tmp_path):
    "Only expblip itself is installed anew (no dependencies: those of this environment are used)."
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"): (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["cp", "-r", str(ROOT / "expblip"), str(source / "expblip")], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)], check=True)
    wheel, = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(tmp_path / "empty"), str(wheel)], check=True)
    got = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": str(tmp_path / "empty"), "HF_HUB_OFFLINE": "1"})
    assert got.returncode == 0, got.stderr
    where, text = got.stdout.splitlines()
    assert where.startswith(str(tmp_path / "empty")) and "happiness" in text
