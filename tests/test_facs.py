"""The caption grammar and its parser: what is written reads back, what is unknown is refused."""

import random
from dataclasses import replace
from itertools import combinations, product

import pytest

from expblip import facs
from expblip.facs import AUS, COMPOUNDS, DRAWN_PROTOTYPES, EMOTIONS, EVIDENCE, NO_AU_CAPTION, WORDINGS, Parsed, parse
from expblip.io import project_root
from expblip.replies import ReplyStore
from expblip.synthesis import concatenate, fuse, writer

SMALL = [frozenset(s) for size in range(4) for s in combinations(AUS, size)]


def test_the_table_is_the_supplements():
    assert list(AUS) == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 43]
    phrases = {4: "lowers brow", 8: "pulls lips toward each other", 19: "sticks tongue out", 20: "stretches lips", 22: "shows lip funneler",
               24: "presses lips", 27: "stretches mouth", 43: "closes eyes"}
    assert {n: AUS[n].phrase for n in phrases} == phrases


def test_rule_captions_are_the_papers():
    assert facs.rule_caption([10, 14, 17, 24]) == "It is a people who raises upper lip, tightens lip corner, raises chin and presses lips."
    assert facs.rule_caption(["AU26", "12", 25]) == "It is a people who pulls lip corner, separates lips and drops jaw."
    assert facs.rule_caption([12]) == "It is a people who pulls lip corner."
    assert facs.rule_caption([]) is None


def test_rule_captions_of_up_to_three_aus_read_back():
    assert len(SMALL) == 3304
    wrong = [s for s in SMALL if parse(facs.rule_caption(s) or "") != Parsed(s)]
    assert not wrong


def test_every_wording_alone_means_its_au_in_each_position():
    for number, wordings in WORDINGS.items():
        for text in [AUS[number].phrase, *(t for w in wordings for t in (w.nominal, w.clause, w.remark))]:
            assert parse(text) == Parsed(frozenset({number})), text


def test_any_two_wordings_side_by_side_keep_their_meaning():
    words = [(n, w.nominal) for n, ws in WORDINGS.items() for w in ws]
    for (a, x), (b, y) in product(words, words):
        assert parse(f"{x} and {y}").aus == {a, b}


def test_two_aus_may_not_share_a_phrase(monkeypatch):
    monkeypatch.setitem(facs.WORDINGS, 10, (*WORDINGS[10], facs.Wording("raised upper lids", "upper lids", "raised")))
    with pytest.raises(ValueError, match="means both 5 and 10"): facs.phrase_table()


@pytest.mark.parametrize("slip", [str.upper, lambda t: t.rstrip("."), lambda t: f"{t} {t}", lambda t: t.replace(",", " ,"),
                                  lambda t: t.replace(" ", "  "), lambda t: t + " raises inner"])
def test_slips_of_a_model_do_not_change_the_reading(slip):
    chance = random.Random(0)
    for _ in range(100):
        aus = frozenset(chance.sample(list(AUS), 4))
        assert parse(slip(facs.rule_caption(aus))).aus == aus


@pytest.mark.parametrize("text,aus", [
    ("the lips are pressed together", {24}), ("the lips are being slightly tightened", {23}), ("the lip corners are tightened", {14}),
    ("her lids are tightened", {7}),
    ("a raised upper lip", {10}), ("the upper lids raised", {5}), ("the eyes are narrowed", {7}), ("the narrowed lips", {23}), ("upper lip", set()),
    ("raised, inner eyebrows", set()), ("praises inner eyebrow", set()), ("", set()), ("drop jaws", set())])
def test_neighbours_stay_apart(text, aus):
    assert parse(text).aus == aus


def test_a_face_at_rest():
    assert parse(NO_AU_CAPTION) == Parsed(relaxed=True)
    assert parse(NO_AU_CAPTION).states_aus and not parse(NO_AU_CAPTION).states_emotions
    assert not parse("").states_aus


@pytest.mark.parametrize("text,aus,emotions", [
    ("There are parted lips and no raised cheeks; the face does not show happiness.", {25}, set()), ("A face without a dropped jaw.", set(), set()),
    ("The face shows neither happiness nor a raised chin.", set(), set()), ("She isn’t sad, she's angry.", set(), {"anger"}),
    ("There are no raised cheeks and the lips are parted.", {25}, set()), ("No raised cheeks and parted lips.", set(), set()),  # unclear: nothing
    ("No raised cheeks, or parted lips.", set(), set()), ("Not happiness but fear.", set(), {"fear"}),
    ("The lips are parted, never pressed lips.", {25}, set()),
    ("Raised cheeks and a dropped jaw cannot be seen, although the lips are parted.", {25}, set()), ("Anger rather than fear.", set(), {"anger"}),
    ("Not only the cheeks are raised, no doubt the face shows happiness.", {6}, {"happiness"}), ("NO RAISED CHEEKS", set(), set()),
    ("No action other than a dropped jaw.", {26}, set()), ("The nose is wrinkled, and nobody knows another reason.", {9}, set()),
    ("No raised cheeks, dropped jaw, or parted lips.", set(), set()), ("Without raised cheeks, wrinkled nose or anger, a dropped jaw.", {26}, set()),
    ("There is no raised chin, no parted lips, tightened lips or fear but a dropped jaw.", {26}, set()),
    ("No raised cheeks, but the jaw is dropped or the lips are parted.", {25, 26}, set()),  # its own clause: a guess, yet about what is there
    ("There are no raised cheeks, with the lips parted or the jaw dropped.", {25, 26}, set()),
    ("The face shows no raised cheeks, indicating sadness or fear.", set(), {"sadness", "fear"}),
    ("There is no smile, the dropped jaw suggests surprise or fear.", {26}, {"surprise", "fear"}),
    ("No raised cheeks, a dropped jaw, more or less.", {26}, set()),
    ("Without anger, fear, and sadness.", set(), set()), ("No lips pressed together, narrowed eyes and knitted brows.", set(), set()),
    ("Not anger, as seen in a furrowed brow or tightened lips.", {4, 23}, set()),
    ("It shows no fear, only anger or disgust.", set(), {"anger", "disgust"}),
    ("There is no smile, the brow is furrowed and the lips are parted.", {4, 25}, set()),
    ("Anger rather than fear, and not only the eyes are narrowed.", {7}, {"anger"}), ("No fear, anger and sadness, but a dropped jaw.", {26}, set()),
    ("She isn't sad, she's angry or afraid.", set(), {"anger", "fear"}), ("No raised cheeks, parted lips.", {25}, set()),
    ("The eyes and the mouth are relaxed, with no tension.", set(), set())])
def test_a_denial_is_no_statement(text, aus, emotions):
    assert (parse(text).aus, parse(text).emotions) == (aus, emotions)
    assert parse(f"{text.rstrip('.')}. The brow is furrowed.") == replace(parse(text), aus=parse(text).aus | {4}), "the next sentence is heard"


def test_the_denials_change_no_caption_of_ours(monkeypatch):
    "Rule, grammar, emotion sentences, fusion, and all that the recorded language model wrote: as without the part that looks for denials."
    chance, texts, grammar = random.Random(5), [], writer("grammar")
    for _ in range(1500):
        aus, feels = chance.sample(list(AUS), chance.randint(0, 8)), chance.sample(EMOTIONS, chance.choice((1, 1, 2, 3)))
        said, told = grammar.au_caption(aus, chance), facs.emotion_caption(feels, template=chance.choice(("face", "actions")))
        texts += [said, told, facs.rule_caption(aus) or said, fuse(said, told, chance), concatenate(said, told)]
    texts += [reply.text for reply in ReplyStore(project_root() / "data" / "replies")]
    assert sum("no " in text or "not " in text for text in texts) > 300
    here = [parse(text) for text in texts]
    monkeypatch.setattr(facs, "affirmed", lambda text: text)
    assert [parse(text) for text in texts] == here


def test_emotion_captions_of_all_small_sets_read_back():
    for names in (s for size in (1, 2, 3) for s in combinations(EMOTIONS, size)):
        for template in ("face", "actions"):
            assert parse(facs.emotion_caption(names, template=template)) == Parsed(emotions=frozenset(names))


def test_emotion_captions_are_the_papers():
    assert facs.emotion_caption("happy") == "The face shows happiness."
    assert facs.emotion_caption("Happily surprised") == "The face shows happiness and surprise."
    text = facs.emotion_caption(["sadness", "fear"], ["frowning", "crying"])
    assert text == "The people is frowning and crying. The actions on the face show sadness and fear."
    assert parse(text).actions == {"frowning", "crying"}


def test_compounds_are_pairs_of_basic_emotions():
    assert len(COMPOUNDS) == 11 and all(len(set(pair)) == 2 and set(pair) <= set(EMOTIONS) for pair in COMPOUNDS.values())


def test_prototypes_name_known_aus_only():
    assert set(DRAWN_PROTOTYPES) == {*EMOTIONS, *COMPOUNDS}
    for consistent, optional in DRAWN_PROTOTYPES.values(): assert set(consistent) | set(optional) <= set(AUS) and not set(consistent) & set(optional)
    assert all(p <= set(AUS) for sets in EVIDENCE.values() for p in sets)


@pytest.mark.parametrize("call,words", [
    (lambda: facs.au(13), "unknown action unit 13"), (lambda: facs.au("AUx"), "unknown action unit 'AUx'"),
    (lambda: facs.rule_caption([1, 99]), "unknown action unit 99"),
    (lambda: facs.emotion("hungry"), "unknown emotion 'hungry'.*contempt"), (lambda: facs.emotion_caption(["joyless"]), "unknown emotion"),
    (lambda: facs.emotion_caption([]), "at least one"), (lambda: facs.emotion_caption("fear", ["juggling"]), "unknown action 'juggling'"),
    (lambda: facs.emotion_caption("fear", template="long"), "unknown template 'long'")])
def test_the_unknown_is_refused_by_name(call, words):
    with pytest.raises(ValueError, match=words): call()
