"""Unseen words: stems, places, kinds, marks, and the words that the paper marks in its Figure 6."""

import re

import pytest

from expblip.facs import AUS, EMOTIONS, WORDINGS, emotion_caption, rule_caption
from expblip.novelty import kind_of_word, marked, marked_html, novelty_table, unseen, vocabulary
from expblip.recall import paraphrases

SEEN = vocabulary(["The brow is lowered.", "Lips are pressed, sadly."])


@pytest.mark.parametrize(("text", "expected"), [
    ("The lowered brows.", []), ("Pressing LIPS", []), ("A smirk", [("A", "other"), ("smirk", "action")]), ("", []), ("12, -- !", []),
    ("sadly is worry", [("worry", "emotion")]),
])
def test_words_are_unseen_by_stem(text, expected):
    assert [(text[start:end], kind) for start, end, kind in unseen(text, SEEN)] == expected


def test_marks_keep_the_text():
    text = "A <smirk> & worry, and a lowered brow."
    assert re.sub(r"\[\w+: (\w+)\]", r"\1", marked(text, SEEN)) == text and "[emotion: worry]" in marked(text, SEEN)
    page = marked_html(text, SEEN)
    assert "&lt;" in page and "&amp;" in page and "<smirk>" not in page and page.count("<b ") == len(unseen(text, SEEN))


def test_the_papers_own_marks_are_found():
    """Figure 6 shows emotions and actions that neither rules nor labels name: satisfaction, worry, fatigue; a smirk, a laugh."""
    seen = vocabulary([rule_caption([number]) for number in AUS] + [emotion_caption(name) for name in EMOTIONS])
    texts = " ".join(paraphrases().query("source == 'paper, Figure 6'")["text"])
    found = {texts[start:end].lower(): kind for start, end, kind in unseen(texts, seen)}
    assert {"satisfaction", "caution", "worry", "fatigue"} <= {word for word, kind in found.items() if kind == "emotion"}
    assert {"smirk", "smile", "dimples", "laugh"} <= {word for word, kind in found.items() if kind == "action"}
    assert not {"happiness", "sadness", "cheeks", "eyebrows", "lips"} & set(found)


def test_our_own_words_have_a_kind():
    assert all(kind_of_word(name) == "emotion" for name in EMOTIONS if name != "neutrality")
    lost = {word for wordings in WORDINGS.values() for one in wordings for word in one.state.split()[:1] if kind_of_word(word) == "other"}
    assert lost <= {"shaped", "visible", "wide"}, lost


def test_words_are_counted_by_caption():
    table = novelty_table(["A smirk, a smirk.", "A smirk.", "Worry."], SEEN)
    assert list(table.itertuples(index=False, name=None)) == [("emotion", "worry", 1), ("action", "smirk", 2), ("other", "a", 2)]
    assert novelty_table([], SEEN).empty
