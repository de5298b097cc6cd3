"""The parser's recall: what is counted, which sentences, and that the measured quality is what the page says."""

import pytest

from expblip.facs import Parsed, parse
from expblip.recall import HAND, misread, paraphrases, parser_quality


@pytest.fixture(scope="module")
def sentences():
    return paraphrases()


def test_there_are_enough_sentences_of_both_kinds(sentences):
    hand = sentences[sentences["source"] == HAND]
    quoted = sentences[sentences["source"] != HAND]
    assert len(hand) >= 60 and len(quoted) >= 30 and quoted["source"].str.startswith(("paper, Figure", "supplement, ")).all()
    said = set().union(*hand["aus"])
    assert len(said) >= 24 and len(set().union(*hand["emotions"])) == 8
    assert not set(hand["text"]) & set(quoted["text"])


def test_counts_by_hand(sentences):
    some = sentences.iloc[:0].copy()
    some.loc[0] = [HAND, "The jaw drops and the eyes glow.", frozenset({26, 43}), frozenset({"fear"})]
    some.loc[1] = ["paper, Figure 5", "The face shows sadness.", frozenset(), frozenset({"sadness"})]
    got = parser_quality(some, lambda text: Parsed(frozenset({26, 1, 2}), frozenset({"fear"}))).set_index(["source", "kind"])
    assert got.loc[("by hand", "aus")].tolist() == [1, 2, 3, 1, 1 / 3, 1 / 2]
    assert got.loc[("all", "emotions")].tolist() == [2, 2, 2, 1, 1 / 2, 1 / 2]
    wrong = misread(some, lambda text: Parsed(frozenset({26, 43}), frozenset({"fear"})))
    assert wrong["missed"].tolist() == ["sadness"] and wrong["added"].tolist() == ["AU26 AU43 fear"]


def test_what_is_measured_today(sentences):
    """Precision is high and recall low on free wording; the rule captions that the paper prints are read whole."""
    got = parser_quality(sentences).set_index(["source", "kind"])
    assert (got["precision"] >= 0.95).all()
    assert got.loc[("quoted", "emotions"), "recall"] == 1
    assert 0.1 < got.loc[("by hand", "aus"), "recall"] < 1 and 0.3 < got.loc[("quoted", "aus"), "recall"] < 1
    rule = sentences[sentences["text"].str.startswith("It is a people who")]
    assert len(rule) >= 4 and all(parse(row.text).aus == row.aus for row in rule.itertuples())


def test_a_faulty_file_is_named(tmp_path):
    path = tmp_path / "own.csv"
    for line, message in (("hand,The ears wiggle.,13,", "unknown action unit '13'"), ("hand,Odd.,,bliss", "unknown emotion 'bliss'"),
                          ("hand, ,1,", "a text is empty"), ("hand,a,1,\nhand,a,1,", "stands twice")):
        path.write_text(f"source,text,aus,emotions\n{line}\n")
        with pytest.raises(ValueError, match=message):
            paraphrases(path)
