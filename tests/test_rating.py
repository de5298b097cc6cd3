"""Rating: the log under fire, the stage notebook from sample to CSV, the judge over a real client, and what the statistics must say."""
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chat_server import ChatServer, Handler, completion, status

from expblip import provenance, rating_analysis
from expblip.agreement import complete, fleiss_kappa, icc, interval_alpha
from expblip.auto_rating import LLMJudge, UnansweredJudge, exact_ratings, judge_question, label_lines, read_judgement, score
from expblip.chat import ChatClient
from expblip.rating import MODELS, RatingError, RatingLog, draw_sample, make_rating, next_item, read_ratings, read_sample, write_sample
from expblip.rating_analysis import agreement_table, compare, table5
from expblip.records import check_records, write_captions, write_records, write_truth

ROOT = Path(__file__).resolve().parents[1]
TEXTS = {'mix': 'It is a people who drops jaw.', 'cat': 'It is a people who pulls lip corner. The face shows happiness.',
         'exp': 'It is a people who pulls lip corner and separates lips. The face shows happiness.'}


def make_sample(n=12, **options):
    faces = pd.DataFrame({'id': [f'f{i}' for i in range(n)], 'dataset': ['a', 'b'] * (n // 2), 'image': 'images.npy:0'})
    said = pd.DataFrame([(face, model, 'greedy', text) for face in faces['id'] for model, text in TEXTS.items()],
                        columns=['record', 'model', 'decode', 'text'])
    truth = pd.DataFrame({'id': faces['id'], 'aus': pd.Series([[12, 25]] * n), 'emotions': pd.Series([['happiness']] * n)})
    return draw_sample(said, faces, **options), truth


# ---------------------------------------------------------------- the log

WRITER = """
import sys
from expblip.rating import *
sample, log = read_sample(sys.argv[1]), RatingLog(sys.argv[2])
for number in sample.faces(sys.argv[3]):
    log.append(make_rating(sample, sys.argv[3], number, [5, 6, 7], 'A', 'B'))
    print(number, flush=True)
"""


def test_processes_at_once_one_of_them_killed_and_everything_acknowledged_is_there(tmp_path):
    sample, _ = make_sample(150)
    write_sample(sample, tmp_path / 'sample.json')
    log = tmp_path / 'log.jsonl'
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    started = [subprocess.Popen([sys.executable, '-c', WRITER, str(tmp_path), str(log), f'r{i}'], stdout=subprocess.PIPE, text=True, env=env)
               for i in range(3)]
    told = [started[0].stdout.readline() for _ in range(20)]
    started[0].send_signal(signal.SIGKILL)
    told = [int(line) for line in told + started[0].stdout.readlines() if line.strip()]
    assert [len(other.communicate()[0].split()) for other in started[1:]] == [150, 150]
    started[0].wait()
    ratings = RatingLog(log).read(sample)
    kept = {rater: [one.item for one in ratings if one.rater == rater] for rater in ('r0', 'r1', 'r2')}
    assert len(kept['r1']) == len(kept['r2']) == 150 and 20 <= len(told) <= len(kept['r0']) < 150
    assert kept['r0'][:len(told)] == told == sample.faces('r0')[:len(told)]
    assert next_item(sample, 'r0', ratings) == sample.faces('r0')[len(kept['r0'])]


@pytest.mark.parametrize('cut', [1, 40, -2])
def test_a_line_torn_anywhere_costs_one_rating(tmp_path, cut):
    sample, _ = make_sample()
    log = RatingLog(tmp_path / 'log.jsonl')
    for number in (0, 1): log.append(make_rating(sample, 'anna', number, [1, 2, 3], 'A', 'B'))
    first, second = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(first + second[:cut])
    assert [one.item for one in log.read(sample)] == [0] and log.torn == 1
    log.append(make_rating(sample, 'anna', 1, [4, 5, 6], 'C', 'B'))
    assert [one.item for one in log.read(sample)] == [0, 1] and log.torn == 1
    assert log.path.read_bytes().startswith(first + second[:cut]), 'the log is only added to'


def test_a_rating_is_on_the_disk_before_the_next_face(tmp_path, monkeypatch):
    sample, _ = make_sample()
    seen = []
    monkeypatch.setattr(os, 'fsync', lambda file: seen.append(os.fstat(file).st_size))
    log = RatingLog(tmp_path / 'log.jsonl')
    log.append(make_rating(sample, 'anna', 0, [1, 2, 3], 'A', 'B'))
    assert seen == [log.path.stat().st_size] and seen[0] > 0


def test_logs_of_several_machines_and_another_sample(tmp_path):
    sample, _ = make_sample()
    other, _ = make_sample(seed=1)
    here, there = RatingLog(tmp_path / 'here.jsonl'), RatingLog(tmp_path / 'there.jsonl')
    here.append(make_rating(sample, 'anna', 0, [1, 2, 3], 'A', 'B'))
    time.sleep(1.1)  # the later one counts, whatever the files are called
    there.append(make_rating(sample, 'ben', 0, [1, 2, 3], 'A', 'B'))
    here.append(make_rating(sample, 'ben', 1, [1, 2, 3], 'A', 'B'))
    there.append(make_rating(sample, 'anna', 0, [9, 9, 9], 'A', 'B'))
    there.append(make_rating(other, 'anna', 3, [1, 1, 1], 'A', 'B'))
    ratings, torn = read_ratings(tmp_path, sample)
    found = sorted((one.rater, one.item, max(one.correctness.values())) for one in ratings)
    assert torn == 0 and found == [('anna', 0, 9), ('ben', 0, 3), ('ben', 1, 3)]


@pytest.mark.parametrize('change', [{'correctness': {'mix': 0, 'cat': 1, 'exp': 2}}, {'least': 'blip2'}, {'record': 'f99'}, {'item': 99},
                                    {'shown': ['mix', 'mix', 'exp']}, {'extra': 1}, {'item': -4}, {'item': True}, {'item': 0.0}, {'rater': None},
                                    {'rater': ['anna']}, {'when': None}, {'when': 'later'}, {'seconds': 'abc'}, {'seconds': float('nan')},
                                    {'shown': ['mix', 'cat']}, {'shown': ['mix', 'cat', 'exp', 'au']}, {'shown': 'turned'}])
def test_a_line_against_the_protocol_is_named(tmp_path, change):
    sample, _ = make_sample()
    log = RatingLog(tmp_path / 'log.jsonl')
    log.append(make_rating(sample, 'anna', 0, [1, 2, 3], 'A', 'B'))
    line = json.loads(log.path.read_text())
    if change == {'shown': 'turned'}: change = {'shown': line['shown'][::-1]}
    if 'item' in change and -4 <= change['item'] < 12: line['record'] = sample.items[int(change['item'])].record
    log.path.write_text(json.dumps(line | change) + '\n')
    with pytest.raises(RatingError, match=r'log\.jsonl, line 1: not a rating'):
        read_ratings(tmp_path, sample)


@pytest.mark.parametrize(('options', 'said'), [({'size': 0}, 'size 0'), ({'models': ('mix', 'cat')}, 'three different'),
                                               ({'models': ('mix', 'cat', 'exp', 'au')}, 'three different'),
                                               ({'models': ('mix', 'cat', 'cat')}, 'three different')])
def test_a_sample_that_cannot_be_is_refused(options, said):
    with pytest.raises(RatingError, match=said): make_sample(**options)
    faces = pd.DataFrame({'id': ['f0', 'f0'], 'dataset': 'a', 'image': 'images.npy:0'})
    rows = pd.DataFrame([('f0', model, 'greedy', text) for model, text in TEXTS.items()], columns=['record', 'model', 'decode', 'text'])
    with pytest.raises(RatingError, match="record 'f0' is in the records twice"): draw_sample(rows, faces)


def test_a_sample_has_the_same_faces_whoever_draws_it(tmp_path):
    sample, _ = make_sample(40, size=10)
    again, _ = make_sample(40, size=10)
    assert sample == again and len({item.record for item in sample.items}) == 10
    write_sample(sample, tmp_path / 'sample.json')
    assert read_sample(tmp_path) == sample
    orders = {sample.shown(f'r{i}', number) for i in range(40) for number in range(10)}
    assert len(orders) == 6 and len({tuple(sample.faces(f'r{i}')) for i in range(9)}) == 9


def test_of_two_tabs_with_one_face_the_first_blank_form_counts(tmp_path):
    from expblip.rating_page import Desk
    sample, _ = make_sample()
    desk = Desk(sample, RatingLog(tmp_path / 'log.jsonl'))
    assert desk.hand_in('anna', 0, [1, 2, 3], 'A', 'B', blank=True) == []
    assert 'in another window' in desk.hand_in('anna', 0, [9, 9, 9], 'A', 'B', blank=True)[0]
    assert max(desk.log.read(sample)[0].correctness.values()) == 3
    assert desk.hand_in('anna', 0, [9, 9, 9], 'A', 'B') == [] and max(desk.log.read(sample)[0].correctness.values()) == 9


def test_a_log_is_read_with_one_hash_of_the_sample(tmp_path, monkeypatch):
    "Every line is held against the sample's name, which must not be made anew for each."
    from expblip import rating
    sample, _ = make_sample(40)
    log, hashed, plain = RatingLog(tmp_path / 'log.jsonl'), [], rating.sha256_text
    monkeypatch.setattr(rating, 'sha256_text', lambda text: hashed.append(text) or plain(text))
    for number in range(20): log.append(make_rating(sample, 'anna', number, [1, 2, 3], 'A', 'B'))
    assert next_item(sample, 'anna', log.read(sample)) in range(20, 40) and len(hashed) == 1


def test_the_name_says_whose_captions_are_rated():
    "Equal texts of other models make another sample; the paper's three keep the name that logs carry."
    sample, _ = make_sample()
    items = tuple(replace(item, captions={'au': item.captions['mix'], **item.captions}) for item in sample.items)
    others = replace(sample, items=items, models=('au', 'cat', 'exp'))
    assert replace(sample, items=items).name == sample.name == 'f8829245e7b0' and others.name != sample.name


@pytest.mark.parametrize('pressed', ['hand_in', 'go_back'])
def test_a_tab_that_the_restarted_server_does_not_know_is_led_to_the_start(tmp_path, pressed):
    from expblip.rating_page import RESTARTED, Desk, build
    sample, _ = make_sample()
    log = RatingLog(tmp_path / 'log.jsonl')
    page = build(Desk(sample, log), lambda number: '')
    function, = {one.fn for one in page.fns.values() if one.name == pressed}
    updates = function({}, *[1, 2, 3, 'A', 'B'][:5 if pressed == 'hand_in' else 0])
    shown = [one['visible'] for one in updates if isinstance(one, dict) and 'visible' in one]
    assert shown == [True, False, False] and any(RESTARTED in one for one in updates if isinstance(one, str)) and not log.path.exists()


# ---------------------------------------------------------------- statistics

def test_published_examples():
    "Shrout and Fleiss 1979; Krippendorff 2011; Fleiss 1971 is in the notebook."
    assert [round(v, 4) for v in icc([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])] == [0.2898, 0.6201]
    ratings = ['123321412...', '1233224125.3', '.3332342251.', '12332441251.']
    assert round(interval_alpha(np.array([[np.nan if c == '.' else float(c) for c in row] for row in ratings]).T), 3) == 0.849


def test_constants_agree_on_nothing_and_large_scores_lose_no_digits():
    for value in (.1, 5, 1 / 3):
        assert np.isnan(icc(np.full((7, 3), value))).all() and np.isnan(interval_alpha(np.full((7, 3), value)))
    scores = np.random.default_rng(0).integers(1, 11, (9, 1)) + np.random.default_rng(1).integers(0, 3, (9, 4)).astype(float)
    assert np.isnan(interval_alpha(np.r_[scores, np.full((2, 4), .3)], [0] * 9 + [2, 3]))
    assert interval_alpha(scores + 1e8) == pytest.approx(interval_alpha(scores)) and icc(scores + 1e8) == pytest.approx(icc(scores))


def test_agreement_counts_only_faces_that_two_rated():
    sample, _ = make_sample()
    both = [('anna', number) for number in range(6)] + [('ben', number) for number in (5, 6, 7)]
    said = [make_rating(sample, rater, number, [1, 5, 9], 'A', 'B') for rater, number in both]
    one = agreement_table(said, sample, draws=20).set_index(['about', 'statistic'])
    assert one.loc['most_complete', 'units'].tolist() == [1] and one.loc[('correctness', 'interval_alpha'), 'units'] == 3
    assert one['low'].isna().all() and one['high'].isna().all()
    none = agreement_table([rating for rating in said if rating.item != 5], sample, draws=20)
    assert none[['value', 'low', 'high']].isna().all(None) and none['units'].eq(0).all()


def test_against_definitions_pair_by_pair():
    "Kappa and alpha once more, slowly, from their definitions, with gaps and weights."
    rng = np.random.default_rng(3)
    scores = rng.integers(1, 11, (30, 5)).astype(float)
    scores[rng.random(scores.shape) < .3] = np.nan
    weights = rng.integers(0, 3, 30)
    table = np.repeat(scores, weights, axis=0)
    units = [row[~np.isnan(row)] for row in table if (~np.isnan(row)).sum() > 1]
    values = np.concatenate(units)
    within = sum(sum((a - b) ** 2 for i, a in enumerate(u) for j, b in enumerate(u) if i != j) / (len(u) - 1) for u in units) / len(values)
    between = sum((a - b) ** 2 for i, a in enumerate(values) for j, b in enumerate(values) if i != j) / (len(values) * (len(values) - 1))
    assert interval_alpha(scores, weights) == pytest.approx(1 - within / between)
    picks = [rng.integers(0, 3, rng.integers(2, 7)) for _ in range(25)]
    same = np.mean([np.mean([a == b for i, a in enumerate(p) for j, b in enumerate(p) if i != j]) for p in picks])
    chance = sum(np.mean(np.concatenate(picks) == k) ** 2 for k in range(3))
    assert fleiss_kappa([[(p == k).sum() for k in range(3)] for p in picks]) == pytest.approx((same - chance) / (1 - chance))


def simulated(sample, rater, likes, noise=2.0):
    "A simulated rater, who is nobody."
    rng = np.random.default_rng(int(rater[-1]))
    out = []
    for item in sample.items:
        shown, felt = sample.shown(rater, item.number), dict(zip(MODELS, likes + noise * rng.normal(size=3)))
        order = sorted('ABC', key=lambda letter: felt[shown['ABC'.index(letter)]])
        out.append(make_rating(sample, rater, item.number, [int(np.clip(round(felt[model]), 1, 10)) for model in shown], order[2], order[0]))
    return out


def test_intervals_hold_what_is_true():
    "Over 40 studies of simulated raters the interval by faces holds the true mean about as often as it says."
    sample, _ = make_sample(30)
    held = []
    truth = np.mean(np.clip(np.round(5 + 2 * np.random.default_rng(0).normal(size=200_000)), 1, 10))
    for study in range(40):
        rng = np.random.default_rng(study)
        ratings = [make_rating(sample, 'sim', item.number, [int(np.clip(round(5 + 2 * rng.normal()), 1, 10)) for _ in 'ABC'], 'A', 'B')
                   for item in sample.items]
        row = table5(ratings, sample, 'simulated', 300, study).query("dataset == 'all' and figure == 'correctness' and model == 'cat'").iloc[0]
        held.append(row['item_low'] <= truth <= row['item_high'])
    assert 0.85 <= np.mean(held) <= 1


def test_faces_of_one_person_are_drawn_together():
    "Captions of some people are right, of others wrong: thirty faces of ten people are ten answers; of four people they are no interval."
    sample, _ = make_sample(30)
    good = {item.record: 9 if k % 10 < 5 else 2 for k, item in enumerate(sample.items)}
    ratings = [make_rating(sample, 'sim', item.number, [good[item.record]] * 3, 'A', 'B') for item in sample.items]

    def ends(people):
        row = table5(ratings, sample, 'simulated', 400, 0, people).query("dataset == 'all' and figure == 'correctness' and model == 'cat'").iloc[0]
        return row['item_low'], row['item_high']

    records = [item.record for item in sample.items]
    by_face, alone = ends(None), ends({})
    assert by_face == pytest.approx(alone, abs=.4) and np.ptp(ends({r: f'p{k % 10}' for k, r in enumerate(records)})) > 1.4 * np.ptp(by_face)
    assert np.isnan(ends({r: f'p{k % 4}' for k, r in enumerate(records)})).all()


def test_the_exact_rater_and_those_who_agree_with_it():
    sample, truth = make_sample()
    exact, ties = exact_ratings(sample, truth)
    assert ties == 0 and {(one.most, one.least) for one in exact} == {('exp', 'mix')}
    assert all(one.correctness == {'mix': 1, 'cat': 10, 'exp': 10} for one in exact)
    near, far = (compare(simulated(sample, 'sim1', np.array(likes)), exact, sample, 'simulated', 'exact', 0).set_index('figure')['value']
                 for likes in ([1, 9, 10.0], [10, 5, 1.0]))
    assert near['pearson'] > .8 > -.5 > far['pearson'] and near['same_least'] > .9 and far['same_least'] < .2


# ---------------------------------------------------------------- the judge

def test_half_a_point_goes_up():
    assert [score(right / 18) for right in (1, 3, 5, 7, 9, 15)] == [2, 3, 4, 5, 6, 9]
    assert all(score(right / n) == int(Fraction(3, 2) + 9 * Fraction(right, n)) for n in range(1, 40) for right in range(n + 1))


def test_ranks_are_those_of_the_draw():
    "Spearman's correlation of faces drawn anew, against scipy on the faces written out."
    from scipy.stats import spearmanr
    dice = np.random.default_rng(0)
    for _ in range(20):
        a, b, w = dice.integers(1, 6, 12).astype(float), dice.normal(size=12).round(1), dice.multinomial(12, [1 / 12] * 12).astype(float)
        drawn = w.astype(int)
        assert rating_analysis._spearman(a, b, w) == pytest.approx(spearmanr(a.repeat(drawn), b.repeat(drawn)).statistic)


def good(scores=(1, 8, 9), most='C', least='A'):
    return json.dumps({'correctness': dict(zip('ABC', scores)), 'most_complete': most, 'least_complete': least})


@pytest.mark.parametrize('text, why', [('', 'no JSON'), ('I am sorry', 'no JSON'), (good(most='A'), 'both the most'),
                                       (good((0, 1, 2)), 'no score from 1'),
                                       (good((1, 2.5, 3)), 'no score from 1'), (good((True, 2, 3)), 'no score from 1'), ('{"a": 1}', 'no JSON'),
                                       (good(least='D'), 'least complete'), (good()[:-5], 'no JSON'), ('[' * 50, 'no JSON')])
def test_replies_of_no_use(text, why):
    assert why in read_judgement(text)[3]


def answering(monkeypatch, tie='-', never='-'):
    "A server whose judge knows Exp from Mix, first names one caption twice for the face `tie`, and refuses the face `never`."
    plain = Handler.answer
    def reply(asked):
        text = asked['messages'][0]['content']
        if tie in text and len(asked['messages']) == 1: return good(most='B', least='B')
        if never in text: return 'I would rather not.'
        letter = {model: c for c in 'ABC' for model, words in TEXTS.items() if f'Caption {c}: "{words}"' in text}
        score = {letter['mix']: 1, letter['cat']: 9, letter['exp']: 9}
        return good([score[c] for c in 'ABC'], letter['exp'], letter['mix'])
    monkeypatch.setattr(Handler, 'answer', lambda self, what, asked, text:
                        self.send(completion(asked, reply(asked))) if what == 'ok' else plain(self, what, asked, text))
    monkeypatch.setenv('OPENAI_API_KEY', 'canary-key-0123456789')
    return ChatServer()


def test_the_judge_over_a_real_client_with_faults(tmp_path, monkeypatch):
    "A stub server: an overload, a tie that is asked about again with the reason, and a face given up; then from the store alone."
    sample, truth = make_sample(6)
    labels = {record: label_lines([12, 25], None, ['happiness']) + f'\nFace {record}' for record in truth['id']}
    judge = LLMJudge(None, 'tiny')
    with answering(monkeypatch, 'Face f0', 'Face f1') as server:
        first = sample.items[0]
        text = judge_question(first, sample.shown(judge.name, 0), labels[first.record], 'tiny', {}).messages[0][1]
        server.script = {text: [status(503, retry_after='0'), 'reset']}
        judge.asker = ChatClient(tmp_path / 'replies', server.url, max_retries=3, show=False)
        ratings = judge.rate(sample, labels)
        assert judge.asker.tally.retries == 2 and server.keys == {'Bearer canary-key-0123456789'}
    assert len(ratings) == 5 and 'f1' not in {one.record for one in ratings} and {one.rater for one in ratings} == {'llm:tiny'}
    assert all((one.most, one.least, one.correctness['mix']) == ('exp', 'mix', 1) for one in ratings)
    asked = pd.DataFrame(judge.asked)
    assert asked.loc[asked['record'] == 'f1', 'then'].tolist() == ['asked again', 'asked again', 'left out']
    assert asked.loc[asked['record'] == 'f0', ['attempt', 'then']].values.tolist() == [[0, 'asked again'], [1, 'accepted']]
    again = next(body for body in server.bodies if 'Face f0' in body['messages'][0]['content'] and len(body['messages']) == 3)
    assert 'Caption B cannot be both' in again['messages'][2]['content'] and again['temperature'] == 0
    held = compare(ratings, exact_ratings(sample, truth)[0], sample, 'llm', 'exact', 0).set_index('figure')['value']
    assert held['same_most'] == held['same_least'] == 1 and held['pearson'] > .95
    # the same once more costs nothing
    second = LLMJudge(ChatClient(tmp_path / 'replies', 'http://127.0.0.1:9/v1', show=False), 'tiny')
    assert [one.correctness for one in second.rate(sample, labels)] == [one.correctness for one in ratings]


def test_without_replies_nothing_is_invented(tmp_path, monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', 'canary-key-0123456789')
    sample, truth = make_sample(4)
    with ChatServer(default=status(400)) as server, pytest.raises(UnansweredJudge, match='4 of 4 questions got no reply'):
        LLMJudge(ChatClient(tmp_path, server.url, max_retries=0, show=False), 'tiny').rate(sample, dict.fromkeys(truth['id'], 'Emotion: fear'))


# ---------------------------------------------------------------- the stage

@pytest.fixture
def project(tmp_path, monkeypatch):
    "Drawn test faces with captions of three models, in a project of their own."
    (tmp_path / 'data').mkdir()
    for name in ('settings.ini', 'data/prices.csv'): (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    rows = [{'id': f'f{i}', 'image': f'images.npy:{i}', 'dataset': 'drawn-a' if i % 3 else 'drawn-b', 'split': 'test',
             'au_present': [12], 'au_absent': [4], 'emotions': None} for i in range(12)]
    records = check_records(pd.DataFrame(rows))
    write_records(records, tmp_path / 'outputs/data/records.parquet')
    truth = pd.DataFrame({'id': records['id'], 'aus': pd.Series([[12, 25]] * 12), 'emotions': pd.Series([['happiness']] * 12)})
    write_truth(truth, tmp_path / 'outputs/data/truth.parquet')
    for model, text in TEXTS.items():
        said = pd.DataFrame({'id': f'{model}/' + records['id'], 'record': records['id'], 'text': text, 'aspect': 'expression', 'writer': 'model',
                             'use': 'predicted', 'model': model, 'provenance': '', 'decode': 'greedy'})
        write_captions(said, tmp_path / f'outputs/{model}/predictions.parquet')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MPLBACKEND', 'agg')
    return tmp_path


def play(**params) -> dict:
    "Run the stage notebook's cells here; its variables."
    names = {}
    for cell in json.loads((ROOT / 'nbs/stages/88_rating.ipynb').read_text())['cells']:
        if cell['cell_type'] == 'code':
            try: exec(''.join(cell['source']), names)
            except SystemExit: break
            names |= params if 'parameters' in cell['metadata'].get('tags', []) else {}
    return names


STAGE = {'records': 'outputs/data', 'predictions': ['outputs/mix', 'outputs/cat', 'outputs/exp'], 'out': 'outputs/rating', 'draws': 100, 'size': 8}


def test_the_stage_before_and_after_people_rate(project, monkeypatch):
    play(**STAGE)
    out = project / 'outputs/rating'
    first, sample = (out / 'sample.json').read_bytes(), read_sample(out)
    table = pd.read_csv(out / 'rating.csv')
    assert set(table['source']) == {'exact'} and len(sample.items) == 8 and sample.drawn and len(pd.read_csv(out / 'agreement.csv')) == 0
    at = table[table['dataset'] == 'all'].set_index(['model', 'figure'])['value']
    assert at['exp', 'most_complete'] == at['mix', 'least_complete'] == 1 and at['mix', 'correctness'] == 1 and at['cat', 'correctness'] == 10
    log = RatingLog(project / sample.ratings / 'here.jsonl')
    for rater in ('sim1', 'sim2', 'sim3'):
        for rating in simulated(sample, rater, np.array([2, 6, 9.0])): log.append(rating)
    with answering(monkeypatch) as server:
        play(**STAGE, llm_model='tiny', base_url=server.url, price='local')
        asked = server.total  # the same captions in the same order are asked about once
        assert 3 <= asked <= 6
        play(**STAGE, llm_model='tiny')  # from the recording
        assert server.total == asked
    assert (out / 'sample.json').read_bytes() == first
    table = pd.read_csv(out / 'rating.csv')
    assert table.groupby('source')[['items', 'raters', 'ratings']].max().to_dict('index') == {
        'exact': {'items': 8, 'raters': 1, 'ratings': 8}, 'human': {'items': 8, 'raters': 3, 'ratings': 24},
        'llm': {'items': 8, 'raters': 1, 'ratings': 8}}
    human = table[(table['source'] == 'human') & (table['dataset'] == 'all')]
    assert (human['item_low'] <= human['value']).all() and (human['value'] <= human['item_high']).all() and human['rater_low'].notna().all()
    assert human.groupby('figure')['value'].sum()[['most_complete', 'least_complete']].round(9).tolist() == [1, 1]
    assert list(pd.read_csv(out / 'agreement.csv')['statistic']) == ['fleiss_kappa', 'fleiss_kappa', 'interval_alpha', 'icc_2_1', 'icc_2_k']
    pairs = pd.read_csv(out / 'comparison.csv')
    assert set(zip(pairs['source'], pairs['against'])) == {('llm', 'human'), ('llm', 'exact'), ('exact', 'human')}
    assert pairs[(pairs['against'] == 'exact') & (pairs['figure'] == 'same_most')]['value'].item() == 1
    assert not any(b'canary' in path.read_bytes() for path in project.rglob('*') if path.is_file())
    flat = {row['name']: row['value'] for row in json.loads((out / 'results.json').read_text())}
    assert flat['rating/exact/exp/most_complete'] == 1 and 'rating/human/agreement/correctness/icc_2_1' in flat


def test_what_the_report_shows_of_agreement_and_intervals(project):
    "Of two seeds: the values are those of results.json, so that provenance finds them, and each seed has its interval."
    folders = [project / f'outputs/toy/seed{seed}/rating' for seed in range(2)]
    for seed, folder in enumerate(folders):
        play(**STAGE | {'out': str(folder.relative_to(project)), 'seed': seed})
        sample, logs = read_sample(folder), RatingLog(project / f'data/user/ratings/{seed}.jsonl')
        for rater in ('sim1', 'sim2', 'sim3'):
            for rating in simulated(sample, rater, np.array([2, 6, 9.0])): logs.append(rating)
        play(**STAGE | {'out': str(folder.relative_to(project)), 'seed': seed})
    origin = provenance.Origin(project / 'outputs/toy')
    agreed, sure = (function(folders) for function in (rating_analysis.agreement_report, rating_analysis.interval_report))
    # the kappas of whoever always chooses alike have no value, and no row
    assert agreed['who'].value_counts().to_dict() == {'the truth with people': 5, 'people with each other': 5}
    for table in (agreed, sure):
        told = origin.numbers(table, 'table')
        assert len(told) == len(table) and all(len(row['values'].split()) == 2 for row in told)
    for row in told:
        mean = np.mean([float(value) for value in row['values'].split()])
        assert float(row['shown'].split()[0]) == pytest.approx(row['times'] * mean, abs=.0051)
    one = agreed.query("statistic == 'icc_2_1'").iloc[0]
    assert one['95 % interval'].count(' to ') == 2 and (one['units'], one['raters']) == ('24', '3')
    assert set(sure['source']) == {'people', 'the truth'} and (sure['faces'] == '8').all()
    assert (sure['raters resampled'] != '').eq(sure['source'] == 'people').all()


def test_the_price_of_the_judge_is_said_and_nobody_asked(project, capsys):
    play(**STAGE, llm_model='gpt-4o-mini', dry_run=True)
    assert 'gpt-4o-mini: 8 questions, ' in capsys.readouterr().out
    assert set(pd.read_csv(project / 'outputs/rating/rating.csv')['source']) == {'exact'}


def test_without_the_three_models_the_stage_is_absent(project):
    play(**STAGE | {'predictions': ['outputs/mix', 'outputs/cat']})
    assert 'no record has captions of all of mix, cat, exp' in json.loads((project / 'outputs/rating/absent.json').read_text())['reason']


def test_agreement_of_nothing_and_of_no_table():
    for none in ([], np.zeros((0, 3)), [[]]):
        assert np.isnan(fleiss_kappa(none)) and np.isnan(interval_alpha(none)) and np.isnan(icc(none)).all() and complete(none).size == 0
    for one in (fleiss_kappa, interval_alpha, icc, complete):
        with pytest.raises(ValueError, match=r"of shape \(3,\): give a table \[units, "): one([1, 2, 3])
        with pytest.raises(ValueError, match="one row a unit"): one(np.zeros((2, 2, 2)))
