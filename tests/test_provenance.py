"Where numbers come from, and two runs beside each other."
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expblip import comparison, provenance, report, tables
from expblip.io import write_json
from expblip.manifest import code_hash
from expblip.page import Page, facts_table, scaling_table

METEOR, F1 = 'table2/drawn-rafau/au/greedy/meteor', 'judge/drawn-rafau/au/greedy/au_f1_full'
ROOT = Path(__file__).resolve().parents[1]


def left(folder, instance, figures, params=None, versions=None, content='c' * 64, commit='a' * 40 + '+', modules=None):
    "What the pipeline leaves of one stage instance."
    stage = instance.split('/')[-1].split('-')[0]
    key = {'params': {'scale': 'tiny', **(params or {})}, 'modules': modules or {}, 'code': 'f' * 64}
    books = {'data': '10_data', 'metrics': '80_metrics', 'step2': '40_step2', 'caption': '50_caption', 'scaling': '96_scaling'}
    write_json(folder / instance / 'manifest.json', {
        'instance': instance, 'stage': stage, 'notebook': f'nbs/stages/{books[stage]}.ipynb', 'all_params': {'scale': 'tiny', 'device': 'auto'},
        'commit': commit, 'versions': {'torch': '2', **(versions or {})}, 'key': key, 'outputs': {}, 'content': content, 'seconds': 2.5,
        'timing': {}})
    write_json(folder / instance / 'results.json', [{'name': name, 'value': value, 'meaning': 'm'} for name, value in figures.items()])


def run_of(folder, gain=0., limit=None, seeds=(0, 1, 2), data='d' * 64, told='METEOR 1.5 jar', **more):
    left(folder, 'shared/data', {'table1/drawn-rafau/train/images': 40., 'table1/drawn-rafau/train/subjects': 4.}, content=data)
    for seed in seeds:
        values = {METEOR: .5 + seed / 50 + gain, F1: .8 + seed / 100}
        left(folder, f'seed{seed}/metrics', values, {'seed': seed} | ({'limit': limit} if limit else {}), **more)
        write_json(folder / f'seed{seed}/metrics/implementation.json', {'meteor': told})
    return folder


def test_a_number_leads_to_its_file_manifest_commit_and_command(tmp_path):
    run = run_of(tmp_path / 'toy', limit=50)
    results = report.collect(run)
    numbers = pd.DataFrame(provenance.Origin(run).numbers(report.table2(results), 'table2'))
    row = numbers[numbers.figure == METEOR].iloc[0]
    assert (row.shown, row.seeds, row.values[row.index.get_loc('values')]) == ('0.520 ± 0.020', '0 1 2', '0.5 0.52 0.54')
    assert row.manifest == 'seed{0,1,2}/metrics/manifest.json' and row.commit == 'a' * 40 + '+' and row.notebook == 'nbs/stages/80_metrics.ipynb'
    assert row.command == 'python -m expblip.pipeline run --run toy --scale tiny --seeds 0,1,2 --only metrics -p metrics.limit=50'
    assert provenance.found_again(run, row) == [.5, .52, .54]
    for seed in range(3):  # as the row says
        file = run / f'seed{seed}/metrics/results.json'
        assert json.loads(file.read_text())[0]['value'] == [.5, .52, .54][seed]


def test_every_number_of_a_page_is_told_and_found(tmp_path):
    "Tables, page and CSV agree line by line; one details a table, no script."
    run = run_of(tmp_path / 'toy')
    results = report.collect(run)
    page = Page('toy', run / 'report', provenance.Origin(run))
    shown = {'table1': report.table1(results), 'table2': report.table2(results), 'facts': facts_table(results), 'costs': report.costs(run)}
    for name, table in shown.items(): page.table(table, name)
    text, kept = page.write().read_text(), provenance.read_numbers(run / 'report')
    assert text.count('<details>') == 4 and '<script' not in text and text.count('<td title=') == len(kept)
    assert set(kept.table) == set(shown) and not kept.duplicated(['table', 'row', 'column']).any()
    for place, row in enumerate(kept.to_dict('records')):
        assert f'{row["figure"]}: provenance.csv, line {place + 2}' in text
        assert [repr(v) for v in provenance.found_again(run, row)] == row['values'].split()
        assert shown[row['table']][row['column']].iloc[row['row'] - 1] in (row['shown'], float(row['values'].split()[0]))
        assert all((run / path).is_file() for path in provenance.unfolded(row['manifest'])) and row['command']


def test_a_stage_run_by_hand_says_so(tmp_path):
    write_json(tmp_path / 'toy/seed0/metrics/results.json', [{'name': METEOR, 'value': .5, 'meaning': 'm'}])
    run = tmp_path / 'toy'
    numbers = provenance.Origin(run).numbers(report.table2(report.collect(run)), 'table2')
    assert [(n['manifest'], n['command'], n['shown']) for n in numbers] == [('', '', '0.500')]
    assert 'run by hand: no manifest' in provenance.details(numbers, 2, 'outputs/toy')


def test_settings_of_one_instance_are_repeated_for_it_alone(tmp_path):
    run = run_of(tmp_path / 'toy')
    for model, steps in (('au', 7), ('exp', 9)): left(run, f'seed0/step2-{model}', {}, {'steps': steps, 'model': model})
    assert sorted(provenance.overrides(run)) == ['step2-au.steps=7', 'step2-exp.steps=9']
    left(run, 'seed0/step2-exp', {}, {'steps': 7, 'model': 'exp'})
    assert provenance.overrides(run) == ['step2.steps=7']


def test_each_seed_is_made_again_with_its_own_settings(tmp_path):
    run = run_of(tmp_path / 'toy', limit=50, seeds=(0, 1, 2))
    for seed, steps in enumerate((7, 9, 7)): left(run, f'seed{seed}/step2-au', {}, {'steps': steps, 'model': 'au'})
    assert sorted(provenance.overrides(run)) == ['metrics.limit=50', *(f'seed{n}/step2-au.steps={steps}' for n, steps in enumerate((7, 9, 7)))]
    assert [sorted(provenance.overrides(run, seed=seed)) for seed in (0, 1)] == [['metrics.limit=50', f'step2.steps={n}'] for n in (7, 9)]
    numbers = provenance.Origin(run).numbers(report.table2(report.collect(run)), 'table2')
    call = 'python -m expblip.pipeline run --run toy --scale tiny --seeds {} --only metrics -p metrics.limit=50 -p step2.steps={}'
    assert numbers[0]['command'] == f'{call.format("0,2", 7)} && {call.format("1,", 9)}'
    left(run, 'seed1/step2-au', {}, {'model': 'au'})  # as usual
    assert provenance.overrides(run, seed=1) == ['metrics.limit=50']
    assert {'seed0/step2-au.steps=7', 'seed2/step2-au.steps=7'} < set(provenance.overrides(run))


def test_the_scaling_run_is_made_before_it_is_judged(tmp_path):
    run = run_of(tmp_path / 'toy')
    left(run, 'shared/scaling', {}, {'run': 'outputs/other'})
    rows = [{'name': 'scaling/small/small/au/meteor', 'value': seed / 10, 'seed': seed, 'meaning': 'm'} for seed in range(4)]
    write_json(run / 'shared/scaling/results.json', rows)
    numbers = pd.DataFrame(provenance.Origin(run).numbers(report.table2(report.collect(run)), 'table2')).set_index('figure')
    command = numbers.command[rows[0]['name']]
    assert command == ('python tools/scaling.py --seeds 4 --run other && '
                       'python -m expblip.pipeline run --run toy --scale tiny --only scaling -p scaling.run=outputs/other')
    assert 'tools/scaling.py' not in numbers.command[METEOR]
    write_json(tmp_path / 'other/run.json', {'command': 'python tools/scaling.py --scale smoke --seeds 4 --run other'})  # as it was asked for
    again = pd.DataFrame(provenance.Origin(run).numbers(report.table2(report.collect(run)), 'table2')).set_index('figure').command[rows[0]['name']]
    assert again.startswith('python tools/scaling.py --scale smoke --seeds 4 --run other && python -m expblip.pipeline run --run toy')
    write_json(run / 'run.json', {'command': 'python tools/scaling.py --seeds 4 --run toy'})  # the scaling run's own page
    own = pd.DataFrame(provenance.Origin(run).numbers(report.table2(report.collect(run)), 'table2'))
    assert set(own.command) == {'python tools/scaling.py --seeds 4 --run toy'}


def test_sizes_of_stage_96_on_the_page():
    pair = 'scaling/encoder/au/meteor/large_small-over-small_small'
    rows = [(pair, .1, 'meteor of AU-BLIP: a minus b, mean over 3 seeds'), (f'{pair}/low', .05, 'low end'), (f'{pair}/high', .15, 'high end'),
            ('scaling/encoder/au/meteor/verdict', 1., 'm')]
    table = scaling_table(pd.DataFrame([(n, v, pd.NA, 'scaling', m) for n, v, m in rows], columns=['name', 'value', 'seed', 'stage', 'meaning']))
    assert table.iloc[0].tolist() == ['encoder', 'AU-BLIP', 'meteor', 'large + small over small + small', '0.100', '0.050', '0.150',
                                      'mean over 3 seeds', 'holds']


@pytest.mark.parametrize('paths', [['seed0/my run/r.json', 'seed12/my run/r.json', 'shared/a b/r.json'], ['seed0/{x}, y\\\\/r.json', 'a{1}']])
def test_paths_with_blanks_and_braces_are_folded_and_unfolded(paths):
    import subprocess
    text = provenance.folded(paths)
    assert provenance.unfolded(text) == paths
    assert subprocess.run(['bash', '-c', f"printf '%s\\n' {text}"], capture_output=True, text=True).stdout.splitlines() == paths


def test_files_that_are_gone_are_named(tmp_path):
    row = {'figure': 'table2/x', 'results': 'seed0/metrics/results.json', 'command': 'python -m expblip.pipeline run --only metrics'}
    with pytest.raises(ValueError, match=r"seed0/metrics/results\.json: no such file.*made again by: python -m expblip"):
        provenance.found_again(tmp_path, row)
    with pytest.raises(ValueError, match=r'provenance\.csv: no such file: name the folder of a report'): provenance.read_numbers(tmp_path)


# ---------------------------------------------------------------- two runs


def opened(*runs): return [tables.open_run(run) for run in runs]


def test_difference_interval_and_what_was_changed(tmp_path):
    first = run_of(tmp_path / 'a', modules={'expblip.judging': '1' * 64})
    second = run_of(tmp_path / 'b', .1, modules={'expblip.judging': '2' * 64}, versions={'torch': '3'}, seeds=(0, 1, 2, 3), commit='b' * 40)
    a, b = opened(first, second)
    assert comparison.obstacles(a, b) == {}
    row = comparison.compared(a, b, '2').query("column == 'rafau_meteor'").iloc[0]
    assert row.difference == pytest.approx(.1) and row.low == pytest.approx(.1) and row.seeds == 3  # the fourth has no partner
    changed = comparison.changes(first, second).set_index(['kind', 'what'])
    assert changed.loc[('module', 'expblip.judging'), ['stages', 'first', 'second']].tolist() == ['metrics', '1' * 8, '2' * 8]
    assert changed.loc[('version', 'torch'), 'second'] == '3' and changed.loc[('seed', 'seeds'), 'second'] == '0 1 2 3'
    assert len(comparison.changes(first, first)) == 0


def test_a_parameter_that_one_seed_alone_has_otherwise(tmp_path):
    runs = [run_of(tmp_path / name) for name in 'ab']
    for run, first in zip(runs, (7, 5)):
        for seed, steps in enumerate((first, 9)): left(run, f'seed{seed}/step2-au', {}, {'steps': steps, 'seed': seed})
    assert comparison.changes(*runs).values.tolist() == [['parameter', 'steps', 'step2-au', 'seed0: 7, seed1: 9', 'seed0: 5, seed1: 9']]
    left(runs[1], 'seed0/step2-au', {}, {'seed': 0})
    assert comparison.changes(*runs)['second'].tolist() == ['seed0: none, seed1: 9']
    left(runs[1], 'seed2/step2-au', {}, {'steps': 1, 'seed': 2})  # the other run has no such seed
    left(runs[1], 'seed0/step2-au', {}, {'steps': 7, 'seed': 0})
    assert len(comparison.changes(*runs)) == 0
    for run, given in zip(runs, (True, False)): left(run, 'seed0/step2-exp', {}, {'steps': 3} if given else {})
    assert comparison.changes(*runs).values.tolist() == [['parameter', 'steps', 'step2-exp', '3', '']]


def test_another_number_of_images_forbids_every_score_against_references(tmp_path):
    cider = METEOR.replace('meteor', 'cider')
    runs = [run_of(tmp_path / name, limit=limit) for name, limit in (('a', 5), ('b', 9))]
    for run, limit in zip(runs, (5, 9)): left(run, 'seed0/metrics', {METEOR: .5, cider: .7}, {'seed': 0, 'limit': limit})
    a, b = opened(*runs)
    assert comparison.obstacles(a, b) == {name: f'{name}: of 5 and of 9 images a data set' for name in ('meteor', 'cider')}
    row = comparison.compared(a, b, '2').query("column == 'rafau_cider'").iloc[0]
    assert 'of 5 and of 9' in row.note and np.isnan(row.difference)


@pytest.mark.parametrize('seeds, near', [(2, 1e-6), (6, 1e-6), (11, 1e-6), (15, 1e-3), (40, 1e-4)])
def test_interval_against_scipy(seeds, near):
    from scipy.stats import ttest_rel
    rng = np.random.default_rng(seeds)
    one, two = rng.random((2, seeds))
    gap, low, high, n = comparison.paired(dict(enumerate(one)), dict(enumerate(two)))
    wanted = ttest_rel(two, one).confidence_interval()
    assert (gap, low, high, n) == (pytest.approx((two - one).mean()), pytest.approx(wanted.low, near), pytest.approx(wanted.high, near), seeds)


def test_the_papers_numbers_stand_beside_runs_on_its_data_alone(tmp_path, monkeypatch):
    a, b = opened(run_of(tmp_path / 'a'), run_of(tmp_path / 'b', .1))
    assert comparison.compared(a, b, '2')['paper'].isna().all()
    comparison.compare_runs(a.folder, b.folder, tmp_path / 'page')
    assert 'paper' not in pd.read_csv(tmp_path / 'page/table2.csv')
    monkeypatch.setattr(tables.Artefacts, 'comparable', True)
    assert comparison.compared(a, b, '2')['paper'].notna().any()


@pytest.mark.parametrize('other, word', [(dict(data='e' * 64), 'other faces'), (dict(told='METEOR 2.0'), 'METEOR 2.0'), (dict(limit=9), '9')])
def test_a_clear_word_where_runs_are_not_comparable(tmp_path, other, word):
    a, b = opened(run_of(tmp_path / 'a'), run_of(tmp_path / 'b', .1, **other))
    row = comparison.compared(a, b, '2').query("column == 'rafau_meteor'").iloc[0]
    assert word in row.note and np.isnan(row.difference) and row.second == pytest.approx(.62)
    text = comparison.compare_runs(a.folder, b.folder, tmp_path / 'page').read_text()
    assert word in text and ('NOT COMPARABLE' in text) == ('data' in other)


def test_other_data_sets(tmp_path):
    a, b = opened(run_of(tmp_path / 'a'), run_of(tmp_path / 'b'))
    left(b.folder, 'shared/data', {'table1/drawn-gft/train/images': 4.})
    assert 'only in b: drawn-gft' in comparison.obstacles(a, tables.open_run(b.folder))['']


@pytest.mark.parametrize('gone', ['a', 'b', 'ab'])
def test_without_the_manifest_of_the_data_nobody_can_tell(tmp_path, gone):
    runs = {name: run_of(tmp_path / name) for name in 'ab'}
    for name in gone: (runs[name] / 'shared/data/manifest.json').unlink()
    a, b = opened(*runs.values())
    why = comparison.obstacles(a, b)['']
    assert why.startswith('it cannot be told') and why.endswith('missing in ' + ' and '.join(gone))
    assert comparison.compared(a, b, '2')['difference'].isna().all()


def test_probes_trained_on_other_numbers_of_images(tmp_path):
    "Given in one run, the scale's in the other; what captions say may still be compared."
    probed = {'table4/au/qformer/pooled/AU1': .5}
    runs = [run_of(tmp_path / name) for name in 'ab']
    for run, given in zip(runs, ({}, {'probe_limit': 50})):
        for seed in range(3): left(run, f'seed{seed}/caption-au', probed, given)
    a, b = opened(*runs)
    assert comparison.obstacles(a, b) == {comparison.PROBES: 'probes: trained on 2000 and on 50 images a data set (0: all)'}
    assert comparison.compared(a, b, '2')['difference'].notna().any()
    row = comparison.compared(a, b, '4').query("column == 'AU1' and first == first").iloc[0]
    assert 'trained on 2000' in row.note and np.isnan(row.difference)
    for seed in range(3): left(runs[1], f'seed{seed}/caption-au', probed, {'probe_limit': 2000})
    assert comparison.obstacles(*opened(*runs)) == {}


def test_all_numbers_of_a_row_are_of_the_common_seeds(tmp_path):
    "A fourth seed of one run moves neither mean nor difference."
    runs = [run_of(tmp_path / 'a'), run_of(tmp_path / 'b', .1, seeds=(0, 1, 2, 40))]
    a, b = opened(*runs)
    row = comparison.compared(a, b, '2').query("column == 'rafau_meteor'").iloc[0]
    assert (row.first, row.second, row.difference) == pytest.approx((.52, .62, .1))
    assert (comparison.facts(a, b).eval('second - first - difference').abs() < 1e-9).all()


def test_the_command(tmp_path, capsys):
    runs = [str(run_of(tmp_path / name)) for name in 'ab']
    assert comparison.main([*runs, '--out', str(tmp_path / 'page')]) == 0 and (tmp_path / 'page/table2.csv').is_file()
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / 'page/report.html')], 'the file and nothing else'
    kept = pd.read_csv(tmp_path / 'page/table2.csv')
    assert {'a', 'b', 'difference'} <= set(kept)
    assert comparison.main([runs[0], runs[0]]) == 2 and 'this is one run, named twice' in capsys.readouterr().err
    assert comparison.main([runs[0], str(tmp_path / 'none')]) == 2 and 'Run it first' in capsys.readouterr().err


def test_the_notebook_of_two_runs(tmp_path):
    import papermill
    runs = [str(run_of(tmp_path / name, gain)) for name, gain in (('a', 0.), ('b', .1))]
    to = tmp_path / 'out.ipynb'
    parameters = dict(first=runs[0], second=runs[1], out=str(tmp_path / 'page'))
    papermill.execute_notebook(ROOT / 'nbs/tables/compare.ipynb', to, parameters, kernel_name='python3', progress_bar=False, cwd=ROOT)
    assert 'yes: the same data sets, test faces and metrics' in to.read_text() and (tmp_path / 'page/report.html').is_file()
    assert code_hash(to)  # a whole notebook
