"The numbers on the benchmarks page are those of the committed results."
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "benchmarks"
PAGE = (ROOT / "README.md").read_text()


def result(name): return json.loads((ROOT / "results" / name).read_text())


def test_training_beside_lavis():
    found = result("cpu_lavis.json")
    for name in ("step1", "step2", "sum"):
        row = found[name]
        assert f"| {row['lavis']} | {row['ours']} | {row['wall']} | {row['cpu']} |" in PAGE
    apart = {k: v for k, v in found.items() if " without: " in k}
    assert len(apart) == 9 and all(f"| {k.split(': ')[1]} | {v['wall']} | {v['cpu']} |" in PAGE for k, v in apart.items())
    for step in (1, 2): assert abs(found[f"step{step} first loss"][0] - found[f"step{step} first loss"][1]) < 1e-4  # the same model on both sides


def test_generation_beside_hugging_face():
    found = result("cpu_generation.json")
    for name, (middle, low, high) in found["ratios"].items(): assert low <= middle <= high and f"{middle:.2f} ({low:.2f} to {high:.2f})" in PAGE, name
    assert f"captions of {found['tokens'][0]} to {found['tokens'][-1]} tokens" in PAGE


def test_maps_of_words_point_as_the_page_says():
    found = result("pointing.json")
    shares = found["figures"]
    assert found["faces"] == 120 and all(low <= share <= high for share, low, high in shares.values())
    notebook = json.loads((ROOT.parent / "nbs/api/words.ipynb").read_text())
    shown = "".join("".join(out.get("data", {}).get("text/plain", [])) for cell in notebook["cells"] for out in cell.get("outputs", ()))
    assert all(f"{share:.2f}  {low:.2f}  {high:.2f}" in shown for share, low, high in shares.values())


def test_features_kept_in_memory_save_fifty_times_at_equal_f1():
    found = result("probes.json")
    again, once, fit = found["cpu_seconds"].values()
    assert (found["faces"], found["epochs"]) == (240, 100) and again / once >= 50
    assert found["f1"]["encoded again every epoch"] == found["f1"]["encoded once"]
    assert f"| {again} | {once} | {fit} | {found['times_as_fast']['encoded once']} |" in PAGE
