"""Which captions Mix, Cat and Exp train on."""

import json

import pandas as pd
import pytest

from expblip.facs import NO_AU_CAPTION, parse, rule_caption
from expblip.fusion import FUSED, training_captions
from expblip.records import check_captions, check_records
from expblip.synthesis import GrammarWriter, RuleWriter, caption_table, has_link

WRITER = GrammarWriter()


def record(name, present=None, emotions=None, split="train"):
    absent = None if present is None else [28]
    return {"id": name, "image": "x.png", "dataset": "d", "split": split, "au_present": present, "au_absent": absent, "emotions": emotions}


RECORDS = check_records(pd.DataFrame([
    record("au", [1, 12]), record("rest", []), record("sad", None, ["sadness"]), record("both", [4, 7], ["anger"]),
    record("none"), record("val", [9], split="val"), record("test", [9], split="test")]))
LABELS = caption_table(RECORDS, WRITER)


def guess(aspect, **texts):
    rows = [(f"p/{name}", name, text, aspect, "model", "pseudo", "m", "") for name, text in texts.items()]
    return pd.DataFrame(rows, columns=["id", "record", "text", "aspect", "writer", "use", "model", "provenance"])


ACTIONS = guess("au", sad="It is a people who depresses lip corner.")
SHOWN = {"au": "happiness", "rest": "neutrality", "val": "disgust", "test": "disgust"}
FEELINGS = guess("emotion", **{name: f"The face shows {emotion}." for name, emotion in SHOWN.items()})


def build(model, **more):
    given = {"pseudo_au": ACTIONS, "pseudo_emot": FEELINGS, "writer": WRITER} | more
    table, dropped = training_captions(model, RECORDS, LABELS, **given)
    return check_captions(table, RECORDS).set_index("id"), dropped


def test_mix_is_the_union_of_single_aspects_and_never_sees_a_pseudo_caption():
    mix, dropped = build("mix", pseudo_au=None, pseudo_emot=None)
    assert list(mix.index) == ["au/au/mix", "rest/au/mix", "sad/emotion/mix", "both/au/mix", "both/emotion/mix", "val/au/mix"]
    assert mix.loc["au/au/mix", "text"] == rule_caption([1, 12]) and mix.loc["rest/au/mix", "text"] == NO_AU_CAPTION
    assert mix.loc["sad/emotion/mix", "text"] == "The face shows sadness." and not len(dropped) and set(mix["pseudo"]) == {""}


def test_cat_puts_rule_and_pseudo_side_by_side():
    cat, _ = build("cat")
    assert cat.loc["au/expression/cat", "text"] == rule_caption([1, 12]) + " The face shows happiness."
    assert cat.loc["sad/expression/cat", "text"] == "It is a people who depresses lip corner. The face shows sadness."
    assert cat["pseudo"].to_dict() == {"au/expression/cat": "emotion", "rest/expression/cat": "emotion", "sad/expression/cat": "au",
                                       "both/expression/cat": "", "val/expression/cat": "emotion"}
    assert json.loads(cat.loc["sad/expression/cat", "provenance"])["au"] == "p/sad"


def test_exp_fuses_the_writers_captions_and_adds_nothing():
    exp, _ = build("exp")
    for name, aus, emotion in (("au", {1, 12}, "happiness"), ("rest", set(), "neutrality"), ("sad", {15}, "sadness"), ("both", {4, 7}, "anger")):
        text = exp.loc[f"{name}/expression/exp", "text"]
        assert (parse(text).aus, parse(text).emotions) == (aus, {emotion}) and has_link(text)
    assert "It is a people who" not in " ".join(exp["text"])
    assert exp["text"].equals(build("exp")[0]["text"]) and not exp["text"].equals(build("exp", seed=1)[0]["text"])


def test_the_switch_gives_all_three_the_same_au_captions():
    written = LABELS[(LABELS["aspect"] == "au") & (LABELS["writer"] == "grammar")].set_index("record")["text"]
    mix, cat = (build(model, same_au_captions=True)[0] for model in ("mix", "cat"))
    assert mix.loc["both/au/mix", "text"] == written["both"] and cat.loc["both/expression/cat", "text"].startswith(written["both"])


@pytest.mark.parametrize("text", ["", "a cat on a mat", "The face shows sadness."])
def test_an_unreadable_pseudo_caption_costs_its_image_in_cat_and_exp_alike(text):
    for model in ("cat", "exp"):
        table, dropped = build(model, pseudo_au=guess("au", sad=text))
        assert "sad" not in set(table["record"]) and dropped[["record", "text"]].values.tolist() == [["sad", text]]
        assert "no facial action" in dropped["reason"].item()


def test_a_missing_pseudo_caption_is_listed_and_test_images_are_never_used():
    table, dropped = build("cat", pseudo_emot=FEELINGS.iloc[:1])
    assert dropped["record"].tolist() == ["rest", "val"] and set(table["record"]) == {"au", "sad", "both"}
    assert all("test" not in set(build(model)[0]["record"]) for model in FUSED)


def test_mistakes_have_one_clear_message():
    with pytest.raises(ValueError, match="unknown model 'sum'.*mix, cat, exp"):
        training_captions("sum", RECORDS, LABELS)
    with pytest.raises(ValueError, match="Emot-BLIP's captions"):
        build("cat", pseudo_emot=None)
    with pytest.raises(ValueError, match="'au' has au labels but no au caption by writer 'grammar'"):
        training_captions("exp", RECORDS, caption_table(RECORDS, RuleWriter()), ACTIONS, FEELINGS, WRITER)
    with pytest.raises(ValueError, match="name a writer"):
        build("exp", writer=None)
    with pytest.raises(ValueError, match="no image is left"):
        training_captions("exp", RECORDS[RECORDS["id"] == "sad"], LABELS, ACTIONS.iloc[:0], FEELINGS, WRITER)
