"""Variety and faithfulness of captions, and writers side by side."""

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expblip.comparing import MEANING, compare, distinct, measures, words
from expblip.facs import AUS, Parsed
from expblip.llm_writer import LLMWriter
from expblip.replies import Reply
from expblip.synthesis import GrammarWriter, caption_table, dice, writer

calm = settings(deadline=None)  # a busy machine is no fault

TEXTS = st.lists(st.text(alphabet="ab .,", max_size=12), max_size=6)


@calm
@given(TEXTS, st.integers(1, 4))
def test_distinct_is_a_share(texts, n):
    share = distinct(texts, n)
    some = any(len(words(text)) >= n for text in texts)
    assert (0 < share <= 1) if some else math.isnan(share)
    if some:
        assert distinct(texts * 2, n) == pytest.approx(share / 2) and distinct(texts[::-1], n) == share


def test_distinct_by_hand():
    texts = ["A jaw, a JAW!", "a jaw"]
    assert words(texts[0]) == ["a", "jaw", "a", "jaw"] and words("the upper-lid isn't") == ["the", "upper-lid", "isn't"]
    assert distinct(texts, 1) == 2 / 6 and distinct(texts, 2) == 2 / 4 and distinct(texts, 3) == 1 and math.isnan(distinct(texts, 5))
    assert distinct(["ab", "cd"], 2) != 1  # n-grams do not reach over captions


@calm
@given(st.lists(st.tuples(st.sets(st.sampled_from(list(AUS)), max_size=4), st.sets(st.sampled_from(list(AUS)), max_size=4)), min_size=1, max_size=8))
def test_adds_and_drops_are_counted(faces):
    texts = [GrammarWriter().au_caption(sorted(said), dice(i)) for i, (said, _) in enumerate(faces)]
    row = measures(texts, [Parsed(frozenset(asked)) for _, asked in faces])
    assert row["adds"] == pytest.approx(sum(len(said - asked) for said, asked in faces) / len(faces))
    assert row["drops"] == pytest.approx(sum(len(asked - said) for said, asked in faces) / len(faces))
    assert row["faithful"] == pytest.approx(sum(said == asked for said, asked in faces) / len(faces)) and row["emotion"] == 0


def test_emotions_left_out_and_nothing_at_all():
    row = measures(["A happy dropped jaw.", None, "The jaw is dropped."], [Parsed(frozenset({26}))] * 3)
    assert (row["captions"], row["left_out"], row["emotion"], row["adds"], row["drops"], row["different"]) == (2, 1, .5, .5, 0, 1)
    nothing = measures([None], [Parsed()])
    assert nothing["captions"] == 0 and all(math.isnan(value) for name, value in nothing.items() if name not in ("captions", "left_out"))
    fused = measures(["A dropped jaw suggests fear."], [Parsed(frozenset({26}), frozenset({"fear"}))], actions_only=False)
    assert (fused["link"], fused["faithful"]) == (1, 1) and {*row, *fused} == set(MEANING)


class Model:
    "Says everything, and a dropped jaw."
    def ask(self, questions):
        return [Reply(q.key, "The lip corners are pulled up, the jaw is dropped.", q.model, "fake", "2026-01-01T00:00:00Z") for q in questions]


FACES = pd.DataFrame({"id": list("abcd"), "dataset": "toy", "au_present": [[12], [12, 26], None, []],
                      "emotions": [["happiness"], None, ["fear"], None]})


def test_side_by_side():
    writers = [writer("rule"), writer("grammar"), LLMWriter(Model(), "m")]
    texts, figures = compare(FACES, writers)
    assert texts.columns.tolist() == ["record", "labels", "rule", "grammar", "llm"] and texts["record"].tolist() == ["a", "b", "d"]
    assert texts["labels"].tolist() == ["AU12", "AU12 AU26", ""] and texts["rule"].isna().tolist() == [False, False, True]
    assert figures["adds"].round(3).to_dict() == {"rule": 0, "grammar": 0, "llm": .333}
    assert figures["left_out"].to_dict() == {"rule": 1, "grammar": 0, "llm": 0}
    grammar = caption_table(FACES, writer("grammar"))
    assert texts["grammar"].tolist() == grammar[grammar["writer"] == "grammar"]["text"].tolist()  # as the stage writes them


def test_side_by_side_fused():
    texts, figures = compare(FACES, [writer("rule"), writer("grammar")], "expression")
    assert texts["record"].tolist() == ["a"] and texts["labels"].tolist() == ["AU12 happiness"]
    assert figures["link"].to_dict() == {"rule": 0, "grammar": 1} and figures["faithful"].tolist() == [1, 1]


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="no record has au_present and emotions"):
        compare(FACES[1:], [writer("rule")], "expression")
    with pytest.raises(ValueError, match="unknown aspect 'emotion'"):
        compare(FACES, [writer("rule")], "emotion")
    with pytest.raises(ValueError):
        measures(["a"], [])
