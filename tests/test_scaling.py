"The scaling run (paper 4.3): what is shared, one small run of all of it, and the verdict on captions whose order is known."
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import papermill
import pytest

from expblip import manifest, report, tables
from expblip.judging import au_references

ROOT = Path(__file__).resolve().parents[1]
KEPT = ('expblip', 'nbs/stages', 'data', 'settings.ini', 'pipeline.yaml', 'pyproject.toml', 'tools')


def tool():
    spec = importlib.util.spec_from_file_location('scaling_tool', ROOT / 'tools/scaling.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def mid(): return tool().plan(ROOT, 'planned', 'mid', 2, []).instances


def test_what_does_not_depend_on_the_pair_is_made_once(mid):
    labels = sorted(name.split('/')[1] for name in mid if name.startswith('shared/'))
    assert [name for name in labels if name.startswith(('encoder', 'lm', 'features', 'data', 'synth'))] == [
        'data', 'encoder-large', 'encoder-small', 'features-large', 'features-small', 'lm-large', 'lm-small', 'synthesize']
    for seed in (0, 1):
        mine = [name.split('/')[1] for name in mid if name.startswith(f'seed{seed}/')]
        assert sorted(name for name in mine if name.startswith('step1')) == [
            'step1-au-large', 'step1-au-small', 'step1-emot-large', 'step1-exp-large', 'step1-exp-small']
        assert sum(name.startswith('step2-au') for name in mine) == sum(name.startswith('step2-exp') for name in mine) == 4
        assert [name for name in mine if 'emot' in name and name.startswith('step2')] == ['step2-emot-large-large']
        for encoder in ('small', 'large'):
            for lm in ('small', 'large'):
                step2 = mid[f'seed{seed}/step2-exp-{encoder}-{lm}']
                assert step2.inputs['step1'] == [f'seed{seed}/step1-exp-{encoder}'] and step2.inputs['init'] == [f'shared/blip2-{encoder}-{lm}']
                assert step2.inputs['captions'] == [f'seed{seed}/fuse-exp']


def test_small_and_large_are_trained_alike(mid):
    "All that differs between the sizes is width, layers and what they read."
    def kept(name): return {k: v for k, v in mid[name].params.items() if k not in ('width', 'layers', *mid[name].places)}
    for stage in ('shared/encoder', 'shared/lm', 'seed0/step1-au', 'seed0/step1-exp'): assert kept(f'{stage}-small') == kept(f'{stage}-large')
    for model in ('au', 'exp'):
        assert len({json.dumps(kept(f'seed0/step2-{model}-{a}-{b}')) for a in ('small', 'large') for b in ('small', 'large')}) == 1
    assert mid['shared/encoder-small'].params['width'] < mid['shared/encoder-large'].params['width']
    assert mid['shared/lm-small'].params['width'] < mid['shared/lm-large'].params['width']


@pytest.mark.parametrize('said, word', [(['--seeds', '0'], 'give a number of seeds'), (['--run', '../evil'], 'use letters'),
                                         (['--run', 'reference-scaling'], 'what the repository keeps')])
def test_seeds_and_names_are_checked_first(said, word):
    got = subprocess.run([sys.executable, 'tools/scaling.py', *said], cwd=ROOT, capture_output=True, text=True)
    assert got.returncode == 2 and word in got.stderr and len(got.stderr) < 300


def test_a_wrong_parameter_is_refused(capsys):
    said = subprocess.run([sys.executable, 'tools/scaling.py', '-p', 'step2.stepz=3'], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 2 and 'stepz' in said.stderr and 'Traceback' not in said.stderr


# ---------------------------------------------------------------- the verdict


def told(stage, to, **parameters):
    how = dict(kernel_name='python3', progress_bar=False, cwd=ROOT)
    papermill.execute_notebook(ROOT / f'nbs/stages/{stage}.ipynb', to / f'{stage}.ipynb', parameters, **how)
    return json.loads((to / f'{stage}.ipynb').read_text())


@pytest.fixture(scope='module')
def judged(tmp_path_factory):
    "A scaling run whose captions are right more often with the larger encoder, and the same with either language model."
    run = tmp_path_factory.mktemp('runs') / 'scaling'
    run.mkdir()
    data, captions = run / 'shared/data', run / 'shared/synthesize'
    sizes = dict(bp4d='0', disfa='0', rafau='60', emotionet='0', affectnet='40', rafdb='0', faceme='0')
    told('10_data', run, out=str(data), **{name: int(count) for name, count in sizes.items()})
    told('20_synthesize', run, out=str(captions), records=str(data))
    records, labels = pd.read_parquet(data / 'records.parquet'), pd.read_parquet(captions / 'captions.parquet')
    test, right = records[records.split == 'test'], au_references(labels)
    for seed in range(3):
        for model in ('au', 'exp'):
            for encoder, share in (('small', .4), ('large', .9)):
                for lm in ('small', 'large'):
                    dice = random.Random(f'{seed}/{model}/{encoder}')
                    texts = [right[r][0] if r in right and dice.random() < share else 'The jaw drops.' for r in test.id]
                    rows = pd.DataFrame({'id': [f'{r}/{model}/greedy/predicted' for r in test.id], 'record': test.id, 'text': texts,
                                         'aspect': {'au': 'au', 'exp': 'expression'}[model], 'writer': 'model', 'use': 'predicted', 'model': model,
                                         'provenance': '{}', 'decode': 'greedy'})
                    folder = run / f'seed{seed}/caption-{model}-{encoder}-{lm}'
                    folder.mkdir(parents=True)
                    rows.to_parquet(folder / 'predictions.parquet')
    entry = {'name': 'tableS4/au/qformer/pooled/avg', 'value': .5, 'meaning': 'F1', 'low': .4, 'high': .6}
    (run / 'seed0/probe-au-small-small').mkdir(parents=True)
    (run / 'seed0/probe-au-small-small/results.json').write_text(json.dumps([entry]))
    tuned = entry | {'name': 'tableS6/au/qformer/fine_tuned/avg', 'value': .75}
    (run / 'seed0/finetune-au-small-small').mkdir(parents=True)
    (run / 'seed0/finetune-au-small-small/results.json').write_text(json.dumps([tuned, tuned | {'name': 'tableS8/au/qformer/fine_tuned/avg'}]))
    for lm, loss in (('small', 2), ('large', 1)):  # one name in stages of two sizes
        (run / f'seed0/step2-au-small-{lm}').mkdir()
        (run / f'seed0/step2-au-small-{lm}/results.json').write_text(json.dumps([{'name': 'step2/au/loss', 'value': loss, 'meaning': 'loss'}]))
    book = told('96_scaling', run, out=str(run / 'shared/scaling'), run=str(run), records=str(data))
    return run, book


def test_the_verdict_is_what_the_captions_say(judged):
    run, _ = judged
    said = pd.read_csv(run / 'shared/scaling/verdicts.csv')
    words = said.groupby('claim').verdict.agg(set).to_dict()
    assert words == {'encoder': {'holds'}, 'lm': {'does not hold'}, 'both': {'holds'}}
    assert (said[said.claim == 'encoder'].low > 0).all() and (said[said.claim == 'lm'][['difference', 'low', 'high']] == 0).all().all()
    assert set(said.seeds) == {3}
    scores = pd.read_csv(run / 'shared/scaling/scaling.csv').groupby(['model', 'encoder', 'lm']).meteor.mean()
    big, little = scores['au', 'large', 'small'], scores['au', 'small', 'small']
    row = said[(said.claim == 'encoder') & (said.model == 'au') & (said.figure == 'meteor') & (said.larger == 'large + small')].iloc[0]
    assert row.difference == pytest.approx(big - little) and row.low < row.difference < row.high


def test_the_report_and_the_tables_show_them(judged):
    "Its figures stand in the paper's rows of smaller sizes, seed by seed, and the small pair's probes are Table S2."
    run, _ = judged
    results = report.collect(run)
    board = report.board(results)
    assert list(board.loc['scaling/small/small/au/meteor'].index) == [0, 1, 2] and board.loc['scaling/small/small/au/meteor'].notna().all()
    two = report.table2(results).query("source != 'paper'").set_index(['model', 'image_encoder', 'llm'])
    for size in (('ViT-B', 'OPT-2.7B'), ('ViT-G', 'OPT-2.7B')): assert float(two.loc[('AU-BLIP', *size), 'rafau_meteor'].split()[0]) > 0
    art = tables.open_run(run)
    cells = tables.cells_of(art, '2').set_index(['row', 'column'])
    assert cells.loc[('AU-BLIP (ViT-B, OPT-2.7B)', 'rafau_meteor'), 'ours'] == pytest.approx(board.loc['scaling/small/small/au/meteor'].mean())
    shown = tables.sides(art, tables.cells_of(art, '2'))[-1][1]
    assert 'AU-BLIP (small encoder, small language model)' in shown.index
    assert tables.cells_of(art, 'S2').set_index(['row', 'column']).loc[('QFormer(AU)', 'avg'), 'ours'] == pytest.approx(50)
    assert tables.cells_of(art, 'S6').set_index(['row', 'column']).loc[('QFormer(AU) fine-tune', 'avg'), 'ours'] == pytest.approx(75)
    assert not tables.cells_of(art, 'S8')['ours'].notna().any(), 'that table is of the large encoder'
    assert not results['name'].str.startswith('step2/').any(), 'stages of several sizes are told by stage 96 alone'


def test_fine_tuning_of_the_small_encoder_goes_before_the_runs_own(judged, tmp_path):
    "Tables S6 and S7 are of the paper's small encoder; without a scaling run they show the run's own."
    run = shutil.copytree(judged[0], tmp_path / 'three')
    (run / 'seed0/finetune-au').mkdir()
    entry = {'name': 'tableS6/au/qformer/fine_tuned/avg', 'value': .25, 'meaning': 'F1'}
    (run / 'seed0/finetune-au/results.json').write_text(json.dumps([entry, entry | {'name': 'table3/blip2/image_encoder/fine_tuned/avg'}]))
    board = report.board(report.collect(run))
    assert board.loc[entry['name'], 0] == .75 and board.loc['table3/blip2/image_encoder/fine_tuned/avg', 0] == .25
    shutil.rmtree(run / 'shared/scaling')
    assert report.board(report.collect(run)).loc[entry['name'], 0] == .25


def test_the_page_of_a_scaling_run(judged):
    "Its own report: rows of all sizes, S2, S6, the verdict, and whose captions the examples are."
    run, _ = judged
    told('90_report', run, out=str(run / 'report'), run=str(run))
    page = (run / 'report/report.html').read_text()
    assert '<h2>Sizes</h2>' in page and 'seeds (0, 1, 2)' in page and 'AU-BLIP, small encoder, large language model' in page
    two = pd.read_csv(run / 'report/table2.csv').query("source != 'paper'").set_index(['model', 'image_encoder', 'llm'])['rafau_meteor']
    assert all(float(two['AU-BLIP', e, lm].split()[0]) > 0 for e, lm in (('ViT-B', 'OPT-2.7B'), ('ViT-G', 'OPT-2.7B'), ('ViT-G', 'OPT-6.7B')))
    shown = tables.sides(tables.open_run(run), tables.cells_of(tables.open_run(run), '2'))[-1][1]
    assert 'AU-BLIP (large encoder, large language model)' in shown.index
    claims = pd.read_csv(run / 'report/findings.csv').set_index('id')
    assert list(claims.index) == ['larger-encoder', 'larger-lm'], 'claims that it can say something of'
    assert claims.loc['larger-encoder', 'verdict'] == 'holds' and claims.loc['larger-lm', 'verdict'] == 'does not hold'
    assert (run / 'report/tableS6_1.csv').is_file() and not (run / 'report/tableS8_1.csv').exists()
    assert '<h2>Table 2</h2>' in page and not any(f'<h2>{name}' in page for name in ('Targets', 'Table 3', 'Table 4', 'Table 5', 'What the captions'))


def test_other_data_sets_are_not_judged_into_this_run(judged, tmp_path):
    run, _ = judged
    told('10_data', tmp_path, out=str(tmp_path / 'data'), bp4d=12, disfa=0, rafau=0, emotionet=0, affectnet=16, rafdb=0, faceme=0)
    told('96_scaling', tmp_path, out=str(tmp_path / 'scaling'), run=str(run), records=str(tmp_path / 'data'))
    assert 'is about other data sets' in json.loads((tmp_path / 'scaling/absent.json').read_text())['reason']


def test_without_truth_aus_that_nobody_lacks_count_nowhere(judged, tmp_path):
    "As in `judging`: naming an AU that is annotated as absent nowhere would always be right."
    run = shutil.copytree(judged[0], tmp_path / 'scaling')
    data = run / 'shared/data'
    (data / 'truth.parquet').unlink()
    records = pd.read_parquet(data / 'records.parquet')
    wild = records[(records.dataset == 'drawn-rafau') & (records.split == 'test')]
    assert any(25 in numbers for numbers in wild.au_present.dropna())
    records['au_absent'] = [None if kept is None else [int(number) for number in kept if number != 25] for kept in records.au_absent]
    records.to_parquet(data / 'records.parquet')
    told('96_scaling', tmp_path, out=str(tmp_path / 'out'), run=str(run), records=str(data))
    said = pd.read_csv(tmp_path / 'out/verdicts.csv').query("figure == 'au_f1'")
    scores = pd.read_csv(tmp_path / 'out/scaling.csv').groupby(['model', 'encoder', 'lm']).au_f1.mean()
    row = said[(said.claim == 'encoder') & (said.model == 'au') & (said.larger == 'large + small')].iloc[0]
    assert row.difference == pytest.approx(scores['au', 'large', 'small'] - scores['au', 'small', 'small'])


# ---------------------------------------------------------------- all of it, small


@pytest.mark.slow
def test_the_whole_of_it_at_smoke(tmp_path):
    for name in KEPT: (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    env = {**os.environ, 'PYTHONPATH': str(tmp_path), 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'agg', 'TOKENIZERS_PARALLELISM': 'false'}
    def run(): return subprocess.run([sys.executable, 'tools/scaling.py', '--scale', 'smoke'], cwd=tmp_path, env=env, capture_output=True, text=True)
    first = run()
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    made = tmp_path / 'outputs/scaling'
    names = {r['name'] for r in json.loads((made / 'shared/scaling/results.json').read_text())}
    assert {f'scaling/{a}/{b}/au/meteor' for a in ('small', 'large') for b in ('small', 'large')} <= names and any('tableS2' in n for n in names)
    start = [json.loads((made / f'shared/blip2-small-{lm}/config.json').read_text()) for lm in ('small', 'large')]
    assert start[0]['qformer'] == start[1]['qformer'] and start[0]['files']['lm/tokenizer.json'] == start[1]['files']['lm/tokenizer.json']
    assert any('tableS6' in n for n in names) and (made / 'report/report.html').is_file()
    told = pd.read_csv(made / 'report/provenance.csv')
    assert set(told.command) == {'python tools/scaling.py --scale smoke --seeds 1'} and told.figure.str.startswith('scaling/').any()
    assert start[1]['steps']['step1'] == 0 and manifest.read_manifest(made / 'shared/scaling')
    before = {p: p.stat().st_mtime_ns for p in made.rglob('manifest.json')}
    assert run().returncode == 0 and {p: p.stat().st_mtime_ns for p in made.rglob('manifest.json')} == before
