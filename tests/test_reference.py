"The committed reference run: whole, small, labelled, and what README and pages say of it is what it holds."
import hashlib
import html
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from expblip import findings, kinds, report

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / 'outputs' / 'reference'
SMALL = [RUN.with_name(f'reference-{name}') for name in ('scaling', 'finetuning')]  # of the same faces, for what the reference has not


@pytest.fixture(scope='module')
def board():
    flat = pd.DataFrame(json.loads((RUN / 'report' / 'results.json').read_text())).astype({'value': float, 'seed': 'Int64'})
    return report.board(flat[flat.stage != 'report'])


def test_its_tables_are_what_the_package_makes_of_its_figures(board):
    flat = pd.DataFrame(json.loads((RUN / 'report' / 'results.json').read_text())).astype({'value': float, 'seed': 'Int64'})
    results = flat[flat.stage != 'report'].reset_index(drop=True)
    tables = {'table1': report.table1(results), 'table2': report.table2(results), 'table5': report.table5(results)}
    tables |= {f'table{n}_{reading}': report.probe_table(results, n, reading) for n in (3, 4) for reading in ('pooled', 'flattened')}
    tables |= {'targets': findings.judge_targets(board), 'findings': findings.judge_findings(board, findings.all_findings()).drop(columns='compared')}
    assert [name for name, table in tables.items() if table.to_csv(index=False) != (RUN / 'report' / f'{name}.csv').read_text()] == []


def test_three_seeds_at_tiny(board):
    facts = json.loads((RUN / 'run.json').read_text())
    assert facts['scale'] == 'tiny' and list(board.columns) == [0, 1, 2] == facts['seeds']


def test_all_five_captioners_are_judged_on_every_seed(board):
    for model in findings.LABELS:
        for figure in ('au_f1_full', 'correctness', 'completeness'):
            assert board.loc[f'judge/drawn-rafau/{model}/greedy/{figure}'].notna().all()


def test_every_target_and_every_finding_is_answered(board):
    targets = findings.judge_targets(board)
    assert findings.UNKNOWN not in set(targets.result)
    verdicts = findings.judge_findings(board, findings.all_findings())
    assert set(verdicts.verdict) <= {findings.HOLDS, findings.FAILS, findings.OPEN} and (verdicts.verdict == findings.OPEN).mean() < 1


@pytest.mark.parametrize('run', [RUN, *SMALL], ids=lambda run: run.name)
def test_every_number_says_what_it_means(run):
    flat = json.loads((run / 'report' / 'results.json').read_text())
    assert flat and all({'name', 'value', 'seed', 'stage', 'meaning'} <= set(entry) and entry['meaning'] for entry in flat)
    assert html.escape(kinds.CAUTION) in (run / 'report' / 'report.html').read_text()


def test_it_was_made_in_one_go():
    "All that was trained comes from one commit, all captions were judged at one, and each notebook ran the same cells, modules and versions."
    made = [json.loads(p.read_text()) for p in RUN.glob('seed*/*/manifest.json')]
    made = [m for m in made if 'ablation' not in m['notebook']]
    judged = [m for m in made if m['stage'] in ('metrics', 'probe', 'attention', 'rating')]
    assert len({m['commit'] for m in made if m not in judged}) == len({m['commit'] for m in judged}) == 1 and len(made) == 3 * 32
    assert not any(m['commit'].endswith('+') for m in made)
    assert {m['seed'] for m in made} == {0, 1, 2}
    ran: dict[str, set[str]] = {}
    for m in made:
        what = [m['key']['code'], m['key']['modules'], m['versions'], m['machine']]
        ran.setdefault(m['notebook'], set()).add(json.dumps(what, sort_keys=True))
    assert ran and all(len(codes) == 1 for codes in ran.values()), [name for name, codes in ran.items() if len(codes) > 1]


@pytest.mark.parametrize('run, files', [(RUN, 31), (SMALL[0], 2), (SMALL[1], 2)], ids=lambda value: getattr(value, 'name', ''))
def test_what_is_committed_is_what_the_manifests_say(run, files):
    "Every committed output has the hash that its stage wrote down (notebooks are made smaller when a run is kept)."
    checked = 0
    for path in run.rglob('manifest.json'):
        for name, state in json.loads(path.read_text())['outputs'].items():
            if (kept := path.parent / name).is_file() and kept.suffix != '.ipynb':
                assert hashlib.sha256(kept.read_bytes()).hexdigest() == state['sha256'], kept
                checked += 1
    assert checked >= files  # of the reference: the logs of both steps of five models and three seeds, and the report's figures


def test_the_ablation_is_in_it():
    flat = json.loads((RUN / 'report' / 'results.json').read_text())
    found = {tuple(e['name'].split('/')[2:4]) for e in flat if e['name'].startswith('ablation/au/')}
    assert found == {('blip2', 'step1'), ('blip2', 'no_step1'), ('encoder', 'step1'), ('encoder', 'no_step1'), ('nothing', 'no_step1')}


@pytest.mark.parametrize('run, most', [(RUN, 10_000_000), *((run, 3_000_000) for run in SMALL)], ids=lambda value: getattr(value, 'name', ''))
def test_it_is_small_and_holds_no_weights(run, most):
    files = [p for p in run.rglob('*') if p.is_file()]
    assert sum(p.stat().st_size for p in files) < most
    assert {p.suffix for p in files} <= {'.json', '.jsonl', '.csv', '.html', '.jpg', '.ipynb', '.svg'}


# ---------------------------------------------------------------- the two beside it


@pytest.mark.parametrize('run', SMALL, ids=lambda run: run.name)
def test_the_small_runs_are_of_the_same_faces_and_seeds(run):
    said = [json.loads((one / 'shared/data/manifest.json').read_text())['content'] for one in (RUN, run)]
    assert said[0] == said[1]
    results = report.kept(run)
    assert report.seeds_of(results) == [0, 1, 2] == sorted(json.loads((run / 'run.json').read_text())['seeds'])
    made = {p: json.loads(p.read_text()) for p in run.rglob('manifest.json')}
    judged = ('metrics', 'probe', 'finetune', 'scaling', 'report')
    assert len({m['commit'] for m in made.values() if m['stage'] not in judged}) == 1 and not any(m['commit'].endswith('+') for m in made.values())
    for stage in judged: assert len({m['commit'] for m in made.values() if m['stage'] == stage}) <= 1, stage


def test_the_verdicts_on_sizes_follow_from_the_figures():
    "Worked out again from the figure of each pair of sizes and seed."
    results = report.kept(SMALL[0])
    board, known = report.board(results), results.set_index('name')['value']
    pairs = {'encoder': [('large/small', 'small/small'), ('large/large', 'small/large')],
             'lm': [('small/large', 'small/small'), ('large/large', 'large/small')], 'both': [('large/large', 'small/small')]}
    words = {findings.HOLDS: 1., findings.FAILS: 0.}
    for claim, sizes in pairs.items():
        for model in ('au', 'exp'):
            for figure in ('meteor', 'au_f1'):
                gaps = [[board.loc[f'scaling/{size}/{model}/{figure}'].to_numpy() for size in pair] for pair in sizes]
                said = words.get(findings.together([findings.verdict(*gap) for gap in gaps]))
                told = known[f'scaling/{claim}/{model}/{figure}/verdict']
                assert (said is None and pd.isna(told)) or said == told, (claim, model, figure)
                for pair, gap in zip(sizes, gaps):
                    name = f"scaling/{claim}/{model}/{figure}/{'-over-'.join(one.replace('/', '_') for one in pair)}"
                    assert known[name] == pytest.approx((gap[0] - gap[1]).mean(), abs=1e-6)
                    assert known[f'{name}/low'] <= known[name] <= known[f'{name}/high']


def test_every_finding_has_all_its_seeds():
    "With the small runs no claim of the paper is without a figure."
    more = [results[results['name'].str.contains('^scaling/|/fine_tuned/')] for results in map(report.kept, SMALL)]
    every = pd.concat([report.kept(RUN), *more]).drop_duplicates(['name', 'seed'], ignore_index=True)
    claims = findings.judge_findings(report.board(every), findings.all_findings())
    assert not claims['ours'].str.contains('not measured yet').any() and set(claims['seeds']) == {3}


def test_probes_of_the_start_are_nearly_the_same_in_both_runs():
    "The start is shipped and the faces are the same; on another machine a probe of two people's frames may turn on a few of them, others not."
    boards = [report.board(report.kept(run)) for run in (RUN, SMALL[1])]
    names = [f'table4/blip2/{part}/{reading}/avg' for part in ('image_encoder', 'qformer') for reading in ('pooled', 'flattened')]
    names += [f'table3/blip2/{part}/{reading}/emotion_accuracy' for part in ('image_encoder', 'qformer') for reading in ('pooled', 'flattened')]
    pd.testing.assert_frame_equal(*(board.loc[names] for board in boards), atol=.01, rtol=0)


def test_readme_shows_its_numbers():
    flat = json.loads((RUN / 'report' / 'results.json').read_text())
    found = [e['value'] for e in flat if e['name'] == 'judge/drawn-rafau/exp/greedy/au_f1_full']
    told = [line for line in (ROOT / 'README.md').read_text().splitlines() if line.startswith('| Exp-BLIP, AU-F1')]
    assert len(told) == 1 and f'{sum(found) / len(found):.2f}' in told[0]


def test_a_part_is_never_kept_in_place_of_the_reference(tmp_path):
    (tmp_path / 'seed0/x').mkdir(parents=True)
    (tmp_path / 'seed0/x/manifest.json').write_text('{}')
    (tmp_path / 'run.json').write_text('{"scale": "tiny", "seeds": [0]}'); (tmp_path / 'timings.json').write_text('[]')
    def keep(*more):
        command = [sys.executable, 'tools/keep_reference.py', str(tmp_path), *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    before = sorted(RUN.rglob('*'))
    assert keep('--only', 'x', str(tmp_path / 'kept')).returncode == 2 and keep('--only', 'x').returncode == 2 and sorted(RUN.rglob('*')) == before
    assert "no stage or table y" in keep(f'{tmp_path} kept', '--only', 'y').stderr
    other = tmp_path.with_name(f'{tmp_path.name} kept')
    assert keep(str(other), '--only', 'x').returncode == 0 and (other / 'seed0/x/manifest.json').is_file()
    other.joinpath('run.json').unlink()
    for target in (tmp_path, tmp_path / 'in', tmp_path.parent, other):  # the run itself, in it, around it, something that is no run
        assert keep(str(target)).returncode == 2 and (tmp_path / 'run.json').is_file() and (other / 'seed0').is_dir()


def test_a_run_is_kept_whole_or_not_at_all(tmp_path):
    (tmp_path / 'seed0' / 'x').mkdir(parents=True); (tmp_path / 'report').mkdir()
    kept = tmp_path.with_name(f'{tmp_path.name} kept')
    book = {'cells': [], 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}
    large = book | {'cells': [{'cell_type': 'markdown', 'metadata': {}, 'source': 'x' * 700_000}]}
    for name, text in {'run.json': '{"scale": "tiny", "seeds": [0]}', 'timings.json': '[]', 'seed0/x/manifest.json': '{}',
                       'seed0/x/notebook.ipynb': json.dumps(large), 'seed0/x/model.safetensors': 'w'}.items():
        (tmp_path / name).write_text(text)
    def keep():
        command = [sys.executable, 'tools/keep_reference.py', str(tmp_path), str(kept)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert keep().returncode == 1 and not kept.exists() and not kept.with_name(kept.name + '.new').exists()
    (tmp_path / 'seed0/x/notebook.ipynb').write_text(json.dumps(book))
    assert keep().returncode == 0
    assert sorted(p.name for p in kept.rglob('*') if p.is_file()) == ['manifest.json', 'notebook.ipynb', 'run.json', 'timings.json']
