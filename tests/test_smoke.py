"""Every stage at `scale=smoke`, through the command that users call, in a copy of the project with an outputs folder of its own; a few by hand."""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from expblip.provenance import found_again, read_numbers, unfolded

ROOT = Path(__file__).resolve().parents[1]
KEPT = ('expblip', 'nbs/stages', 'nbs/tables', 'data', 'settings.ini', 'pipeline.yaml', 'dodo.py', 'pyproject.toml')
EXTRA = ('blip2', 'ablation', 'chat', 'start', 'mae', 'finetune')  # targets outside the default; blip2 needs encoder and lm
pytestmark = pytest.mark.slow

def module(root: Path, *args: str) -> subprocess.CompletedProcess:
    "`python -m ...`, run in `root` (whose package is the one that is imported)."
    env = {**os.environ, 'PYTHONPATH': str(root), 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'agg', 'TOKENIZERS_PARALLELISM': 'false'}
    return subprocess.run([sys.executable, '-m', *args], cwd=root, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)

def pipeline(root: Path, *args: str) -> subprocess.CompletedProcess: return module(root, 'expblip.pipeline', *args)

def by_hand(root: Path, stage: str, **params: str) -> Path:
    "One stage with plain papermill; what was executed."
    to = root / f'{stage}.executed.ipynb'
    options = [x for name, value in params.items() for x in ('-p', name, value)]
    got = module(root, 'papermill', f'nbs/stages/{stage}.ipynb', str(to), *options, '--no-progress-bar')
    assert got.returncode == 0, got.stdout[-3000:] + got.stderr[-6000:]
    return to

@pytest.fixture(scope='module')
def project(tmp_path_factory) -> Path:
    "What a run needs, without outputs."
    root = tmp_path_factory.mktemp('project')
    for name in KEPT:
        source = ROOT / name
        if source.is_dir(): shutil.copytree(source, root / name, ignore=shutil.ignore_patterns('__pycache__', 'user'))
        elif source.exists(): shutil.copy(source, root / name)
    return root

@pytest.fixture(scope='module')
def smoke(project) -> tuple[Path, str]:
    "The run folder, and what the command printed."
    only = [x for target in ('report', *EXTRA) for x in ('--only', target)]
    got = pipeline(project, 'run', '--run', 'smoke', '--scale', 'smoke', '--seeds', '1', *only)
    assert got.returncode == 0, got.stdout[-6000:] + got.stderr[-3000:]
    return project / 'outputs' / 'smoke', got.stdout

def manifests(run: Path) -> dict[str, dict]:
    return {m['instance']: m for m in (json.loads(p.read_text()) for p in sorted(run.rglob('manifest.json')))}

def test_every_stage_ran(smoke):
    "Each instance leaves its executed notebook, its outputs and a manifest; nothing failed or half-done lies about."
    run, out = smoke
    found = manifests(run)
    assert {m['stage'] for m in found.values()} == set(yaml.safe_load((ROOT / 'pipeline.yaml').read_text())['stages'])
    assert {m['notebook'] for m in found.values()} == {f'nbs/stages/{p.name}' for p in (ROOT / 'nbs/stages').glob('*.ipynb')}
    for name, m in found.items():
        assert (run / name / 'notebook.ipynb').exists() and m['seconds'] >= 0
        assert m['outputs'] and all((run / name / f).stat().st_size == s['size'] for f, s in m['outputs'].items() if 'size' in s)
    assert not [*run.rglob('*.failed.ipynb'), *run.rglob('*.running.ipynb'), *run.rglob('running.json'), *run.rglob('resume')]
    assert re.search(r'report: \S+', out), 'the command says where the report is'

def test_five_models_were_trained(smoke):
    run, _ = smoke
    for step in ('step1', 'step2'):
        for model in ('au', 'emot', 'mix', 'cat', 'exp'):
            folder = run / 'seed0' / f'{step}-{model}'
            assert (folder / 'model.safetensors').stat().st_size > 10_000, folder.name
            losses = [json.loads(x) for x in (folder / 'log.jsonl').read_text().splitlines()]
            assert losses, folder.name

def test_a_start_is_made_that_the_stages_can_begin_from(smoke, project):
    "What stage 03 leaves is a whole start: a captioner is trained from it, by the same command."
    run, _ = smoke
    made = json.loads((run / 'shared/blip2/config.json').read_text())
    assert made['step'] == 0 and all((run / 'shared/blip2' / name).is_file() for name in made['files'])
    got = pipeline(project, 'run', '--run', 'begun', '--scale', 'smoke', '--only', 'step1-au', '-p', 'step1.init=outputs/smoke/shared/blip2',
                   '-p', 'features.init=outputs/smoke/shared/blip2')
    assert got.returncode == 0, got.stdout[-3000:] + got.stderr[-3000:]
    assert json.loads((project / 'outputs/begun/seed0/step1-au/config.json').read_text())['start']['name'] == 'blip2'

def again(project, name: str, *args: str) -> tuple[Path, list[str]]:
    "A copy of the run's folder in which only AU-BLIP's step 2 (and what `args` change before it) has to run, and the command that does so."
    if not (to := project / 'outputs' / name).exists(): shutil.copytree(project / 'outputs/smoke', to)
    return to / 'seed0/step2-au', ['run', '--run', name, '--scale', 'smoke', '--only', 'step2-au', *args]

def test_a_killed_command_goes_on_inside_the_stage(smoke, project):
    "SIGKILL in the middle of step 2: the next call trains the rest, and model and log are those of a run that nobody killed."
    longer = ('-p', 'step2.steps=60', '-p', 'step2.save_every=0')
    (whole, calm), (cut, command) = (again(project, name, *longer) for name in ('whole', 'cut'))
    env = {**os.environ, 'PYTHONPATH': str(project), 'HF_HUB_OFFLINE': '1'}
    started = [sys.executable, '-m', 'expblip.pipeline', *command]
    work = subprocess.Popen(started, cwd=project, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    while work.poll() is None and not list(cut.glob('resume/*2.json')): time.sleep(.01)
    os.killpg(work.pid, signal.SIGKILL)
    assert work.wait() == -signal.SIGKILL and not (cut / 'model.safetensors').exists()
    for args in (command, calm):
        got = pipeline(project, *args)
        assert got.returncode == 0, got.stdout[-3000:] + got.stderr[-3000:]
    assert 'step 2 au: goes on after update' in (cut / 'notebook.ipynb').read_text()
    for name in ('model.safetensors', 'log.jsonl'): assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    assert not (cut / 'resume').exists()

def test_a_stage_trains_in_two_processes(smoke, project):
    "Both steps, started by their notebooks, which show the progress; the losses are those of one process."
    exact = ('-p', 'step1.precision=fp32', '-p', 'step2.precision=fp32')
    second, together = again(project, 'two', *exact, '-p', 'step1.processes=2', '-p', 'step2.processes=2')
    alone, by_itself = again(project, 'one', *exact)
    for command in (together, by_itself):
        got = pipeline(project, *command)
        assert got.returncode == 0, got.stdout[-3000:] + got.stderr[-3000:]
    for step in ('step1', 'step2'):
        a, b = ([json.loads(x) for x in (at.parent / f'{step}-au/log.jsonl').read_text().splitlines()] for at in (second, alone))
        assert len(a) == len(b) > 0 and all(x == pytest.approx(y, abs=2e-3) for x, y in zip(a, b)), step
        book = (second.parent / f'{step}-au/notebook.ipynb').read_text()
        assert f'step {step[-1]} au 3/3' in book and f'step {step[-1]} au: goes on after update 3 of 3' in book

def test_results_are_flat_and_documented(smoke):
    "Every number of the report: name, value, seed, stage and meaning; no NaN, and no name twice for a seed."
    run, _ = smoke
    path = next(iter(sorted(run.rglob('report/results.json'))))
    rows = json.loads(path.read_text(), parse_constant=lambda x: pytest.fail(f'{x} is no JSON'))
    rows = rows['results'] if isinstance(rows, dict) else rows
    assert len(rows) > 20
    for r in rows:
        assert {'name', 'value', 'seed', 'stage', 'meaning'} <= set(r), r
        assert r['value'] is None or isinstance(r['value'], (int, float)), r
    keys = [(r['name'], r['seed'], r['stage']) for r in rows]
    assert len(set(keys)) == len(keys)

def test_every_number_of_the_report_is_found_where_it_says(smoke, project):
    "provenance.csv, line by line: the files hold the very values, the manifests are there; the command makes a lost number again."
    run, _ = smoke
    kept = read_numbers(run / 'report')
    wanted = {'table1', 'table2', 'table3_pooled', 'table4_flattened', 'table5', 'facts', 'findings', 'costs', 'attention', 'tableS6_1'}
    assert wanted <= set(kept.table)
    for row in kept.to_dict('records'):
        found = found_again(run, row)
        assert [repr(value) for value in found] == row['values'].split() and row['notebook'].startswith('nbs/stages/') and row['command'], row
        assert all((run / path).is_file() for path in unfolded(row['manifest'])), row
        shown = row['shown'].split(' ±')[0]
        tolerance = .51 * 10 ** -len(shown.partition('.')[2])
        assert float(shown) == pytest.approx(row['plus'] + row['times'] * sum(found) / len(found), abs=tolerance), row
    text = (run / 'report/report.html').read_text()
    assert text.count('<td title=') == len(kept.drop_duplicates(['table', 'row', 'column'])) and text.count('<details>') == kept.table.nunique()
    row = kept[kept.manifest == 'seed0/probe-au/manifest.json'].iloc[0]
    shutil.copytree(run, project / 'outputs/remade')
    shutil.rmtree(project / 'outputs/remade/seed0/probe-au')
    got = module(project, *shlex.split(row.command.replace('--run smoke', '--run remade'))[2:])
    assert got.returncode == 0 and '1 of' in got.stdout, got.stdout[-3000:] + got.stderr[-3000:]
    assert [repr(value) for value in found_again(project / 'outputs/remade', row)] == row['values'].split()

def test_second_run_does_nothing(smoke, project):
    "The plain command finds all of its stages fresh."
    run, _ = smoke
    before = {p: p.stat().st_mtime_ns for p in run.rglob('manifest.json')}
    got = pipeline(project, 'run', '--run', 'smoke', '--scale', 'smoke', '--seeds', '1')
    assert got.returncode == 0, got.stdout[-3000:] + got.stderr[-3000:]
    assert {p: p.stat().st_mtime_ns for p in run.rglob('manifest.json')} == before

@pytest.mark.parametrize('args, named', [(['-p', 'step1.stepz=3'], 'stepz'), (['-p', 'step1.steps=many'], 'steps'), (['--scale', 'huge'], 'huge'),
                                         (['--data', 'nowhere.csv'], 'nowhere.csv')])
def test_bad_parameter_is_refused_before_anything_runs(project, args, named):
    scale = [] if '--scale' in args else ['--scale', 'smoke']
    got = pipeline(project, 'run', '--run', 'refused', *scale, *args)
    said = got.stdout + got.stderr
    assert got.returncode != 0 and named in said and 'Traceback' not in said, said
    assert not [*(project / 'outputs' / 'refused').rglob('notebook*.ipynb')]

def test_stages_by_hand(project):
    "Plain papermill, no parameter but the size: each stage finds what the one before it left, and the report reads them all."
    by_hand(project, '10_data', bp4d='8', disfa='8', rafau='8', emotionet='8', affectnet='16', rafdb='8', faceme='8')
    by_hand(project, '20_synthesize')
    by_hand(project, '70_detector')
    shown = by_hand(project, '90_report')
    dev = project / 'outputs/dev'
    assert {p.relative_to(dev).as_posix() for p in dev.glob('*/*/results.json')} == {
        'shared/data/results.json', 'shared/synthesize/results.json', 'seed0/detector-au/results.json'}
    rows = json.loads((dev / 'report/results.json').read_text())
    assert {('data', None), ('synthesize', None), ('detector-au', 0)} <= {(r['stage'], r['seed']) for r in rows}
    assert (dev / 'report/report.html').exists() and 'seeds [0]' in shown.read_text()

def test_a_wrong_parameter_by_hand_is_one_error(project):
    got = module(project, 'papermill', 'nbs/stages/10_data.ipynb', str(project / 'wrong.ipynb'), '-p', 'size', '2000', '--no-progress-bar')
    assert got.returncode != 0 and "parameter 'size' is 2000: it must be a whole number from 16 to 1024" in got.stderr
