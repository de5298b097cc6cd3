"""The paper's prompts: every word of them, and a hash that changes with any."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expblip.facs import AUS
from expblip.prompts import AU_PROMPT, FUSION_PROMPT, Template, au_prompt

calm = settings(deadline=None)  # a busy machine is no fault
TEXT = st.text(alphabet=st.characters(exclude_characters="{}", codec="utf-8"))


def test_prompts_are_the_papers():
    prompt = au_prompt([24, "AU10", 14, 17])
    assert all(f"AU{n}: {a.noun}\n" in prompt for n, a in AUS.items())
    assert "contains AU2, AU4, AU9, AU20, AU25 in 1-9 sentences" in prompt
    assert prompt.endswith("a face which contains AU10, AU14, AU17, AU24 in 1-9 sentences. Do not describe the emotion or facial expressions, "
                           "and do not mention 'AU' in the reply.\nAnswer:")
    assert 'Emotion Sentence: "b"' in FUSION_PROMPT.fill(au_text="a", emotion_text="b")


def test_the_words_are_pinned():
    "Recorded replies and provenance name these hashes: a changed word must be meant, and orphans what was recorded."
    assert (AU_PROMPT.label, FUSION_PROMPT.label) == ("au@2f5f39bd7da1", "fusion@72328fc2c135")


@calm
@given(st.sets(st.sampled_from(list(AUS)), min_size=1), st.randoms())
def test_a_set_of_aus_is_one_prompt(aus, chance):
    order = [f"AU{n}" if chance.random() < .5 else n for n in aus]
    chance.shuffle(order)
    assert au_prompt(order) == au_prompt(sorted(aus)) and au_prompt(order).count(f"AU{min(aus)}") >= 2


@calm
@given(TEXT, TEXT)
def test_the_hash_follows_the_text(first, second):
    assert (Template("t", first).hash == Template("u", second).hash) == (first == second)


@calm
@given(st.text(), st.text())
def test_values_stand_as_they_are(au_text, emotion_text):
    filled = FUSION_PROMPT.fill(au_text=au_text, emotion_text=emotion_text)
    assert f'"{au_text}"\nEmotion Sentence: "{emotion_text}"' in filled


@pytest.mark.parametrize("call, words", [
    (lambda: au_prompt([]), "NO_AU_CAPTION"), (lambda: au_prompt([3]), "unknown action unit 3"),
    (lambda: FUSION_PROMPT.fill(au_text="a"), "has the gaps au_text, emotion_text, not au_text"),
    (lambda: AU_PROMPT.fill(), "has the gaps aus, not none")])
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
