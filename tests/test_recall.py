"""The parser's recall: what is counted, which sentences, and that the measured quality is what the page says."""

import pytest

from expblip.facs import Parsed, parse
from expblip.io import project_root
from expblip.recall import HAND, TRAP, link_quality, misread, paraphrases, parser_quality
from expblip.synthesis import connects, has_link


@pytest.fixture(scope="module")
def sentences():
    return paraphrases()


def test_there_are_enough_sentences_of_both_kinds(sentences):
    hand = sentences[sentences["source"] == HAND]
    quoted = sentences[~sentences["source"].isin((HAND, TRAP))]
    assert len(hand) >= 60 and len(quoted) >= 30 and len(hand) + len(quoted) + 40 <= len(sentences)
    assert quoted["source"].str.startswith(("paper, Figure", "supplement, ")).all()
    said = set().union(*hand["aus"])
    assert len(said) >= 24 and len(set().union(*hand["emotions"])) == 8
    assert not set(hand["text"]) & set(quoted["text"])


def test_counts_by_hand(sentences):
    some = sentences.iloc[:0].copy()
    some.loc[0] = [HAND, "The jaw drops and the eyes glow.", frozenset({26, 43}), frozenset({"fear"}), True]
    some.loc[1] = ["paper, Figure 5", "The face shows sadness.", frozenset(), frozenset({"sadness"}), False]
    got = parser_quality(some, lambda text: Parsed(frozenset({26, 1, 2}), frozenset({"fear"}))).set_index(["source", "kind"])
    assert got.loc[("by hand", "aus")].tolist() == [1, 2, 3, 1, 1 / 3, 1 / 2]
    assert got.loc[("all", "emotions")].tolist() == [2, 2, 2, 1, 1 / 2, 1 / 2]
    assert got.loc[("traps", "aus")].tolist()[:4] == [0, 0, 0, 0]
    links = link_quality(some, lambda text: "sadness" in text).set_index("source")
    assert links.loc["by hand"].tolist()[:4] == [1, 1, 0, 0] and links.loc["quoted", "false_alarms"] == 1
    assert links.loc["all"].tolist() == [2, 1, 1, 0, 0, 0, 1]
    wrong = misread(some, lambda text: Parsed(frozenset({26, 43}), frozenset({"fear"})))
    assert wrong["missed"].tolist() == ["sadness"] and wrong["added"].tolist() == ["AU26 AU43 fear"]


def test_what_is_measured_today(sentences):
    """The very figures that the page recall and lesson 7 print; the rule captions that the paper prints are read whole."""
    got = parser_quality(sentences).set_index(["source", "kind"])[["stated", "read", "right"]]
    assert {key: row.tolist() for key, row in got.iterrows()} == {
        ("by hand", "aus"): [74, 16, 16], ("by hand", "emotions"): [17, 12, 12], ("quoted", "aus"): [90, 44, 43],
        ("quoted", "emotions"): [30, 30, 30],
        ("traps", "aus"): [39, 38, 38], ("traps", "emotions"): [26, 28, 26], ("all", "aus"): [203, 98, 97], ("all", "emotions"): [73, 70, 68]}
    rule = sentences[sentences["text"].str.startswith("It is a people who")]
    assert len(rule) >= 4 and all(parse(row.text).aus == row.aus for row in rule.itertuples())


def test_what_links_are_found_today(sentences):
    got = {reader: link_quality(sentences, reader).set_index("source")[["linked", "found", "right"]] for reader in (has_link, connects)}
    assert got[has_link].T.to_dict("list") == {"by hand": [5, 3, 3], "quoted": [13, 10, 10], "traps": [14, 12, 10], "all": [32, 25, 23]}
    assert got[connects].T.to_dict("list") == {"by hand": [5, 6, 5], "quoted": [13, 13, 13], "traps": [14, 13, 10], "all": [32, 32, 28]}


def test_the_page_prints_what_is_measured(sentences):
    pages = [(project_root() / "nbs" / name).read_text() for name in ("api/recall.ipynb", "lessons/7_judging_captions.ipynb")]
    recall = parser_quality(sentences)["recall"]
    assert all(f"{value:.3f}" in pages[0] and f"{value:.2f}" in pages[1] for value in recall)


def test_a_faulty_file_is_named(tmp_path):
    path = tmp_path / "own.csv"
    for line, message in (("hand,The ears wiggle.,13,,", "unknown action unit '13'"), ("hand,Odd.,,bliss,", "unknown emotion 'bliss'"),
                          ("hand,Odd.,,,no", "unknown link 'no'"), ("hand, ,1,,", "a text is empty"), ("hand,a,1,,\nhand,a,1,,", "stands twice")):
        path.write_text(f"source,text,aus,emotions,link\n{line}\n")
        with pytest.raises(ValueError, match=message):
            paraphrases(path)
