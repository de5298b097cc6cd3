"""Replies that may serve as captions, and those that may not: the forbidden words are found wherever they stand, and nothing else is."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expblip.facs import AUS, COMPOUNDS, EMOTIONS, NO_AU_CAPTION, Parsed, emotion, rule_caption
from expblip.records import MAX_TEXT, check_captions
from expblip.synthesis import GrammarWriter, dice, infer
from expblip.verdicts import REASONS, Drift, drift, rejection, tidy

calm = settings(deadline=None)  # a busy machine is no fault

GRAMMAR = GrammarWriter()
FACES = st.sets(st.sampled_from(list(AUS)), max_size=8)
CAPTIONS = st.builds(lambda aus, seed: GRAMMAR.au_caption(sorted(aus), dice(seed)), FACES, st.integers(0, 10**6))


def put(word: str, text: str, where: float) -> str:
    "A word between two words of a text."
    words = text.split()
    words.insert(round(where * len(words)), word)
    return " ".join(words)


@calm
@given(CAPTIONS)
def test_captions_of_grammar_and_paper_pass(text):
    assert rejection(text) == rejection(NO_AU_CAPTION) == "" and tidy(text) == text


@calm
@given(FACES.filter(bool))
def test_rule_captions_pass(aus):
    assert rejection(rule_caption(aus)) == ""


@calm
@given(st.sampled_from(list(AUS)), st.lists(st.sampled_from(EMOTIONS), min_size=1, max_size=3, unique=True), st.integers(0, 999))
def test_fused_captions_pass_and_are_no_action_captions(number, named, seed):
    text = infer([number], named, seed)
    assert (rejection(text, actions_only=False), rejection(text)) == ("", "names an emotion")


@calm
@given(CAPTIONS, st.sampled_from(["AU", "au", "AUs", "AU12", "AU 12", "AU-4", "AU_25", "(AU1)", "AU12:", "'AU'", "AU4+7", "AU12L", "Action Unit",
                                  "action units", "action-unit"]), st.floats(0, 1), st.booleans())
def test_the_word_au_is_found_wherever_it_stands(text, word, where, actions_only):
    assert rejection(put(word, text, where), actions_only=actions_only) == "says AU"


@pytest.mark.parametrize("word", ["auburn", "Australian", "haut", "gauge", "plateau", "auxiliary", "restaurant", "aural", "naïve", "beau"])
def test_words_that_only_contain_it_pass(word):
    assert rejection(f"The {word} face has parted lips.") == ""


WORDS = [*EMOTIONS, "happy", "sad", "angry", "surprised", "fearful", "afraid", "disgusted", "contemptuous", "neutral", "joy", "grief", *COMPOUNDS]


@calm
@given(CAPTIONS, st.sampled_from(WORDS), st.sampled_from(["{}", "({})", "{},", '"{}"']), st.floats(0, 1), st.booleans())
def test_an_emotion_is_found_wherever_it_stands(text, word, around, where, upper):
    text = put(around.format(word.upper() if upper else word), text, where)
    assert rejection(text) == "names an emotion" and rejection(text, actions_only=False) == ""


def test_every_word_of_the_lists_is_known():
    assert {emotion(word) for word in WORDS if word not in COMPOUNDS} == set(EMOTIONS)


@pytest.mark.parametrize("text", [
    "I'm sorry, but I can't help with that.", "I\u2019m sorry. I can\u2019t.", "I cannot describe people.", "I am unable to describe faces.",
    "As an AI language model, I have no face.", "Sorry, no.", "I'm not able to do so.", "I do not describe emotions.", "I apologize for that."])
def test_refusals(text):
    assert rejection(text) == rejection(text, actions_only=False) == "refusal"


@pytest.mark.parametrize("finish", ["refusal", "content_filter"])
def test_the_server_says_that_it_refuses(finish):
    assert rejection("", finish) == rejection("The jaw is dropped.", finish) == "refusal"


@calm
@given(st.text(alphabet=st.characters(categories=["Z", "P", "S", "N", "C"])))
def test_a_reply_without_a_letter_is_empty(text):
    assert rejection(tidy(text)) == "empty"


@calm
@given(CAPTIONS)
def test_a_reply_that_ran_into_the_limit_is_cut_off(text):
    assert rejection(text, "length") == "cut off"
    assert rejection(text * (MAX_TEXT // len(text) + 1)) == "too long"


@calm
@given(st.text())
def test_what_is_accepted_is_a_caption_of_the_records_room(reply):
    import pandas as pd

    text = tidy(reply)
    if rejection(text) == "":
        row = {"id": "a", "record": "r", "text": text, "aspect": "au", "writer": "llm", "use": "label"}
        assert check_captions(pd.DataFrame([row]))["text"].item() == text
        text.encode()


@calm
@given(st.text(), st.sampled_from(["stop", "length", "content_filter", "tool_calls", ""]), st.booleans())
def test_a_verdict_is_always_one_of_the_list(text, finish, actions_only):
    assert rejection(text, finish, actions_only) in {"", *REASONS}


@pytest.mark.parametrize("reply, text", [
    ("  The jaw\n\nis dropped. ", "The jaw is dropped."), ('"The jaw is dropped."', "The jaw is dropped."), ("Answer: The jaw.", "The jaw."),
    ('Answer: "The jaw."', "The jaw."), ("\u201cThe jaw.\u201d", "The jaw."), ('"A" and "B"', '"A" and "B"'), 
    ("The answer: a jaw.", "The answer: a jaw."),
    ("Combined sentence: The jaw.", "The jaw."), ("\ud83d jaw\x00", "jaw"), ("", ""), ('"', '"')])
def test_tidy(reply, text):
    assert tidy(reply) == text


@calm
@given(FACES, FACES, st.integers(0, 10**6))
def test_drift_is_the_difference(said, asked, seed):
    change = drift(GRAMMAR.au_caption(sorted(said), random.Random(seed)), Parsed(frozenset(asked)))
    assert set(change.added) == {f"AU{n}" for n in said - asked} and set(change.dropped) == {f"AU{n}" for n in asked - said}
    assert change.reason == ("adds" if said - asked else "drops" if asked - said else "")


def test_drift_of_emotions():
    assert drift("A dropped jaw suggests fear.", Parsed(frozenset({26}), frozenset({"surprise"}))) == Drift(("fear",), ("surprise",))


@pytest.mark.parametrize("reply, text", [
    ("<think>\nLet me look at the cheeks.\n</think>\n\nThe cheeks are raised.", "The cheeks are raised."),
    ("**Answer:** The cheeks are raised.", "The cheeks are raised."), ("```text\nThe cheeks are raised.\n```", "The cheeks are raised."),
    ("Sure! Here is the description: The cheeks are raised.", "The cheeks are raised."), ("# The cheeks are raised.", "The cheeks are raised.")])
def test_thoughts_and_marks_are_no_part_of_a_caption(reply, text):
    assert tidy(reply) == text and rejection(tidy(reply)) == ""


@pytest.mark.parametrize("reply, finish, reason", [
    ("<think>the cheeks are", "stop", "cut off"), ("The cheeks are", "", "cut off"), ("The cheeks are", "max_tokens", "cut off"),
    ("No.", "stop", "too short"),
    ('Facial Action Sentence: "The cheeks are raised."', "stop", "repeats the prompt"), ("I must decline.", "stop", "refusal"),
    ("I'm just an assistant and cannot see pictures.", "stop", "refusal")])
def test_what_chat_models_do_instead_of_answering(reply, finish, reason):
    assert rejection(tidy(reply), finish) == reason
