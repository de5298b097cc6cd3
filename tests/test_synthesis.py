"""Writers: no action is lost or invented, fusion links what it is given, and chance depends on seed and record only."""

import random
import re
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from expblip import facs, synthesis
from expblip.facs import AUS, COMPOUNDS, EMOTIONS, NO_AU_CAPTION, Parsed, parse
from expblip.records import CAPTION_COLUMNS, read_captions, write_captions
from expblip.synthesis import caption_table, concatenate, describe_actions, dice, fuse, has_link, infer, writer

GRAMMAR = writer("grammar")


def test_grammar_captions_of_up_to_three_aus_read_back():
    chance = random.Random(0)
    for size, times in ((0, 1), (1, 20), (2, 4), (3, 1)):
        for aus in map(frozenset, combinations(AUS, size)):
            for _ in range(times):
                text = GRAMMAR.au_caption(aus, chance)
                assert parse(text) == Parsed(aus, relaxed=not aus), text


def test_large_grammar_captions_read_back_and_stay_short():
    chance = random.Random(1)
    for _ in range(2000):
        aus = frozenset(chance.sample(list(AUS), chance.randint(3, 8)))
        text = describe_actions(aus, chance)
        assert parse(text) == Parsed(aus), text
        assert len(text.split()) <= 60, text
    assert parse(describe_actions(AUS, 0)).aus == set(AUS)


def test_action_captions_name_no_emotion_and_no_au():
    chance = random.Random(2)
    texts = [GRAMMAR.au_caption(chance.sample(list(AUS), chance.randint(0, 8)), chance) for _ in range(1000)]
    assert not any(re.search(r"\bau\d*\b", t, re.I) or parse(t).emotions or has_link(t) for t in texts)
    assert not any(re.search(r"\b(?:emotion|expression|feel\w*)\b", t, re.I) for t in texts)


def test_the_grammar_is_diverse():
    assert len({describe_actions([1, 4, 15], s) for s in range(300)}) > 100
    assert len({infer([6, 12, 25], ["happiness"], s) for s in range(300)}) > 50


def test_fusion_keeps_what_it_is_given_and_links_it():
    chance = random.Random(3)
    for _ in range(2000):
        aus, feels = chance.sample(list(AUS), chance.randint(0, 8)), chance.sample(EMOTIONS, chance.choice((1, 1, 1, 2, 2, 3)))
        by_rule = chance.random() < .5
        au_text = (facs.rule_caption(aus) if by_rule else None) or GRAMMAR.au_caption(aus, chance)
        emotion_text = facs.emotion_caption(feels)
        if chance.random() < .3: au_text, emotion_text = au_text.lower().rstrip("."), emotion_text.lower().rstrip(".")
        text = fuse(au_text, emotion_text, chance)
        assert parse(text) == Parsed(frozenset(aus), frozenset(feels), not aus), (au_text, emotion_text, text)
        assert has_link(text), text
        assert len(text.split()) <= 80 and text[0].isupper() and text.endswith(".")


def test_fusion_keeps_action_words():
    text = fuse("It is a people who lowers brow.", facs.emotion_caption("sadness", ["frowning", "crying"]), 0)
    assert parse(text) == Parsed(frozenset({4}), frozenset({"sadness"}), actions=frozenset({"frowning", "crying"}))


def test_evidence_is_split_by_the_published_tables():
    assert synthesis.allot([6, 12, 9], ["happiness"]) == ({"happiness": [6, 12]}, [9])
    assert synthesis.allot([1, 2, 12, 25], ["happiness", "surprise"]) == ({"happiness": [12], "surprise": [1, 2]}, [25])
    assert synthesis.allot([25, 26], ["surprise"]) == ({"surprise": []}, [25, 26])  # an open mouth alone shows nothing
    evidence, rest = synthesis.allot([4, 5, 7], ["anger", "fear"])
    assert sorted(sum(evidence.values(), [])) == [4, 5, 7] and not rest and all(evidence.values())


def test_although_appears_exactly_where_nothing_supports_the_emotion():
    assert all("although" in infer([12], ["sadness"], s).lower() for s in range(20))
    assert all("although" in infer([], ["anger"], s).lower() for s in range(20))
    assert not any("although" in infer([1, 4, 15], ["sadness"], s).lower() for s in range(20))


def test_a_link_needs_both_halves_and_a_connective():
    assert has_link("the lips are pressed, which suggests anger")
    assert not has_link("The lips are pressed. The face shows anger.")
    assert not has_link("This suggests anger.") and not has_link("The lips are pressed, which suggests it.")


def test_concatenation():
    assert concatenate("It is a people who drops jaw", "The face shows fear.") == "It is a people who drops jaw. The face shows fear."
    assert concatenate(None, "The face shows fear.") == "The face shows fear."
    assert not any(has_link(concatenate(facs.rule_caption([a]), facs.emotion_caption(e))) for a in AUS for e in EMOTIONS)
    with pytest.raises(ValueError, match="both captions are empty"): concatenate(None, " ")


def test_rule_writer():
    rule, chance = writer("rule"), dice(0)
    assert rule.au_caption([], chance) is None
    assert rule.fuse("It is a people who drops jaw.", "The face shows fear.", chance) == "It is a people who drops jaw. The face shows fear."


def test_dice_take_what_the_caller_has():
    assert dice(3).random() == dice(3).random() != dice(4).random()
    assert dice(np.random.default_rng(0)).random() == dice(np.random.default_rng(0)).random()
    generator = random.Random(0)
    assert dice(generator) is generator


def records() -> pd.DataFrame:
    return pd.DataFrame({"id": ["a", "b", "c", "d", "e", "f"], "dataset": ["drawn-rafau"] * 3 + ["drawn-rafdb", "drawn-faceme", "drawn-bp4d"],
                         "au_present": [[12, 25], [], [4], None, None, None],
                         "emotions": [None, None, ["anger"], ["fear", "surprise"], ["sadness"], None]})


def test_caption_table():
    table = caption_table(records(), GRAMMAR)
    assert tuple(table.columns) == CAPTION_COLUMNS and table.id.is_unique
    kinds = table.groupby("record").apply(lambda g: sorted(zip(g.aspect, g.writer)), include_groups=False).to_dict()
    both = [("au", "grammar"), ("au", "rule")]
    assert kinds == {"a": both, "b": [("au", "grammar")], "c": [*both, ("emotion", "rule")], "d": [("emotion", "rule")], "e": [("emotion", "rule")]}
    texts = table.set_index("id").text
    assert texts["b/au/grammar"] == NO_AU_CAPTION and texts["d/emotion/rule"] == "The face shows fear and surprise."
    assert texts["e/emotion/rule"] == "The actions on the face show sadness."
    assert parse(texts["a/au/grammar"]).aus == {12, 25}


def test_the_table_is_accepted_by_the_records_room(tmp_path):
    table = caption_table(records(), GRAMMAR)
    write_captions(table, tmp_path / "captions.parquet")
    assert read_captions(tmp_path / "captions.parquet").text.tolist() == table.text.tolist()


def test_a_captions_chance_is_its_own():
    whole, part = caption_table(records(), GRAMMAR, seed=5), caption_table(records().iloc[::-1].head(4), GRAMMAR, seed=5)
    both = whole.merge(part, on="id")
    assert len(both) == 5 and (both.text_x == both.text_y).all()
    assert any(a != b for a, b in zip(whole.text, caption_table(records(), GRAMMAR, seed=6).text))


def test_the_rule_writer_writes_no_row_twice():
    assert set(caption_table(records(), writer("rule")).writer) == {"rule"} and caption_table(records(), writer("rule")).id.is_unique


@pytest.mark.parametrize("call,words", [
    (lambda: writer("gpt"), "unknown writer 'gpt': expected one of rule, grammar"), 
    (lambda: fuse("a nice day", "The face shows fear.", 0), "no facial action is recognised in 'a nice day'"),
    (lambda: fuse("a dropped jaw", "a nice day", 0), "no emotion is recognised in 'a nice day'"),
    (lambda: caption_table(records().assign(emotions=[["envy"]] + [None] * 5), GRAMMAR), "record 'a': unknown emotion 'envy'"),
    (lambda: caption_table(records().assign(au_present=[None] * 5 + [[3]]), GRAMMAR), "record 'f': unknown action unit 3")])
def test_the_unknown_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words): call()


def test_compounds_fuse_both_emotions():
    for pair in COMPOUNDS.values():
        for seed in range(5): assert parse(infer([1, 4, 12, 25], list(pair), seed)).emotions == set(pair)
