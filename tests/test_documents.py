"""Language-model documents: notes settle the sentence, the language is closed, appearance captions stay generic."""

import re

import pytest

from expblip import facs
from expblip.documents import APPEARANCE, KINDS, appearance_caption, document, documents
from expblip.facs import AUS, parse
from expblip.synthesis import has_link

NOTATIONS = {form: n for n, a in AUS.items() for form in (f"au{n}", a.noun, a.verb)}


def read_notes(line: str) -> tuple[set[int], set[str], set[str]]:
    "AUs, emotions and everything else in a line of notes."
    items = [i.strip() for i in re.split(r"[|,]", line.removeprefix("notes : "))]
    aus = {NOTATIONS[i] for i in items if i in NOTATIONS}
    feels = {i for i in items if i not in NOTATIONS and parse(i).emotions}
    return aus, {facs.emotion(i) for i in feels}, {i for i in items if i not in NOTATIONS and i not in feels}


def test_notes_and_sentence_say_the_same():
    for doc in documents(2000, 0):
        notes, text, end = doc.split("\n")
        aus, emotions, rest = read_notes(notes)
        kind = next(k for k in KINDS for r in rest if r.split()[0] == k)
        said = parse(text)
        assert end == "" and text[0].isupper() and text.endswith(".")
        assert (said.aus, said.emotions) == (aus, emotions), doc
        if kind in ("rule", "grammar", "fused", "concatenated"): assert ("no action" in rest) == said.relaxed == (not aus), doc
        assert has_link(text) == (kind == "fused"), doc


def test_the_language_is_closed_and_small():
    def words(seed: int, n: int) -> set[str]: return set(re.findall(r"[a-z0-9-]+", " ".join(documents(n, seed)).lower()))
    known = words(0, 6000)
    assert len(known) < 600 and not words(1, 500) - known


def test_documents_follow_their_seed():
    assert documents(50, 3) == documents(50, 3) != documents(50, 4)


def test_kinds_and_aus_can_be_chosen():
    few = documents(200, 0, ["rule", "grammar"], aus=(1, 2, 12))
    assert {a for d in few for a in parse(d.split("\n")[1]).aus} == {1, 2, 12}
    assert all(re.search(r"\b(rule|grammar)\b", d.split("\n")[0]) for d in few)
    with pytest.raises(ValueError, match="unknown kind of document 'sonnet'"): document("sonnet", 0)


def test_no_look_names_an_action_or_an_emotion():
    for key, values in APPEARANCE.items():
        for value in values:
            said = parse(appearance_caption({key: value}, 0))
            assert not said.aus and not said.emotions and not said.actions


def test_appearance_captions():
    looks = {key: values[1] for key, values in APPEARANCE.items()}
    text = appearance_caption(looks, 1)
    assert all(value in text for value in looks.values())
    assert len(appearance_caption(looks, 1, most=2)) < len(text)
    assert appearance_caption({"hair": "red hair", "beard": ""}, 0).count("red hair") == 1
    with pytest.raises(ValueError, match="no action and no emotion"): appearance_caption({"mouth": "a happy mouth"}, 0)
    with pytest.raises(ValueError, match="at least one word"): appearance_caption({}, 0)
