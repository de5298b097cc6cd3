"""Judging: known answers by hand, missing labels, the two comparison rows, and names of results."""

import random

import numpy as np
import pandas as pd
import pytest

from expblip import judging
from expblip.facs import EMOTIONS, NO_AU_CAPTION, emotion_caption, parse, rule_caption
from expblip.metrics import f1_scores, macro
from expblip.synthesis import ALONE, caption_table, writer

AUS = (1, 4, 6, 12, 25, 26)


@pytest.fixture()
def world():
    """Forty faces: half of them annotated for three AUs only, half with an emotion; truth known for all."""
    rng = random.Random(0)
    truth = pd.DataFrame(
        [(f"r{i}", sorted(rng.sample(AUS, rng.randint(0, 4))), [rng.choice(EMOTIONS)]) for i in range(40)], columns=["id", "aus", "emotions"]
    )
    rows = []
    for i, face in enumerate(truth.itertuples()):
        split = ("train", "test")[i // 2 % 2]
        if i % 2:
            rows.append((face.id, "toy-emotion", split, None, None, face.emotions))
        else:
            seen = (1, 4, 12)
            rows.append((face.id, "toy-au", split, [a for a in seen if a in face.aus], [a for a in seen if a not in face.aus], None))
    return pd.DataFrame(rows, columns=["id", "dataset", "split", "au_present", "au_absent", "emotions"]), truth


def predicted(ids, texts, model="au"):
    return pd.DataFrame({"record": list(ids), "text": list(texts), "model": model, "decode": "greedy"})


@pytest.mark.parametrize(
    ("text", "aus", "emotions", "expected"),
    [
        ("It is a people who lowers brow and drops jaw. The face shows anger.", {4}, {"anger"}, (2 / 3, 1)),
        ("The face shows anger and fear.", {4}, {"anger"}, (1 / 2, 1 / 2)),
        ("", {4}, {"anger"}, (0, 0)),
        ("", set(), {"neutrality"}, (0, 0)),
        (NO_AU_CAPTION, set(), set(), (1, 1)),
        (f"{NO_AU_CAPTION} The face shows neutrality.", set(), {"neutrality"}, (1, 1)),
        ("It is a people who drops jaw. The face shows fear.", {26}, set(), (1, 1)),
    ],
)
def test_agreement_by_hand(text, aus, emotions, expected):
    assert judging.agreement(parse(text), aus, emotions) == pytest.approx(expected)


def test_f1_is_that_of_the_numbers_and_silence_costs_only_the_full_figure(world):
    records, truth = world
    labelled = records[records["dataset"] == "toy-au"]
    texts = [rule_caption(aus) or NO_AU_CAPTION for aus in labelled["au_present"]]
    judged = judging.judge(predicted(labelled["id"], texts), records, truth)
    summary, per_au = judging.summarise(judged, records, truth, AUS)
    full = per_au.set_index("au")["full"]
    assert (full[[1, 4, 12]] == 1).all() and (full[[6, 25, 26]] == 0).all()
    assert summary["au_f1_annotated"].item() == 1 and summary["au_f1_full"].item() == pytest.approx(0.5)
    assert per_au.set_index("au")["annotated"][[6, 25, 26]].isna().all()


def test_macro_f1_equals_direct_computation(world):
    records, truth = world
    rng = random.Random(4)
    stated = [sorted(rng.sample(AUS, 2)) for _ in truth["id"]]
    judged = judging.judge(predicted(truth["id"], map(rule_caption, stated)), records, truth)
    both = [judging.stated_table(lists, AUS) for lists in (truth["aus"].tolist(), stated)]
    assert macro(judging.au_f1(judged, records, truth, AUS)["full"]) == pytest.approx(macro(f1_scores(*both)))


def test_emotion_accuracy_prefers_labels_and_needs_equal_sets(world):
    records, truth = world
    labelled = records[records["dataset"] == "toy-emotion"]
    right = [emotion_caption(e) for e in labelled["emotions"]]
    wrong = [emotion_caption([*e, next(x for x in EMOTIONS if x not in e)]) for e in labelled["emotions"]]
    for texts, expected in ((right, 1), (wrong, 0)):
        assert judging.judge(predicted(labelled["id"], texts), records)["emotion_right"].mean() == expected


def test_without_truth_nothing_is_guessed(world):
    records, _ = world
    labelled = records[records["dataset"] == "toy-au"]
    judged = judging.judge(predicted(labelled["id"], ["It is a people who lowers brow."] * len(labelled)), records)
    summary, per_au = judging.summarise(judged, records, None, AUS)
    names = {row["name"].rsplit("/", 1)[-1] for row in judging.entries(summary, per_au)}
    assert "au_f1_annotated" in names and not names & {"correctness", "completeness", "au_f1_full", "emotion_accuracy"}
    assert "AU4" in names and "AU25" not in names
    assert judging.completeness_shares(judged.assign(model="mix")).empty


def test_ties_are_split_and_shares_sum_to_one(world):
    records, truth = world
    ids = truth["id"][:10]
    half = [rule_caption(a) or NO_AU_CAPTION for a in truth["aus"][:10]]
    whole = [f"{a} {emotion_caption(e)}" for a, e in zip(half, truth["emotions"][:10])]
    parts = [predicted(ids, texts, model) for model, texts in (("mix", half), ("cat", whole), ("exp", whole))]
    shares = judging.completeness_shares(judging.judge(pd.concat(parts, ignore_index=True), records, truth))
    assert shares["most_complete"].to_dict() == pytest.approx({"mix": 0, "cat": 0.5, "exp": 0.5})
    assert shares["least_complete"].to_dict() == pytest.approx({"mix": 1, "cat": 0, "exp": 0})


def test_oracles_are_ceilings_and_blind_rows_come_from_training_captions(world):
    records, truth = world
    test = records.loc[records["split"] == "test", "id"]
    captions = caption_table(records, writer("grammar"))
    oracle = judging.judge(judging.oracle_captions(truth[truth["id"].isin(test)], writer("grammar")), records, truth)
    means = oracle.groupby("model")[["correctness", "completeness", "both_aspects"]].mean()
    assert (means["correctness"] == 1).all() and (means.loc[["oracle-cat", "oracle-exp"]] == 1).all(axis=None)
    blind = judging.blind_captions(captions, records, test, seed=1)
    train = set(captions.loc[captions["record"].isin(records.loc[records["split"] == "train", "id"]), "text"])
    assert set(blind["text"]) <= train and set(blind["record"]) == set(test)
    assert blind.equals(judging.blind_captions(captions, records, test, seed=1))
    judged = judging.judge(blind, records, truth)
    assert judged["correctness"].mean() < 0.7
    is_au = judged["dataset"] == "toy-au"
    assert (judged.loc[is_au, "stated_emotions"].str.len() == 0).all() and (judged.loc[~is_au, "stated_emotions"].str.len() == 1).all()


def test_majority_states_what_more_than_half_of_the_training_labels_state(world):
    records, truth = world
    test, captions = records.loc[records["split"] == "test", "id"], caption_table(records, writer("grammar"))
    train = records[records["split"] == "train"]
    present = [(set(yes), {*yes, *no}) for yes, no in zip(train["au_present"], train["au_absent"]) if yes is not None]
    common = [a for a in AUS if 2 * sum(a in yes for yes, _ in present) > sum(a in asked for _, asked in present)]
    counts = train["emotions"].dropna().str[0].value_counts()
    most = judging.majority_captions(captions, records, test)
    assert set(most["record"]) == set(test) and set(most["model"]) == {"majority"} and set(most["decode"]) == {"none"}
    for row in judging.judge(most, records, truth).itertuples():
        if row.dataset == "toy-au":
            assert row.stated_aus == common and row.stated_emotions == []
        else:
            assert counts[row.stated_emotions[0]] == counts.max() and row.stated_aus == []
    assert most["text"].nunique() == 2
    both = records.assign(emotions=[["fear"]] * len(records))
    text = judging.majority_captions(caption_table(both, writer("grammar")), both, ["r2"])["text"].item()
    assert text == f"{rule_caption(common) or NO_AU_CAPTION} The face shows fear."


def test_majority_without_a_majority(world):
    records, _ = world
    captions = caption_table(records, writer("grammar"))
    rare = records.assign(au_absent=[None if yes is None else [*no, *yes] for yes, no in zip(records["au_present"], records["au_absent"])],
                          au_present=[None if yes is None else [] for yes in records["au_present"]])
    assert judging.majority_captions(captions, rare, ["r2"])["text"].item() == NO_AU_CAPTION
    assert judging.majority_captions(captions[captions["aspect"] == "emotion"], records, ["r2"]).empty


def test_oracle_needs_the_labels_of_its_format():
    rng = random.Random(0)
    assert judging.oracle_caption("emot", [12], None, writer("grammar"), rng) is None
    assert judging.oracle_caption("exp", None, ["fear"], writer("grammar"), rng) is None
    assert judging.oracle_caption("mix", None, ["fear"], writer("grammar"), rng) == "The face shows fear."
    with pytest.raises(ValueError, match="expected one of au, emot"):
        judging.oracle_caption("llm", [12], ["fear"], writer("grammar"), rng)


def test_health():
    assert judging.repeats("The face shows anger. The face shows anger.") and not judging.repeats(
        " ".join(ALONE.format(emotion=name) for name in ("fear", "anger")))
    assert judging.repeats("raised cheeks and a dropped jaw, raised cheeks and a dropped jaw") and not judging.repeats("a b c a b c")
    assert judging.too_short("Fear.") and not judging.too_short("") and not judging.too_short("The jaw drops.")
    assert judging.cut_off("The face shows") and not judging.cut_off("The face shows fear.") and not judging.cut_off(" ")


@pytest.mark.parametrize("text", ["raised cheeks and a dropped jaw! Raised cheeks and a dropped jaw", "lips, lips, lips, lips, lips",
                                  "raised cheeks and a dropped jaw; raised cheeks and a dropped jaw", "the lips; the lips: the lips",
                                  "fear fear-fear fear fear fear"])
def test_circles_are_seen_whatever_stands_between_the_words(text):
    assert judging.repeats(text)


@pytest.mark.parametrize("text", ["", "Fear.", "very, very happy", "the lips, the lips", "lips lip lipslips", "raised cheeks, raised chin"])
def test_what_is_no_circle(text):
    assert not judging.repeats(text)


def test_the_grammar_does_not_turn_in_circles():
    """No more than by six words that come twice, which two long lists of actions may share."""
    chance, grammar = random.Random(6), writer("grammar")
    for _ in range(1000):
        actions, feelings = chance.sample(list(AUS), chance.randint(0, 6)), chance.sample(EMOTIONS, 2)
        text = grammar.fuse(grammar.au_caption(actions, chance), emotion_caption(feelings), chance)
        assert not judging.repeats(text, 99), text
        assert not judging.repeats(text) or text.count("although") > 1, text


def test_a_text_without_a_word_is_empty(world):
    records, truth = world
    judged = judging.judge(predicted(["r0"] * 5, ["...", "", " - ?", "Fear.", "“!”"]), records, truth)
    assert judged["empty"].tolist() == [1, 1, 1, 0, 1] and judged["cut_off"].sum() == 0 and judged["too_short"].tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("key", ["model", "decode"])
def test_a_caption_without_model_or_decode_is_refused(world, key):
    """A row without its key would be left out of every figure, without a word."""
    records, truth = world
    judged = judging.judge(predicted(["r0", "r1"], ["Fear.", "Anger."]), records, truth).assign(**{key: ["au", None]})
    with pytest.raises(judging.JudgingError, match=f"row 1: no {key}"):
        judging.summarise(judged, records, truth, AUS)


def test_aus_made_up_and_missed(world):
    """With truth against all AUs; without it among the annotated ones; an image without AU labels says nothing then."""
    records, truth = world
    labelled = records[records["dataset"] == "toy-au"]
    said = [4, 25]
    table = predicted(records["id"], [rule_caption(said)] * len(records))
    faces = dict(zip(truth["id"], truth["aus"]))
    whole, known = judging.judge(table, records, truth), judging.judge(table, records)
    assert whole["hallucinated"].tolist() == [len(set(said) - set(faces[i])) for i in table["record"]]
    assert whole["missed"].tolist() == [len(set(faces[i]) - set(said)) for i in table["record"]]
    mine = known[known["record"].isin(labelled["id"])]
    assert mine["hallucinated"].tolist() == [float(4 in absent) for absent in labelled["au_absent"]]
    assert mine["missed"].tolist() == [len(set(present) - {4}) for present in labelled["au_present"]]
    assert known.loc[~known["record"].isin(labelled["id"]), ["hallucinated", "missed"]].isna().all(axis=None)
    per_au = judging.au_f1(whole, records, truth, AUS)
    assert per_au["hallucinated"].sum() == whole["hallucinated"].sum() and per_au["missed"].sum() == whole["missed"].sum()
    assert (per_au["missed"] <= per_au["positives"]).all() and per_au.loc[1, "hallucinated"] == 0


def test_every_figure_has_a_meaning_and_a_place(world):
    records, truth = world
    table = predicted(truth["id"], ["It is a people who lowers brow."] * len(truth)).assign(**dict.fromkeys(judging.WORDING, 0.25))
    summary, per_au = judging.summarise(judging.judge(table, records, truth), records, truth, AUS)
    told = {row["name"]: row["value"] for row in judging.entries(summary, per_au)}
    place = "toy-au/au/greedy"
    assert all(told[f"table2/{place}/{name}"] == 0.25 for name in judging.WORDING)
    assert told[f"judge/{place}/words"] == 7 and told[f"judge/{place}/different"] == pytest.approx(1 / 20) and told[f"judge/{place}/too_short"] == 0
    assert {"most_complete", "least_complete"} == set(judging.MEANING) - {name.split("/")[-1] for name in told}


def test_unknown_record_is_named(world):
    records, truth = world
    with pytest.raises(judging.JudgingError, match="row 0: record 'x' is not in the records"):
        judging.judge(predicted(["x"], ["text"]), records, truth)
    with pytest.raises(judging.JudgingError, match="not in the truth table"):
        judging.judge(predicted(["r0"], ["text"]), records, truth[1:])


def test_result_names(world):
    records, truth = world
    table = predicted(truth["id"], map(emotion_caption, truth["emotions"]), "emot").assign(meteor=0.5, rouge_l=np.nan)
    flat = judging.entries(*judging.summarise(judging.judge(table, records, truth), records, truth, AUS))
    values = {row["name"]: row["value"] for row in flat}
    assert len(values) == len(flat) and all(row["meaning"] for row in flat)
    assert values["table2/toy-au/emot/greedy/meteor"] == 0.5 and "table2/toy-au/emot/greedy/rouge_l" not in values
    assert values["judge/toy-emotion/emot/greedy/emotion_accuracy"] == 1
    assert "judge/toy-au/emot/greedy/au_f1/AU12" in values



@pytest.mark.parametrize("text", ['He smiles."', "Smile…", "(He smiles…)", "He smiles.”", "It says 'calm.'", "Smile!) "])
def test_quotes_brackets_and_an_ellipsis_may_end_a_caption(text):
    assert not judging.cut_off(text) and judging.cut_off(text.rstrip(judging.CLOSING)[:-1]) and judging.cut_off(")")


def test_without_negatives_there_is_no_f1(world):
    "Labels of what is present alone: who names every AU would score 1, so nobody gets a score, and nothing is said to be made up."
    records, _ = world
    bare = records.assign(au_absent=pd.Series([None if present is None else [] for present in records["au_present"]], dtype=object))
    shown = bare[[present is not None and len(present) > 0 for present in bare["au_present"]]]
    everything = judging.judge(predicted(shown["id"], [rule_caption(AUS)] * len(shown), "majority"), bare)
    summary, per_au = judging.summarise(everything, bare, None, AUS)
    assert summary[["au_f1_annotated", "hallucinated"]].isna().all(axis=None) and summary["missed"].item() == 0
    assert per_au["annotated"].isna().all() and not [row for row in judging.entries(summary, per_au) if "au_f1" in row["name"]]
    lacks = next(row.id for row in shown.itertuples() if 4 not in row.au_present)
    one = bare.assign(au_absent=pd.Series([[4] if record == lacks else old for record, old in zip(bare["id"], bare["au_absent"])], dtype=object))
    per_au = judging.summarise(judging.judge(everything[["record", "text", "model", "decode"]], one), one, None, AUS)[1].set_index("au")
    assert per_au["annotated"].dropna().index.tolist() == [4] and per_au["annotated"][4] < 1
