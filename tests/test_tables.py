"The notebooks of nbs/tables, run by papermill."
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import papermill
import pytest

from expblip import counts, gallery, tables
from expblip import page as page_module
from expblip.datasets import write_fixtures
from expblip.io import write_json
from expblip.judging import judge
from expblip.kinds import FIXTURES
from expblip.records import RECORD_COLUMNS, write_captions, write_records, write_truth

ROOT = Path(__file__).resolve().parents[1]


def told(name, to, **parameters):
    "Everything that a table notebook shows."
    papermill.execute_notebook(ROOT / 'nbs' / 'tables' / f'{name}.ipynb', to, parameters, kernel_name='python3', progress_bar=False, cwd=ROOT)
    outputs = [o for c in json.loads(to.read_text())['cells'] for o in c.get('outputs', [])]
    data = [o.get('data', {}) for o in outputs]
    return '\n'.join(''.join(o.get('text') or one.get('text/markdown') or one.get('text/plain', '')) for o, one in zip(outputs, data))


def test_delivered_fixtures(tmp_path):
    shown = told('delivered', tmp_path / 'out.ipynb', root=str(write_fixtures(tmp_path / 'fixtures', n=24)), decode=True)
    assert 'absent: none' in shown and '16627' in shown and 'unverified format' in shown and 'unreadable' in shown
    assert 'SN001: 24, known 4845' in shown and '320 known sequences without labels' in shown


def test_what_was_delivered_says_what_is_absent(tmp_path):
    shown = told('delivered', tmp_path / 'out.ipynb', root=str(tmp_path / 'nothing'))
    assert 'found: none' in shown and shown.count('absent') > 8


# ---------------------------------------------------------------- tables and figures of a run

SETS = ('rafau', 'disfa', 'affectnet')
MODELS = ('blip2', 'au', 'emot', 'mix', 'cat', 'exp')
TEXTS = {'blip2': 'a face.', 'au': 'It is a people who lowers brow.', 'emot': 'The face shows anger.', 'mix': 'The face shows anger.',
         'cat': 'It is a people who lowers brow. The face shows anger.', 'exp': 'The lowered brow and a smirk suggest anger and fatigue'}


def figures(prefix):
    "What the stages would say: Table 2, 3, S2, S8, 5."
    rows = {f'table2/{prefix}{name}/{model}/greedy/{figure}': .4 for name in ('rafau', 'disfa' if prefix else 'gft') for model in MODELS
            for figure in ('meteor', 'rouge_l', 'minilm_sim', 'cider')}
    rows |= {f'table2/{prefix}rafau/blind/none/meteor': .25, f'table2/{prefix}rafau/au/greedy/ada_sim': .9}
    rows |= {f'{table}/{model}/{part}/pooled/{figure}': .5 for table in ('table3', 'table4', 'tableS4', 'tableS5', 'tableS8') for model in MODELS
             for part in ('image_encoder', 'qformer') for figure in ('AU1', 'avg', 'emotion_accuracy')}
    rows |= {f'tableS6/au/qformer/fine_tuned/{figure}': .6 for figure in ('AU1', 'avg')}
    rows |= {f'attention/au/{figure}': .7 for figure in ('hit', 'chance')}
    rows |= {f'table5/all/{model}/greedy/{figure}': value for model in ('mix', 'cat', 'exp')
             for figure, value in (('correctness', .8), ('most_complete', .3), ('least_complete', .4))}
    return [{'name': name, 'value': value, 'meaning': 'toy'} for name, value in rows.items()]


def small_run(folder, prefix='drawn-'):
    "A run of six faces that the stages might have left."
    names = [f'{prefix}{name}' for name in SETS for _ in range(2)]
    ids = [f'{name}/{i}' for i, name in enumerate(names)]
    data = folder / 'shared/data'
    records = pd.DataFrame({'id': ids, 'image': [f'images.npy:{i}' for i in range(6)], 'dataset': names, 'split': 'test',
                            'subject': None, 'sequence': None, 'frame': None,
                            'au_present': [[4]] * 4 + [None] * 2, 'au_absent': [[12]] * 4 + [None] * 2,
                            'emotions': [None] * 4 + [['anger']] * 2}, dtype=object)
    write_records(records[list(RECORD_COLUMNS)], data / 'records.parquet')
    np.save(data / 'images.npy', np.full((6, 16, 16, 3), 99, np.uint8))
    truth = pd.DataFrame({'id': ids, 'aus': [[4]] * 6, 'emotions': [['anger']] * 6}) if prefix else None
    said = pd.DataFrame([{'record': record, 'text': TEXTS[model] if i % 2 else 'The face shows', 'model': model, 'decode': 'greedy'}
                         for i, record in enumerate(ids) for model in MODELS])
    metrics = folder / 'seed0/metrics'
    write_json(metrics / 'results.json', figures(prefix))
    write_json(metrics / 'implementation.json', {'meteor': 'METEOR 1.5 jar'})
    judge(said, records, truth).to_parquet(metrics / 'judged.parquet')
    if prefix:
        write_truth(truth, data / 'truth.parquet')
    counts = {f'table1/{name}/test/{what}': 2. for name in dict.fromkeys(names) for what in ('images', 'subjects')}
    write_json(data / 'results.json', [{'name': name, 'value': value, 'meaning': 'toy'} for name, value in counts.items()])
    taught = pd.DataFrame({'record': ids, 'text': 'The lowered brow suggests anger.', 'aspect': 'expression'})
    for place in ('shared/synthesize', 'seed0/fuse-exp'):
        (folder / place).mkdir(parents=True, exist_ok=True)
        taught.to_parquet(folder / place / 'captions.parquet')
    return folder


@pytest.fixture(scope='module')
def drawn(tmp_path_factory): return small_run(tmp_path_factory.mktemp('runs') / 'drawn')


@pytest.fixture(scope='module')
def licensed(tmp_path_factory): return small_run(tmp_path_factory.mktemp('runs') / 'licensed', '')


def seen_in(name, place='tables', **parameters):
    "Run a notebook's cells in this process; what it shows."
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    shell, shown = InteractiveShell.instance(), []
    shell.reset()
    shell.display_formatter.active_types = shell.display_formatter.format_types
    for cell in json.loads((ROOT / f'nbs/{place}/{name}.ipynb').read_text())['cells']:
        if cell['cell_type'] != 'code': continue
        with capture_output() as got, pd.option_context('display.max_columns', None, 'display.width', 10_000):
            result = shell.run_cell(''.join(cell['source']))
        result.raise_error()
        found = [o.data for o in got.outputs] + [shell.display_formatter.format(result.result)[0]] * (result.result is not None)
        parts = [one.get('text/html') or one.get('text/markdown') or one['text/plain'] for one in found]
        shown += [got.stdout, *parts]
        if 'parameters' in cell['metadata'].get('tags', []): shell.user_ns.update(parameters)
    return '\n'.join(shown)


OF_RUNS = [path.stem for path in tables.notebooks()]


@pytest.mark.parametrize('name', OF_RUNS)
@pytest.mark.parametrize('kind', ['drawn', 'licensed'])
def test_every_table_and_figure_of_a_run(name, kind, request):
    "Each notebook runs on a run of drawn faces and on one of the paper's data, and leaves its result as CSV."
    folder = request.getfixturevalue(kind)
    shown = seen_in(name, run=str(folder))
    assert ('not comparable in level' in shown) == (kind == 'drawn')
    kept = pd.read_csv(folder / 'tables' / f'{name}.csv')
    assert len(kept) and f'{name}.csv' in shown
    if name.startswith('table'):
        assert list(kept) == list(tables.CELLS)
        fair = kind == 'licensed' and name in ('table1', 'table2', 'table3', 'table4', 'tableS4', 'tableS5', 'tableS6', 'tableS8')
        assert kept['difference'].notna().any() == fair
        assert ('Paper, ours, difference' in shown) == kept['difference'].notna().any()


def test_table2_compares_only_the_same_metric(licensed, drawn):
    cells = tables.cells_of(tables.open_run(licensed), '2').set_index(['row', 'column'])
    au = cells.loc['AU-BLIP (ViT-G, OPT-6.7B)']
    assert au.loc['rafau_meteor', 'difference'] == pytest.approx(.4 - .263) and au.loc['rafau_ada_sim', 'difference'] == pytest.approx(90 - 90.55)
    assert au.loc['rafau_minilm_sim', ['paper', 'difference']].isna().all() and au.loc['rafau_minilm_sim', 'ours'] == .4
    assert cells.loc['AU-BLIP (ViT-B, OPT-2.7B)', 'ours'].isna().all(), 'ours stands beside the largest sizes only'
    assert tables.cells_of(tables.open_run(drawn), '2')['difference'].isna().all()
    ours = tables.sides(tables.open_run(drawn), tables.cells_of(tables.open_run(drawn), '2'))[-1][1]
    assert not any('OPT' in row or 'ViT' in row for row in ours.index), 'our rows do not carry the names of large models'


def test_table5_says_who_judged(drawn, tmp_path):
    assert tables.NOBODY in seen_in('table5', run=str(drawn))
    folder = small_run(tmp_path / 'rated', '')
    write_json(folder / 'seed0/rating/results.json', [{'name': 'rating/human/exp/correctness', 'value': 7.0, 'meaning': 'toy'}])
    shown = seen_in('table5', run=str(folder))
    assert tables.NOBODY not in shown
    cells = tables.cells_of(tables.open_run(folder), '5')
    assert cells['difference'].dropna().tolist() == [pytest.approx(7 - 7.61)] and cells.loc[cells['difference'].notna(), 'judge'].item() == 'people'


def test_pictures_only_where_the_licence_allows(drawn, licensed):
    for name in ('figure5', 'failures'):
        assert '<img' in seen_in(name, run=str(drawn))
        shown = seen_in(name, run=str(licensed))
        assert '<img' not in shown and 'does not allow their pictures' in shown and re.search(r'(rafau|disfa|affectnet)/\d', shown)


def captioned(folder):
    "The same with predictions, as stage 50 leaves them."
    records = pd.read_parquet(folder / 'shared/data/records.parquet')
    more = {'text': 'It is a face.', 'aspect': 'au', 'writer': 'model', 'use': 'predicted', 'decode': 'greedy'}
    rows = [{'id': f'{record}/exp', 'record': record} | more for record in records['id']]
    write_captions(pd.DataFrame(rows), folder / 'seed0/caption-exp/predictions.parquet')
    return folder


def reported(folder, to):
    "The page that stage 90 makes of a run."
    seen_in('90_report', 'stages', run=str(folder), out=str(to))
    return (to / 'report.html').read_text()


def test_the_report_shows_no_face_that_was_lent(tmp_path):
    "Ids and captions instead; of the paper's sets, and of a set that a user's table names otherwise."
    page = reported(captioned(small_run(tmp_path / 'run', '')), tmp_path / 'out')
    under = page.split('<h2>Captions</h2>')[1].split('<h2>')[0]
    assert 'data:image' not in under and 'does not allow their pictures' in under
    assert 'It is a face.' in under and 'rafau, rafau/0; annotated' in under
    other = captioned(small_run(tmp_path / 'drawn'))
    assert page_module.examples(other)[0][0]['image'] is not None
    records = pd.read_parquet(other / 'shared/data/records.parquet')
    for name, shown in (('CK+', False), ('mine', True)):
        write_records(records.assign(dataset=name), other / 'shared/data/records.parquet')
        assert page_module.shows_faces(other) == shown == ('<img' in page_module.examples_html(page_module.examples(other)[0])), name
    assert not page_module.shows_faces(tmp_path / 'nothing') and not page_module.may_show([])


def test_fixtures_may_be_shown(tmp_path):
    folder = small_run(tmp_path / 'run', '')
    assert not page_module.shows_faces(folder)
    write_json(folder / 'shared/data/results.json', [{'name': FIXTURES, 'value': 1, 'meaning': 'toy'}])
    assert page_module.shows_faces(folder)


def test_a_run_of_lent_pictures_is_not_kept_as_the_reference(tmp_path):
    for prefix, code in (('', 1), ('drawn-', 0)):
        run = small_run(tmp_path / f'run{prefix}', prefix)
        write_json(run / 'run.json', {'scale': 'tiny', 'seeds': [0]})
        write_json(run / 'timings.json', [])
        write_json(run / 'shared/data/manifest.json', {})
        (run / 'shared/data/contact_sheet.jpg').write_bytes(b'faces')
        kept = tmp_path / f'kept{prefix}'
        got = subprocess.run([sys.executable, 'tools/keep_reference.py', str(run), str(kept)], cwd=ROOT, capture_output=True, text=True)
        assert got.returncode == code and kept.exists() == (not code), got.stderr
        assert ('lent' in got.stderr) == bool(code) and (kept / 'shared/data/contact_sheet.jpg').exists() == (not code)


def test_no_site_is_made_of_lent_pictures(tmp_path):
    for prefix, code in (('', 1), ('drawn-', 0)):
        run, target = small_run(tmp_path / f'run{prefix}', prefix), tmp_path / f'site{prefix}'
        got = subprocess.run([sys.executable, 'tools/stage_docs.py', str(target), str(run)], cwd=ROOT, capture_output=True, text=True)
        assert got.returncode == code and target.exists() == (not code) and ('lent' in got.stderr) == bool(code), got.stderr


def test_the_report_takes_differences_where_they_are_fair(tmp_path):
    "A row below ours in Tables 2 to 5, a column in Table 1; drawn faces stand apart from the paper instead."
    fair = small_run(tmp_path / 'fair', '')
    write_json(fair / 'seed0/rating/results.json', [{'name': 'rating/human/exp/correctness', 'value': 7.0, 'meaning': 'toy'}])
    page = reported(fair, tmp_path / 'out')
    assert 'other faces' not in page
    two = pd.read_csv(tmp_path / 'out/table2.csv').query("model == 'AU-BLIP' and source == 'difference'")
    assert (two['rafau_meteor'].item(), two['rafau_ada_sim'].item()) == ('+0.137', '-0.55')
    for name in ('table3_pooled', 'table4_pooled'):
        assert (pd.read_csv(tmp_path / f'out/{name}.csv')['source'] == 'difference').sum() > 5
    five = pd.read_csv(tmp_path / 'out/table5.csv').query("source == 'difference'")
    assert five['model'].tolist() == ['Exp-BLIP'] and float(five['correctness'].item()) == pytest.approx(7 - 7.61)
    assert five['lowest_completeness_percent'].isna().all()
    one = pd.read_csv(tmp_path / 'out/table1.csv').set_index(['dataset', 'split', 'source'])
    assert one.loc[('rafau', 'test', 'this run'), 'difference'] == 2 - 868
    page = reported(small_run(tmp_path / 'drawn'), tmp_path / 'apart')
    assert page.count('<caption>The paper.</caption>') == 7 == page.count('<caption>Drawn faces, not to be compared with the paper: other faces.')
    numbers = pd.read_csv(tmp_path / 'apart/provenance.csv').drop_duplicates(['table', 'row', 'column'])
    assert page.count('<td title=') == len(numbers) > 20, 'the numbers of both tables are told of'
    two = pd.read_csv(tmp_path / 'apart/table2.csv')
    assert 'difference' not in set(two['source']) and '90.00' in two['rafau_ada_sim'].tolist()


def test_a_part_of_the_pictures_is_not_the_same_data(tmp_path):
    folder = small_run(tmp_path / 'run', '')
    flat = [{'name': f'table1/{name}/test/images', 'value': value, 'meaning': 'toy'} for name, value in (('rafau', 868), ('gft', 40), ('disfa', 900))]
    write_json(folder / 'shared/data/results.json', flat)

    def heading(**params):
        made = {'stage': 'metrics', 'instance': 'seed0/metrics', 'notebook': 'nbs/stages/80_metrics.ipynb', 'key': {'params': params}, 'outputs': {}}
        write_json(folder / 'seed0/metrics/manifest.json', made)
        art = tables.open_run(folder)
        return tables.sides(art, tables.cells_of(art, '2'))[0][0], tables.sides(art, tables.cells_of(art, '3'))[0][0]

    whole = 'Paper, ours, difference (same data, same metric)'
    assert heading(scale='base') == heading(scale='smoke', limit=0) == (whole, whole)
    two, three = heading(scale='tiny', limit=300)
    assert '300 of 868 test pictures of rafau' in two and 'same data' not in two and 'gft' not in two and 'disfa' not in two and three == whole
    assert '50 of 868 test pictures of rafau' in heading(scale='base', limit=50)[0]
    assert '50 of 868 test pictures of rafau' in reported(folder, tmp_path / 'out').split('<h2>Table 2</h2>')[1].split('<h2>')[0]


def test_table1_of_the_reference():
    "Of its figures alone: records were not kept."
    cells = counts.set_cells(tables.open_run('outputs/reference'))
    assert set(cells['column']) == {'images', 'subjects'} and len(tables.sides(tables.open_run('outputs/reference'), cells)) == 2


def test_table1_of_a_run(drawn, licensed, tmp_path):
    fair = counts.set_cells(tables.open_run(licensed)).set_index(['row', 'column'])
    assert fair.loc[('RAF-AU, test', 'images'), ['ours', 'difference']].tolist() == [2, 2 - 868] and fair.loc[('RAF-AU, test', 'aus'), 'ours'] == 2
    assert fair.loc[('AffectNet, test', 'emotions'), 'ours'] == 1 and ('AffectNet, test', 'aus') not in fair.index
    apart = counts.set_cells(tables.open_run(drawn)).set_index(['row', 'column'])
    assert apart['difference'].isna().all() and apart.loc[('drawn-rafau, test', 'images'), 'ours'] == 2
    folder = small_run(tmp_path / 'mine')
    write_json(folder / 'seed0/metrics/results.json', [{'name': 'judge/mine/exp/greedy/words', 'value': 9, 'meaning': 'toy'}])
    write_json(folder / 'shared/data/results.json', [{'name': 'table1/mine/test/images', 'value': 6, 'meaning': 'toy'}])
    records = pd.read_parquet(folder / 'shared/data/records.parquet')
    write_records(records.assign(dataset='mine'), folder / 'shared/data/records.parquet')
    own = counts.set_cells(tables.open_run(folder)).set_index(['row', 'column'])
    assert own.loc['mine, test', 'ours'].to_dict() == {'images': 6, 'aus': 2, 'emotions': 1} and own['difference'].isna().all()


def test_figure5_ranks_only_what_was_scored():
    "A caption beyond `metrics.limit` has no METEOR; it is no failure."
    rows = pd.DataFrame({'record': list('abcd'), 'dataset': 'x', 'model': 'exp', 'meteor': [.9, .5, np.nan, .2]})
    assert gallery.best_and_worst(rows, count=1).values.tolist() == [['a', 'success', .9], ['d', 'failure', .2]]
    assert 'c' not in gallery.best_and_worst(rows, count=4)['record'].tolist()


def test_figure5_prefers_what_states_most_and_shows_no_text_twice():
    right, stated = [1., 1, 1, 0, 0, .5], [[], [4, 7], [4], [], [1], [2]]
    rows = pd.DataFrame({'record': list('abcdef'), 'dataset': 'x', 'model': 'exp', 'correctness': right, 'completeness': right,
                         'stated_aus': stated, 'text': ['at rest', 'two', 'one', 'at rest', 'wrong', 'half']})
    assert gallery.best_and_worst(rows, count=2)['record'].tolist() == ['b', 'c', 'e', 'f']


def test_another_emotion_and_none_are_two_failures():
    rows = pd.DataFrame({'record': list('abcd'), 'model': 'exp', 'text': 't', 'emotion_right': [1., 0, 0, np.nan],
                         'stated_emotions': [['fear'], ['anger'], [], ['fear']]})
    rows = pd.concat([rows, rows.assign(model='blip2', stated_emotions=[[]] * 4)])
    found = gallery.failure_cases(rows).set_index(['failure', 'model'])['share'].to_dict()
    assert found == {('wrong emotion', 'exp'): 1 / 2, ('no emotion', 'exp'): 1 / 3}


def test_figure6_takes_training_captions_of_the_seed_that_was_judged(tmp_path):
    "Of training images alone: validation images teach nothing."
    folder = small_run(tmp_path / 'nine')
    (folder / 'seed0').rename(folder / 'seed9')
    records = pd.read_parquet(folder / 'shared/data/records.parquet')
    write_records(records.assign(split=['train', 'val', 'test'] * 2), folder / 'shared/data/records.parquet')
    art = tables.open_run(folder)
    seed = gallery.judged_captions(art).attrs['seed']
    assert seed == 9 and len(gallery.training_captions(art, 'exp', seed)) == 2
    assert 'smirk' in seen_in('figure6', run=str(folder))


def test_figure6_marks_what_training_never_said(drawn):
    records = pd.read_parquet(drawn / 'shared/data/records.parquet')
    write_records(records.assign(split=['train'] * 3 + ['test'] * 3), drawn / 'shared/data/records.parquet')
    shown = seen_in('figure6', run=str(drawn))
    assert '<b style="color:#06c" title="action">smirk</b>' in shown and '<b style="color:#c00" title="emotion">fatigue</b>' in shown
    words = pd.read_csv(drawn / 'tables/figure6.csv').set_index('word')
    assert words.loc['smirk', 'kind'] == 'action' and 'anger' not in words.index and 'lowered' not in words.index


def test_failures_are_counted(drawn):
    seen_in('failures', run=str(drawn))
    found = pd.read_csv(drawn / 'tables/failures.csv').set_index(['failure', 'model'])
    assert found.loc[('cut off', 'exp'), 'share'] == 1 and found.loc[('cut off', 'au'), 'share'] == .5
    assert found.loc[('states nothing', 'blip2'), 'share'] == 1 and ('AUs missed', 'emot') not in found.index


def test_the_command_runs_them_all(drawn, tmp_path, capsys):
    given = []
    said = tables.run_all(drawn, lambda path, to, parameters, **more: given.append((path.stem, to.parent, parameters)))
    assert [name for name, *_ in given] == OF_RUNS and given[0][1:] == (drawn / 'tables', {'run': str(drawn)}) and set(said.values()) == {'made'}
    assert tables.main([str(tmp_path / 'nothing')]) == 2 and 'make paper RUN=nothing' in capsys.readouterr().err


def test_tables_without_their_artefacts_are_left_out_and_the_others_made(tmp_path, monkeypatch, capsys):
    "By papermill, three notebooks of a run that kept its figures and an absent stage, as photographs with AU labels alone leave them."
    folder = small_run(tmp_path / 'mine')
    (folder / 'seed0/fuse-exp/captions.parquet').unlink()
    write_json(folder / 'seed0/fuse-exp/absent.json', {'reason': 'no training image carries emotions'})
    keep = ('failures', 'figure6', 'table5')
    monkeypatch.setattr(tables, 'notebooks', lambda: [ROOT / f'nbs/tables/{name}.ipynb' for name in keep])
    assert tables.main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('failures: ') and lines[0].endswith('failures.ipynb') and lines[2].endswith('table5.ipynb'), lines
    assert lines[1] == 'figure6: left out: mine: no training captions of exp (fuse-exp/captions.parquet): no training image carries emotions', lines
    assert (folder / 'tables/table5.csv').is_file() and not (folder / 'tables/figure6.ipynb').exists()

    def broken(path, *rest, **more):
        raise ValueError('a real fault') if path.stem == 'table5' else tables.TableError('no judged captions')

    said = tables.run_all(folder, broken)
    left = 'left out: no judged captions'
    assert said == {'failures': left, 'figure6': left, 'table5': 'FAILED: ValueError: a real fault'}
    monkeypatch.setattr(tables, 'run_all', lambda run: said)
    assert tables.main([str(folder)]) == 1


def test_exact_correctness_is_on_the_papers_scale(drawn):
    "1 + 9 x the share of true statements, as `auto_rating` rates the sample: nothing true is 1, in the table, the report and beside another run."
    from expblip import comparison, report
    from expblip.auto_rating import score

    art = tables.open_run(drawn)
    cells = tables.cells_of(art, '5').query("column == 'correctness' and judge == 'exact truth, all test faces'")
    assert len(cells) == 3 and cells['ours'].tolist() == pytest.approx([1 + 9 * .8] * 3) and (cells[['times', 'plus']] == (9, 1)).all(axis=None)
    assert [round(report.ONE_TO_TEN[0] * p + report.ONE_TO_TEN[1]) for p in (0, .8, 1)] == [score(p) for p in (0, .8, 1)] == [1, 8, 10]
    shown = report.table5(art.results)
    assert shown.loc[shown['source'] == 'drawn faces, exact truth', 'correctness'].tolist() == ['8.20'] * 3
    assert set(shown.attrs['figures'].values()) >= {('table5/all/exp/greedy/correctness', 9.0, 1.0)}
    beside = comparison.compared(art, art, '5').query("column == 'correctness'")
    assert beside['first'].tolist() == pytest.approx([8.2] * 3)


def test_one_of_them_by_papermill(licensed, tmp_path):
    assert 'Paper, ours, difference' in told('table2', tmp_path / 'out.ipynb', run=str(licensed)) and (licensed / 'tables/table2.csv').exists()


@pytest.mark.parametrize('number', list(tables.TITLES))
def test_printed_tables_are_whole(number):
    "Numbers read from the PDF: the averages that are printed follow from the columns."
    table = tables.printed(number)
    assert len(table) >= 3 and table.iloc[:, 1:].notna().any(axis=None)
    if number in tables.SUPPLEMENT:
        assert len(table) in (11, 12, 14) and not table['model'].duplicated().any()
        assert (table.filter(like='AU').mean(axis=1) - table['avg']).abs().max() < .065
