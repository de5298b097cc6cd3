"`make paper DATA=fixtures`: the eight data sets, as their owners deliver them, go through the whole graph to the paper's tables."
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_photographs import copied, environment

from expblip.report import NO_F1, NOT_YET

pytestmark = pytest.mark.slow
SETS = {'bp4d', 'disfa', 'gft', 'rafau', 'emotionet', 'affectnet', 'rafdb', 'faceme'}


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> Path:
    root = copied(tmp_path_factory.mktemp('project'))
    fixtures = "from expblip.datasets import write_fixtures; write_fixtures('data/user/fixtures', n=24)"
    subprocess.run([sys.executable, '-c', fixtures], cwd=root, env=environment(root), check=True)
    command = [sys.executable, '-m', 'expblip.pipeline', 'run', '--run', 'fixtures', '--scale', 'smoke', '--data', 'data/user/fixtures',
               '-p', 'caption.decode=greedy', '-p', 'features.views=1']
    got = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    out = root / 'outputs' / 'fixtures'
    assert got.returncode == 0 and not [*out.rglob('*.failed.ipynb')], got.stdout[-6000:] + got.stderr[-3000:]
    return out


def test_every_set_is_read_and_what_cannot_be_used_is_listed(run):
    records = pd.read_parquet(run / 'shared/data/records.parquet')
    assert set(records['dataset']) == SETS
    gone = pd.read_csv(run / 'shared/data/left_out.csv')
    assert gone['fault'].str.contains('cannot be read').sum() >= 5 and not set(gone['id']) & set(records['id'])
    captioned = {path.parent.name.removeprefix('caption-') for path in run.glob('seed0/caption-*/predictions.parquet')}
    assert captioned == {'au', 'emot', 'mix', 'cat', 'exp', 'blip2'}


def test_the_papers_tables_are_filled_and_say_what_these_faces_are(run):
    page = (run / 'report/report.html').read_text()
    assert 'Drawn fixtures in the official formats' in page and 'unverified format' in page.lower()
    names = {row['name'] for row in json.loads((run / 'report/results.json').read_text())}
    assert {'table2/rafau/au/greedy/meteor', 'table2/gft/au/greedy/meteor', 'table3/exp/qformer/pooled/avg',
            'table3/exp/qformer/pooled/emotion_accuracy', 'table4/exp/qformer/pooled/avg'} <= names
    table = pd.read_csv(run / 'report/table1.csv')
    assert (table['source'] == 'drawn fixtures in official formats').sum() == 2 * 8 - 1, 'train and test of each set; FaceME has no test'
    ours = table[table['source'] != 'paper']
    sampled = {(name.split(',')[0].lower(), split): word for name, split, word in zip(ours['dataset'], ours['split'], ours['sampled'])}
    assert [sampled[name, split] for name in ('bp4d', 'disfa') for split in ('train', 'test')] == ['yes', 'no'] * 2


def test_the_report_claims_no_model_or_picture_that_is_not_the_runs_own(run):
    page = (run / 'report/report.html').read_text()
    two, three = pd.read_csv(run / 'report/table2.csv'), pd.read_csv(run / 'report/table3_pooled.csv')
    ours = two[two['source'] != 'paper']
    assert not set(ours['llm']) & {'OPT-6.7B'} and 'LM of drawn-blip2' in set(ours['llm'])
    assert not three[three['source'] != 'paper']['model'].str.contains('ViT-G').any()
    gone, kept = pd.read_csv(run / 'shared/data/left_out.csv'), pd.read_parquet(run / 'shared/data/records.parquet')
    assert f'Left out: {len(gone)} of {len(gone) + len(kept)} pictures: ' in page and 'empty file' in page
    assert f'Pictures by how the face was cut out: {len(kept)} uncut (squeezed to a square).' in page
    assert 'the paper counts pictures with any of 85 labels' in page


def test_averages_leave_the_same_aus_out_in_every_row_and_say_which(run):
    page, table = (run / 'report/report.html').read_text(), pd.read_csv(run / 'report/table4_pooled.csv')
    ours = table[table['source'] != 'paper']
    assert (ours == NO_F1).any(axis=None) and not ((ours == NOT_YET).any(axis=1) & (ours['avg'] != NOT_YET)).any()
    assert 'Without F1 in every row, and in no average: AU' in page and 'Rows average over different AUs' not in page


def test_all_captions_lie_open(run):
    page, table = (run / 'report/report.html').read_text(), pd.read_csv(run / 'seed0/caption-au/predictions.csv')
    full = pd.read_parquet(run / 'seed0/caption-au/predictions.parquet')
    assert list(table) == ['id', 'model', 'decode', 'caption'] and set(table['model']) == {'au'}
    assert table['id'].tolist() == full['record'].tolist() and table['caption'].fillna('').tolist() == full['text'].tolist()
    assert 'outputs/fixtures/seed0/caption-*/predictions.csv' in page
