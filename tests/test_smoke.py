"""The whole graph at `scale=smoke`, through the command that users call, in a copy of the project with an outputs folder of its own."""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KEPT = ('expblip', 'nbs/stages', 'nbs/tables', 'data', 'settings.ini', 'pipeline.yaml', 'dodo.py', 'pyproject.toml')
pytestmark = pytest.mark.slow

def pipeline(root: Path, *args: str) -> subprocess.CompletedProcess:
    "The command line, run in `root` (whose package is the one that is imported)."
    env = {**os.environ, 'PYTHONPATH': str(root), 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'agg', 'TOKENIZERS_PARALLELISM': 'false'}
    command = [sys.executable, '-m', 'expblip.pipeline', *args]
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)

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
    got = pipeline(project, 'run', '--run', 'smoke', '--scale', 'smoke', '--seeds', '1')
    assert got.returncode == 0, got.stdout[-6000:] + got.stderr[-3000:]
    return project / 'outputs' / 'smoke', got.stdout

def manifests(run: Path) -> dict[str, dict]:
    return {m['instance']: m for m in (json.loads(p.read_text()) for p in sorted(run.rglob('manifest.json')))}

def test_every_stage_ran(smoke):
    "Each instance leaves its executed notebook, its outputs and a manifest; nothing failed or half-done lies about."
    run, out = smoke
    found = manifests(run)
    assert {'data', 'synthesize', 'step1', 'step2', 'caption', 'fuse', 'metrics', 'probe', 'report'} <= {m['stage'] for m in found.values()}
    for name, m in found.items():
        assert (run / name / 'notebook.ipynb').exists() and m['seconds'] >= 0
        assert m['outputs'] and all((run / name / f).stat().st_size == s['size'] for f, s in m['outputs'].items() if 'size' in s)
    assert not [*run.rglob('*.failed.ipynb'), *run.rglob('*.running.ipynb'), *run.rglob('running.json')]
    assert re.search(r'report: \S+', out), 'the command says where the report is'

def test_five_models_were_trained(smoke):
    run, _ = smoke
    for step in ('step1', 'step2'):
        for model in ('au', 'emot', 'mix', 'cat', 'exp'):
            folder = run / 'seed0' / f'{step}-{model}'
            assert (folder / 'model.safetensors').stat().st_size > 10_000, folder.name
            losses = [json.loads(x) for x in (folder / 'log.jsonl').read_text().splitlines()]
            assert losses, folder.name

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

def test_second_run_does_nothing(smoke, project):
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
