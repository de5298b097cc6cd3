"""The report: figures collected, tables beside the paper's, verdicts computed, a page that stands alone."""

import json
import subprocess
import sys
from functools import cache

import numpy as np
import pandas as pd
import pytest

from expblip.findings import FAILS, HOLDS, MISSED, OPEN, REACHED, TARGETS, UNKNOWN
from expblip.findings import all_findings, judge_findings, judge_targets, paper_table, together, verdict
from expblip.io import write_json
from expblip.kinds import CAUTION, FIXTURES, PAPER_SETS, UNVERIFIED, kind_of
from expblip.page import Page, examples, examples_html, pictures
from expblip.records import write_captions, write_records, write_truth
from expblip.report import ABSENT, NO_F1, NOT_YET, ReportError, annotated, board, collect, cost_summary, costs, logs, probe_table, run_kind
from expblip.report import run_start, table1, table2, table5, uneven

NAMES = sorted({side.ours for finding in all_findings() for pair in finding.pairs for side in pair} - {""})


def stage(run, place, name, **figures):
    flat = [{"name": key, "value": value, "meaning": "m"} for key, value in figures.items()]
    write_json(run / place / name / "results.json", flat)


@cache
def papers():
    "The paper's own numbers under our names."
    return {side.ours: side.paper for finding in all_findings() for pair in finding.pairs for side in pair if side.ours}


def paper_like(seed):
    "The paper's own numbers as if measured, with a little noise."
    rng = np.random.default_rng(seed)
    return {name: value + rng.normal(0, 1e-4) for name, value in papers().items()}


@pytest.fixture
def run(tmp_path):
    for seed in range(3):
        stage(tmp_path, f"seed{seed}", "metrics", **paper_like(seed))
    counts = {"images": 40, "subjects": 0, "sampled": 0}
    stage(tmp_path, "shared", "data", **{f"table1/drawn-rafau/train/{name}": value for name, value in counts.items()})
    stage(tmp_path, "shared", "report", **{"finding/x": 1})
    return tmp_path


def test_a_leftover_stage_does_not_speak_for_another(run):
    stage(run, "seed1", "probe", **{"table3/au/qformer/pooled/avg": 0.9})
    stage(run, "seed1", "probe-au", **{"table3/au/qformer/pooled/avg": 0.5})
    with pytest.raises(ReportError, match="'table3/au/qformer/pooled/avg' is told differently by .*probe.* delete its folder"):
        collect(run)


def test_collect_adds_seed_and_stage_and_skips_the_report_itself(run):
    results = collect(run)
    assert set(results["stage"]) == {"metrics", "data"} and results.loc[results["stage"] == "data", "seed"].isna().all()
    assert list(board(results).columns) == [0, 1, 2] and set(board(results).index) == set(NAMES)


@pytest.mark.parametrize("content", ['{"a": 1}', '[{"name": "x"}]', '[{"name": "x", "value": "high", "meaning": "m"}]', "[{"])
def test_a_damaged_results_file_is_one_error_naming_it(run, content):
    path = run / "seed1" / "probe-au" / "results.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ValueError, match="seed1.probe-au.results.json.*rerun"):
        collect(run)
    assert issubclass(ReportError, ValueError)


def test_an_empty_run_gives_tables_that_say_so(tmp_path):
    results = collect(tmp_path)
    assert len(results) == 0 and set(judge_findings(board(results), all_findings())["verdict"]) == {OPEN}
    assert set(judge_targets(board(results))["result"]) == {UNKNOWN}
    assert NOT_YET in table2(results).values and len(table1(results)) == 15 and costs(tmp_path).empty and logs(tmp_path).empty
    assert examples(tmp_path) == ([], None)


def test_every_finding_is_true_of_the_papers_own_numbers():
    found = all_findings()
    assert len({finding.id for finding in found}) == len(found) >= 12
    assert all(first.paper > second.paper for finding in found for first, second in finding.pairs)


def test_the_three_words(run):
    judged = judge_findings(board(collect(run)), all_findings()).set_index("id")["verdict"]
    assert set(judged) == {HOLDS}
    results = collect(run)
    small = judge_findings(board(results[~results["name"].str.startswith("scaling/")]), all_findings()).set_index("id")["verdict"]
    assert sorted(small[small == OPEN].index) == ["larger-encoder", "larger-lm"]  # without `make scaling`
    two = judge_findings(board(collect(run))[[0, 1]], all_findings())
    assert set(two["verdict"]) == {OPEN}
    for seed in range(3):
        meteor = {"au": 0.1 + seed / 1e3, "blip2": 0.3}
        stage(run, f"seed{seed}", "metrics", **{f"table2/drawn-rafau/{model}/greedy/meteor": value for model, value in meteor.items()})
    again = judge_findings(board(collect(run)), all_findings()).set_index("id")["verdict"]
    assert again["au-beats-generic"] == FAILS and again["exp-most-complete"] == OPEN


def test_a_seed_that_only_some_stages_have_undoes_no_verdict(run):
    "Each claim is judged over the seeds that all its numbers share; fewer than three of these decide nothing."
    whole = board(collect(run))
    stage(run, "seed3", "scaling", **{name: 0.5 for name in NAMES if name.startswith("scaling/large/large")})
    judged = judge_findings(board(collect(run)), all_findings())
    assert list(board(collect(run)).columns) == [0, 1, 2, 3] and set(judged["verdict"]) == {HOLDS} and set(judged["seeds"]) == {3}
    whole.loc["table2/drawn-rafau/mix/greedy/meteor", 2] = np.nan
    some = judge_findings(whole, all_findings()).set_index("id")
    assert set(some["verdict"].drop(some.index[some["seeds"] == 2])) == {HOLDS} and set(some.loc[some["seeds"] == 2, "verdict"]) == {OPEN}
    assert {"fused-beat-generic", "au-best-at-actions", "cat-above-mix"} <= set(some.index[some["seeds"] == 2])


def test_where_no_truth_is_known_people_decide(run):
    claims = ["exp-most-complete", "mix-least-complete", "cat-least-correct"]
    true = board(collect(run))
    rated = pd.concat([true[~true.index.str.startswith("table5/")], true[true.index.str.startswith("table5/")].rename(
        lambda name: "rating/human/{2}/{4}".format(*name.split("/")))])
    judged = judge_findings(rated, all_findings())
    at = judged.set_index("id").loc[claims]
    assert set(at["verdict"]) == {HOLDS} and at["compared"].str.contains("rating/human/exp/").all()
    assert not at["compared"].str.contains("table5").any()
    figures = judged.attrs["figures"][judged.index[judged["id"] == claims[0]].item(), "ours"]
    assert figures[0] == ("rating/human/exp/most_complete", 1.0)
    both = judge_findings(pd.concat([true, -rated[rated.index.str.startswith("rating/")]]), all_findings()).set_index("id").loc[claims]
    assert set(both["verdict"]) == {HOLDS}, "the truth counts where it is known"
    sampled = judge_findings(rated, all_findings("sample")).set_index("id").loc[claims]
    assert set(sampled["verdict"]) == {OPEN}, "people rated greedy captions"


@pytest.mark.parametrize(("first", "second", "word"), [
    ([2, 2.1, 2.2], [1, 1, 1], HOLDS), ([1, 1, 1], [2, 2.1, 2.2], FAILS), ([1, 1, 1], [1, 1, 1], FAILS), ([2, 2, 0], [1, 1, 1], OPEN),
    ([9, 0.1, 0.1], [0, 0, 0], OPEN), ([2, 2], [1, 1], OPEN), ([2, 2, np.nan], [1, 1, 1], OPEN), ([], [], OPEN)])
def test_verdict(first, second, word):
    assert verdict(first, second) == word


def test_a_claim_of_several_pairs():
    assert together([HOLDS, HOLDS]) == HOLDS and together([HOLDS, OPEN]) == OPEN and together([OPEN, FAILS]) == FAILS and together([]) == OPEN


def test_targets():
    values = {target.name: 0.96 for target in TARGETS} | {"judge/drawn-rafau/blind/none/au_f1_full": 0.1}
    values |= {target.beside: 0.4 for target in TARGETS if target.factor == 2}
    good = judge_targets(pd.DataFrame({0: values}))
    assert set(good["result"]) == {REACHED, ""}
    f1 = {"au/greedy": 0.7, "exp/greedy": 0.61, "blind/none": 0.3}
    values |= {f"judge/drawn-rafau/{model}/au_f1_full": value for model, value in f1.items()}
    bad = judge_targets(pd.DataFrame({0: values}))
    assert bad["result"].tolist().count(MISSED) == 3


def test_ours_stand_below_the_papers(run):
    results = collect(run)
    au = table2(results).query("model == 'AU-BLIP' and llm == 'OPT-6.7B'")
    assert au["source"].tolist() == ["paper", "drawn faces"] and au["rafau_meteor"].tolist()[0] == "0.263"
    assert au["rafau_meteor"].tolist()[1].startswith("0.263 ±") and set(au["rafau_ada_sim"]) == {"90.55", NOT_YET}
    probes = probe_table(results, 3).query("model == 'QFormer(Emot)' and source == 'drawn faces'")
    assert probes["affectnet_accuracy"].item().startswith("5270.0")  # ours count from 0 to 1: here the paper's per cent, times 100
    assert len(probe_table(results, 4)) == len(paper_table(4)) + 13
    assert set(table5(results)["source"]) == {"paper, people", "drawn faces, exact truth", "drawn faces, people"}
    assert table1(results).query("source == 'this run'")[["dataset", "images"]].values.tolist() == [["drawn-rafau", "40"]]


def test_costs_and_logs(run):
    timing = {"train_seconds": 8, "train_cpu_seconds": 10}
    write_json(run / "seed0" / "step1-au" / "manifest.json", {"seconds": 9, "cpu_seconds": 12, "timing": timing})
    write_json(run / "shared" / "data" / "manifest.json", {"seconds": 3, "cpu_seconds": 3})
    (run / "seed0" / "step1-au" / "log.jsonl").write_text(json.dumps({"step": 1, "loss": 2.0, "itc": 1.0}) + "\n{")
    total = cost_summary(costs(run))
    assert total["cpu_seconds"] == 15 and total["rest_on_top"] == pytest.approx(0.5)
    assert logs(run)[["model", "loss", "value"]].values.tolist() == [["au", "loss", 2.0], ["au", "itc", 1.0]]


def test_examples_and_the_page(run):
    cells = [{"id": f"{dataset}/{k}", "image": f"images.npy:{k}", "dataset": dataset, "split": "test", "au_present": [12], "au_absent": []}
             for k, dataset in enumerate("aabb")]
    data, records = run / "shared" / "data", pd.DataFrame(cells)
    np.save(data / "images.npy", np.zeros((4, 16, 16, 3), np.uint8))
    write_records(records, data / "records.parquet")
    write_truth(pd.DataFrame({"id": records["id"], "aus": [[12]] * 4, "emotions": [["happiness"]] * 4}), data / "truth.parquet")
    for model in ("au", "exp"):
        cells = {"text": "<raises> lip corner", "aspect": "au", "writer": "model", "use": "predicted", "decode": "greedy"}
        rows = [{"id": f"{name}/{model}", "record": name} | cells for name in records["id"]]
        write_captions(pd.DataFrame(rows), run / "seed0" / f"caption-{model}" / "predictions.parquet")
    found, seed = examples(run, 3)
    assert seed == 0 and [one["dataset"] for one in found] == ["a", "b", "a"] and set(found[0]["captions"]) == {"au", "exp"}
    page = Page("A <run>", run / "report")
    page.html(examples_html(found))
    page.table(pd.DataFrame({"a": ["<b>"]}), "t", "line")
    text = page.write().read_text()
    assert "&lt;raises&gt;" in text and "&lt;b&gt;" in text and "<caption>line</caption>" in text and "A &lt;run&gt;" in text
    assert text.count("data:image/jpeg") == 3 and "<script" not in text and (run / "report" / "t.csv").exists()


# ---------------------------------------------------------------- the paper's own data sets

COUNTS = {"images": 40, "subjects": 2, "sampled": 1}


def delivered(tmp_path, *names, seeds=3, **more):
    "A run on delivered data sets that measured the paper's own numbers; what needs an absent set was not measured."
    for seed in range(seeds):
        figures = {name.replace("drawn-", ""): value for name, value in paper_like(seed).items() if not name.startswith("table5/")}
        figures |= {f"table2/gft/{model}/greedy/meteor": 0.2 for model in ("au", "exp")}
        figures |= {f"table3/au/qformer/pooled/AU{number}": 0.5 for number in (1, 24)}
        needed = {"table2/rafau": "rafau", "table2/gft": "gft", "table4": "rafau"}
        lost = [start for start, name in needed.items() if name not in names] + ["scaling/"]  # nobody ran `make scaling` on delivered sets
        lost += [] if "bp4d" in names else ["table3/"]
        stage(tmp_path, f"seed{seed}", "metrics", **{name: value for name, value in figures.items() if not name.startswith(tuple(lost))})
    flat = {f"table1/{name}/{split}/{what}": value for name in names for split in ("train", "val", "test") for what, value in COUNTS.items()}
    stage(tmp_path, "shared", "data", **flat, **more)
    return collect(tmp_path)


def ours(table, source="this run"):
    return table[table["source"] == source]


def test_delivered_data_sets_fill_the_papers_rows(tmp_path):
    results = delivered(tmp_path, *PAPER_SETS)
    kind = run_kind(results)
    assert kind.name == "licensed" and not kind.absent and "not comparable" not in kind.caution and kind.caution != CAUTION
    au = ours(table2(results)).query("model == 'AU-BLIP' and llm == 'LM of this run'")
    assert au["rafau_meteor"].item().startswith("0.263 ±") and au["gft_meteor"].item().startswith("0.200 ±") and set(au["rafau_ada_sim"]) == {NOT_YET}
    probes = ours(probe_table(results, 3)).query("model == 'QFormer(AU)'")
    assert probes["affectnet_accuracy"].item().startswith("5220.0") and probes["AU24"].item() == "50.0 ± 0.0"  # the paper's per cent, times 100
    assert ours(probe_table(results, 4)).query("model == 'QFormer(AU)'")["avg"].item().startswith("7220.0")
    judged = judge_findings(board(results), all_findings(wild=kind.sets["rafau"])).set_index("id")["verdict"]
    assert judged["au-beats-generic"] == judged["au-best-at-aus/pooled"] == HOLDS and judged["exp-most-complete"] == OPEN
    assert judge_findings(board(results), all_findings()).set_index("id")["verdict"]["au-beats-generic"] == OPEN


def test_table1_of_delivered_data_sets(tmp_path):
    table = table1(delivered(tmp_path, *PAPER_SETS))
    assert len(table) == 30 and table["source"].tolist() == ["paper", "this run"] * 15 and ABSENT not in table.values
    rafau = ours(table)[ours(table)["dataset"] == "rafau"]  # validation images count as training images
    assert rafau[["annotation", "split", "images", "subjects"]].values.tolist() == [["au", "train", "80", "4"], ["au", "test", "40", "2"]]
    assert set(ours(table)["dataset"]) == {f"{name}, unverified format" if name in UNVERIFIED else name for name in PAPER_SETS}


def test_an_absent_set_says_so_in_each_table(tmp_path):
    results = delivered(tmp_path, "affectnet", "gft")
    kind, one = run_kind(results), table1(results)
    assert kind.absent == ("bp4d", "disfa", "rafau", "emotionet", "rafdb", "faceme") and "Absent: bp4d, disfa, rafau" in kind.caution
    gone = ours(one)[ours(one)["images"] == ABSENT]
    assert sorted(set(gone["dataset"])) == sorted(PAPER_SETS[name] for name in kind.absent) and len(one) == 30
    two, three, four = ours(table2(results)), ours(probe_table(results, 3)), ours(probe_table(results, 4))
    assert set(two["rafau_meteor"]) == {ABSENT} and ABSENT not in set(two["gft_meteor"]) and NOT_YET in set(two["gft_meteor"])
    assert set(three["AU12"]) == set(three["avg"]) == {ABSENT} and ABSENT not in set(three["affectnet_accuracy"])
    assert set(four.drop(columns=["model", "source"]).values.ravel()) == {ABSENT}
    assert "Unverified format" in kind.caution and "gft." in kind.caution and "faceme" not in kind.caution.split("Unverified")[1]
    assert (kind.told("gft"), kind.told("rafau"), kind.told("affectnet")) == ("gft, unverified format", "rafau, absent", "affectnet")


def test_faces_without_truth_have_no_exact_row_in_table5(tmp_path):
    table = table5(delivered(tmp_path, *PAPER_SETS))
    assert set(table["source"]) == {"paper, people", "this run, people"} and set(ours(table, "this run, people")["correctness"]) == {NOT_YET}


def test_fixtures_are_never_taken_for_the_data_sets(tmp_path):
    results = delivered(tmp_path, *PAPER_SETS, **{FIXTURES: 1})
    kind, label = run_kind(results), "drawn fixtures in official formats"
    assert kind.name == "fixtures" and kind.caution.startswith("Drawn fixtures in the official formats of bp4d, disfa") and not kind.truth
    assert kind.marked("faceme") == "faceme, drawn fixture, unverified format" and kind.marked("other") == "other"
    for table in (table1(results), table2(results), probe_table(results, 3), probe_table(results, 4)):
        assert set(table["source"]) == {"paper", label}
    assert set(table5(results)["source"]) == {"paper, people", f"{label}, people"}
    assert all("drawn fixture" in name for name in ours(table1(results), label)["dataset"])


@pytest.mark.parametrize("more", [{}, {FIXTURES: 1}])
def test_rows_of_the_run_bear_the_names_of_its_own_model(tmp_path, more):
    "In the paper's largest size, which ours stands beside; the paper's rows and our sizes that were not measured keep their names."
    results = delivered(tmp_path, *PAPER_SETS, **more)
    write_json(tmp_path / "seed0" / "step2-au" / "config.json", {"step": 2, "start": {"name": "drawn-blip2", "sha256": "x"}})
    start, two = run_start(tmp_path), table2(results, start=run_start(tmp_path))
    mine = two[two["source"] != "paper"].iloc[:11]
    assert start == "drawn-blip2" and two[two["source"] == "paper"].reset_index(drop=True)["llm"].tolist() == paper_table(2)["llm"].tolist()
    assert mine.query("llm == 'LM of drawn-blip2'")["image_encoder"].unique().tolist() == ["encoder of drawn-blip2"]
    rest = mine.query("llm != 'LM of drawn-blip2'")
    assert set(rest["llm"]) == {"OPT-2.7B"} and not rest["image_encoder"].str.contains("drawn").any() and NOT_YET in set(rest["rafau_meteor"])
    for number in (3, 4):
        table = probe_table(results, number, start=start)
        assert "ViT-G(AU)" in set(table.query("source == 'paper'")["model"]) and len(table.query("source == 'paper'")) == len(paper_table(number))
        named = set(table[table["source"] != "paper"]["model"])
        assert {"encoder of drawn-blip2", "encoder of drawn-blip2(AU)", "QFormer(AU)"} <= named and not [name for name in named if "ViT-G" in name]


def test_the_name_of_the_start_without_a_trained_model(tmp_path):
    assert run_start(tmp_path) == ""
    write_json(tmp_path / "seed0" / "caption-blip2" / "manifest.json", {"all_params": {"init": "data/another-start"}})
    assert run_start(tmp_path) == "another-start"
    for model, name in (("au", "one"), ("exp", "two"), ("mix", "one")):
        write_json(tmp_path / "seed0" / f"step2-{model}" / "config.json", {"start": {"name": name}})
    assert run_start(tmp_path) == "one/two"


def test_drawn_rows_keep_their_names(run):
    assert table2(collect(run), start="drawn-blip2").equals(table2(collect(run)))
    assert probe_table(collect(run), 3, start="drawn-blip2").equals(probe_table(collect(run), 3))


def test_which_aus_an_average_leaves_out(tmp_path):
    probes = {"exp/qformer": {"AU1": 0.2, "AU2": 0.4, "avg": 0.3}, "au/qformer": {"AU1": 0.2, "avg": 0.2}}
    probes["blip2/image_encoder"] = {"AU1": 1, "avg": 1}
    rest = {f"AU{number}": 0.5 for number in (4, 6, 7, 10, 12, 14, 15, 17, 23)}
    for seed in range(2):
        figures = {f"table3/{place}/pooled/{name}": value for place, row in probes.items() for name, value in (row | rest).items()}
        figures |= {"table3/au/qformer/pooled/AU2": 0.1} if seed else {}
        stage(tmp_path, f"seed{seed}", "probe", **figures)
    stage(tmp_path, "shared", "data", **{f"table1/{name}/train/images": 1 for name in PAPER_SETS})
    results = collect(tmp_path)
    said = ["Without F1 in every row, and in no average: AU24.", "Rows average over different AUs; also left out:",
            "AU2 in encoder of this run; AU2 (seed 0) in QFormer(AU)."]
    assert uneven(results, 3) == " ".join(said)
    assert "AU2 in encoder of x;" in uneven(results, 3, start="x") and uneven(results, 3, "flattened") == uneven(results, 4) == ""
    table = ours(probe_table(results, 3)).set_index("model")
    assert table.loc["QFormer(AU)", ["AU2", "AU24", "avg"]].tolist() == ["10.0", NO_F1, "20.0 ± 0.0"]
    assert table.loc["QFormer(Emot)", "AU24"] == NOT_YET, "a model that was not probed is not measured"
    figures = {f"table3/exp/qformer/pooled/{name}": value for name, value in (probes["exp/qformer"] | rest).items()}
    stage(tmp_path / "one", "seed0", "probe", **figures)
    assert uneven(collect(tmp_path / "one"), 3) == "Without F1 in every row, and in no average: AU24."
    stage(tmp_path / "one", "seed0", "probe", **figures, **{"table3/exp/qformer/pooled/AU24": 0.0})
    assert uneven(collect(tmp_path / "one"), 3) == ""


def test_pictures_left_out_are_counted_and_grouped(tmp_path):
    figures = {"table1/photos/train/images": 5, "table1/photos/test/images": 2, "data/crops/eyes": 6, "data/crops/whole": 1, "data/crops/left out": 5}
    stage(tmp_path, "shared", "data", **figures)
    assert pictures(tmp_path, collect(tmp_path)) == ["Pictures by how the face was cut out: 6 levelled by the eyes, 1 the centre (no face found)."]
    faults = ["2 faces of nearly the same size; cut the picture", "3 faces of nearly the same size; cut it", "no face was found; use another",
              "the largest face is 20 x 21 pixels, 48 are needed: use a larger copy", "home/me/film.avi: frame 7 cannot be decoded", ""]
    rows = pd.DataFrame({"id": [f"photos/{k}, a.jpg" for k in range(6)], "fault": faults})
    rows.to_csv(tmp_path / "shared/data/left_out.csv", index=False)
    told = pictures(tmp_path, collect(tmp_path))[1]
    assert told.startswith("Left out: 6 of 13 pictures: 2 several faces of nearly the same size, ")
    for reason in ("1 no face was found", "1 the largest face is N pixels", "1 frame N cannot be decoded", "1 no reason given"):
        assert reason in told
    assert "Such as photos/0, a.jpg, photos/1, a.jpg, photos/2, a.jpg;" in told and "home" not in told
    rows = pd.DataFrame({"id": list("abcdefghijkl"), "fault": [f"class {name}" for name in "abcdefghiijj"]})
    rows.to_csv(tmp_path / "shared/data/left_out.csv", index=False)
    assert "2 for other reasons" in pictures(tmp_path, collect(tmp_path))[1]


def test_annotation_of_the_users_rows_comes_from_the_records(tmp_path):
    counts = {f"table1/{name}/{split}/images": 1 for name, split in (("mine", "train"), ("mine", "test"), ("photos", "test"), ("yours", "train"))}
    stage(tmp_path, "shared", "data", **counts)
    table = table1(collect(tmp_path))
    assert annotated(table, tmp_path).equals(table), "no records, nothing to say"
    records = pd.DataFrame({"id": list("abcd"), "image": [f"images.npy:{k}" for k in range(4)], "dataset": ["mine", "mine", "photos", "yours"],
                            "split": ["train", "test", "test", "train"], "au_present": [[12], [12], None, None],
                            "emotions": [["fear"], None, None, ["fear"]]})
    write_records(records, tmp_path / "shared/data/records.parquet")
    rows = ours(annotated(table, tmp_path)).set_index(["dataset", "split"])["annotation"].to_dict()
    assert rows == {("mine", "train"): "au+emotion", ("mine", "test"): "au", ("photos", "test"): "none", ("yours", "train"): "emotion"}


def test_data_sets_of_the_user_are_called_by_their_names():
    own = kind_of(["mine", "yours"])
    assert (own.name, own.paper, own.truth) == ("own", False, False) and "mine, yours" in own.caution and "Photographs" not in own.caution
    assert kind_of(["photos"]).caution.startswith("Photographs of the user") and "photos, mine" not in kind_of(["photos", "mine"]).caution
    assert "not in the paper: mine." in kind_of(["rafau", "mine"]).caution and "mine" not in kind_of(["rafau"]).caution


def test_photographs_have_no_counterpart(tmp_path):
    stage(tmp_path, "shared", "data", **{f"table1/photos/val/{what}": value for what, value in COUNTS.items()})
    kind, table = run_kind(collect(tmp_path)), table1(collect(tmp_path))
    assert (kind.name, kind.paper, kind.absent) == ("photographs", False, ()) and len(table) == 16
    assert ours(table)[["dataset", "split"]].values.tolist() == [["photos", "val"]]


def test_a_run_is_of_one_world():
    assert kind_of(["drawn-rafau"]) == kind_of([]) and kind_of(["drawn-rafau"]).caution == CAUTION
    with pytest.raises(ValueError, match="rafau and drawn-bp4d in one run"):
        kind_of(["drawn-bp4d", "rafau", "photos"])


def test_kinds_load_nothing_heavy():
    code = "import sys, expblip.kinds; print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_no_f1_without_annotated_absences_has_its_reason():
    "Photographs with au_present alone; not when there is an F1, and not for emotions alone."
    from expblip.page import facts_table, no_f1

    def told(**figures):
        return facts_table(pd.DataFrame([{"name": f"judge/photos/majority/none/{name}", "value": value, "seed": 0, "stage": "metrics", "meaning": "x"}
                                         for name, value in figures.items()]))

    assert no_f1(told(missed=0.0)).startswith("No AU-F1: ") and "au_absent" in no_f1(told(missed=0.0))
    assert no_f1(told(missed=0.0, au_f1_annotated=0.5)) == no_f1(told(emotion_accuracy=0.5)) == ""
