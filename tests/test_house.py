"""The house around the package: what is exported, clean, declared, light, and fit to be published."""
import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())
INI = configparser.ConfigParser(inline_comment_prefixes=None)
INI.read(ROOT / 'settings.ini')
INI = INI['DEFAULT']

# what this file is about is what gets committed: tracked files, and new ones that git does not ignore
def _files() -> list[Path]:
    try:
        out = subprocess.run(['git', 'ls-files', '-coz', '--exclude-standard'], cwd=ROOT, capture_output=True, check=True).stdout.decode()
        found = [ROOT / f for f in out.split('\0') if f]
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        skip = re.compile(r'\.venv|__pycache__|\..*_cache|_build')
        found = [p for p in ROOT.rglob('*') if p.is_file() and not any(map(skip.match, p.relative_to(ROOT).parts))]
    return sorted(p for p in found if p.is_file())

FILES = _files()
NOTEBOOKS = [p for p in FILES if p.suffix == '.ipynb']
MODULES = [p for p in FILES if p.parent == ROOT / 'expblip' and p.suffix == '.py' and p.name not in ('__init__.py', '_modidx.py')]

def rel(paths) -> list[str]: return [str(p.relative_to(ROOT)) for p in paths]
def cells(nb: Path) -> list[dict]: return json.loads(nb.read_text())['cells']
def source(cell: dict) -> str: return ''.join(cell['source'])
def tagged(nb: Path) -> int: return sum('parameters' in c['metadata'].get('tags', []) for c in cells(nb))

def run(*args, cwd=ROOT, **env):
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    return subprocess.run(args, cwd=cwd, capture_output=True, text=True, env={**os.environ, 'PATH': path, **env})

# ---------------------------------------------------------------- notebooks are the source

@pytest.fixture(scope='module')
def copy(tmp_path_factory) -> Path:
    "A copy of settings, notebooks and package that may be written to."
    to = tmp_path_factory.mktemp('copy')
    for p in FILES:
        if p.name == 'settings.ini' or rel([p])[0].startswith(('nbs/', 'expblip/')):
            (q := to / p.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(p, q)
    return to

def test_export_drift(copy):
    "A fresh export of the notebooks is the committed package, byte by byte."
    for p in (copy / 'expblip').glob('*.py'):
        if p.name != '__init__.py': p.unlink()
    got = run('nbdev_export', cwd=copy)
    assert got.returncode == 0, got.stderr
    fresh = {p.name: p.read_bytes() for p in (copy / 'expblip').glob('*.py') if p.name != '_modidx.py'}
    kept = {p.name: p.read_bytes() for p in [*MODULES, ROOT / 'expblip' / '__init__.py']}
    assert sorted(fresh) == sorted(kept)
    assert [n for n in fresh if fresh[n] != kept[n]] == [], 'run `make export`: the package was edited by hand, or a notebook was not exported'

def test_clean_changes_nothing(copy):
    got = run('nbdev_clean', cwd=copy)  # the first half of `make clean-nbs`
    assert got.returncode == 0, got.stderr
    ours = [n for n in rel(NOTEBOOKS) if n.startswith('nbs/')]  # outputs/reference holds notebooks as they were executed
    assert [n for n in ours if (copy / n).read_bytes() != (ROOT / n).read_bytes()] == [], 'run `make clean-nbs`'

# ---------------------------------------------------------------- three descriptions of one project

def test_settings_and_pyproject_agree():
    project, nbdev = PYPROJECT['project'], PYPROJECT['tool']['nbdev']
    assert project['name'] == INI['lib_name'] and project['description'] == INI['description']
    assert project['requires-python'] == f'>={INI["min_python"]}'
    assert project['keywords'] == INI['keywords'].split()
    assert project['authors'] == [{'name': INI['author'], 'email': INI['author_email']}]
    assert project['license'] == 'Apache-2.0' and INI['license'] == 'apache2'
    version = re.search(r'__version__ = "(.+)"', (ROOT / 'expblip' / '__init__.py').read_text())
    assert version and version[1] == INI['version']
    assert f'version: {INI["version"]}\n' in (ROOT / 'CITATION.cff').read_text()
    for key, value in nbdev.items():
        said = INI[key]
        if isinstance(value, bool): said = {'True': True, 'False': False}[said]
        if isinstance(value, list): said = said.split()
        assert said == value, key

def test_environments_agree():
    project = PYPROJECT['project']
    env = yaml.safe_load((ROOT / 'environment.yml').read_text())
    extras = project['optional-dependencies']
    wanted = [*project['dependencies'], *extras['run'], *extras['llm'], *extras['rate'], *extras['docs'], *extras['dev']]
    assert env['dependencies'][-1]['pip'] == list(dict.fromkeys(wanted))
    assert f'python{project["requires-python"]}' in env['dependencies'] and env['name'] == project['name']

def test_lock_holds_what_is_declared():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    lines = [x for x in (ROOT / 'requirements.lock').read_text().splitlines() if x and not x.startswith('#')]
    assert all(re.fullmatch(r'[A-Za-z0-9._-]+==[A-Za-z0-9.!]+', x) for x in lines), 'one exact pin a line; no path, host or local build'
    pins = {canonicalize_name(n): v for n, v in (x.split('==') for x in lines)}
    assert len(pins) == len(lines) and pins['torch'] == '2.13.0'
    declared = PYPROJECT['project']['dependencies'] + sum(PYPROJECT['project']['optional-dependencies'].values(), [])
    for r in map(Requirement, declared):
        assert r.specifier.contains(pins[canonicalize_name(r.name)], prereleases=True), f'{r} against {pins[canonicalize_name(r.name)]}'

def test_ranges_are_wide():
    from packaging.requirements import Requirement
    spec = {r.name: r.specifier for r in map(Requirement, PYPROJECT['project']['dependencies'])}
    assert all(spec['torch'].contains(v) for v in ('2.11.0', '2.12.1', '2.13.0'))
    assert all(spec['transformers'].contains(v) for v in ('5.17.0', '5.23.0'))

# ---------------------------------------------------------------- the package

THIRD_PARTY = {'PIL': 'pillow', 'yaml': 'pyyaml', 'sklearn': 'scikit-learn', 'skia': 'skia-python', 'rouge_score': 'rouge-score',
               'jupyter_client': 'jupyter-client', 'huggingface_hub': 'huggingface-hub', 'cv2': 'opencv-python-headless'}

def imported(tree: ast.AST) -> set[str]:
    "Top-level names of the absolute imports anywhere in a syntax tree."
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): names |= {a.name.split('.')[0] for a in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level and node.module: names.add(node.module.split('.')[0])
    return names

def test_import_is_light():
    "`import expblip` takes under 0.3 s and loads nothing heavy (the best of three, start of Python left out)."
    code = "import sys, time; t = time.perf_counter(); import expblip; t = time.perf_counter() - t; print(t, *sorted(sys.modules))"
    best = 9.
    for _ in range(3):
        got = run(sys.executable, '-c', code)
        assert got.returncode == 0, got.stderr
        seconds, *loaded = got.stdout.split()
        assert not {'torch', 'transformers', 'pandas', 'numpy', 'matplotlib', 'skia', 'nbdev', 'fastcore'} & set(loaded)
        best = min(best, float(seconds))
    assert best < .3

@pytest.mark.parametrize('module', MODULES, ids=lambda p: p.stem)
def test_module(module):
    "Neither nbdev nor fastcore, only declared packages, and neither a crumb nor a monolith."
    text = module.read_text()
    names = imported(ast.parse(text))
    assert not {'nbdev', 'fastcore', 'execnb'} & names
    from packaging.requirements import Requirement
    extras = PYPROJECT['project']['optional-dependencies']
    wanted = PYPROJECT['project']['dependencies'] + [r for name in ('run', 'llm', 'small-cards', 'rate') for r in extras[name]]
    declared = {Requirement(r).name for r in wanted}
    foreign = {THIRD_PARTY.get(n, n) for n in names if n not in sys.stdlib_module_names and n not in ('expblip', 'IPython')}
    assert foreign <= declared, f'not declared in pyproject.toml: {sorted(foreign - declared)}'
    assert 20 <= len(text.splitlines()) <= 400

# ---------------------------------------------------------------- notebooks

@pytest.mark.parametrize('nb', [p for p in NOTEBOOKS if p.parent.name in ('stages', 'tables')], ids=lambda p: p.stem)
def test_stage_notebook(nb):
    "One cell tagged `parameters`; a stage is committed without outputs."
    assert tagged(nb) == 1
    assert nb.parent.name == 'tables' or not any(c.get('outputs') for c in cells(nb))

@pytest.mark.parametrize('nb', [p for p in NOTEBOOKS if p.parent.name == 'stages'], ids=lambda p: p.stem)
def test_every_parameter_is_explained(nb):
    "Behind each parameter of a stage stands a comment."
    lines = next(source(c) for c in cells(nb) if 'parameters' in c['metadata'].get('tags', [])).splitlines()
    assert [x for x in lines if not re.match(r'\w+ = .+  # \S', x)] == []

def test_notebooks_name_one_kernel():
    "JupyterLab opens them without a question, papermill without an option, and saving them on another machine changes nothing."
    want = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
    found = [n for n, p in zip(rel(NOTEBOOKS), NOTEBOOKS, strict=True) if n.startswith('nbs/') and json.loads(p.read_text())['metadata'] != want]
    assert found == [], 'run `make clean-nbs`'

def test_notebooks_are_small():
    assert [n for n, p in zip(rel(NOTEBOOKS), NOTEBOOKS, strict=True) if p.stat().st_size > 400_000] == []

def test_notebooks_show_no_failure():
    "Committed outputs hold no traceback: failures are shown caught, with their message."
    def outputs(nb): return [o for c in cells(nb) for o in c.get('outputs', [])]
    assert rel(nb for nb in NOTEBOOKS if any(o['output_type'] == 'error' for o in outputs(nb))) == []

@pytest.mark.parametrize('nb', [p for p in NOTEBOOKS if 'nbs' in p.parts], ids=lambda p: f'{p.parent.name}-{p.stem}')
def test_title_cell(nb):
    "The first cell holds a title and a one-line description (further text in it would vanish from the site)."
    first = source(cells(nb)[0]).strip().splitlines()
    assert cells(nb)[0]['cell_type'] == 'markdown' and first[0].startswith('# ')
    assert all(re.match(r'> |- \w+:|$', x) for x in first[1:]), first

# ---------------------------------------------------------------- what is published

def test_top_level():
    "The rooms of the house, and nothing beside them but what tools require at the root."
    rooms = {'nbs', 'expblip', 'data', 'outputs', 'tests', 'docs', 'benchmarks', 'tools', '.ci', '.github'}
    files = {'settings.ini', 'environment.yml', 'environment-lavis.yml', 'requirements-lavis.txt', 'requirements.lock', 'pyproject.toml', 'Makefile',
             'dodo.py', 'pipeline.yaml', 'README.md', 'LICENSE', 'CITATION.cff', '.gitignore', '.gitattributes',
             'CONTRIBUTING.md', 'CHANGELOG.md', '.pre-commit-config.yaml'}
    top = {p.relative_to(ROOT).parts[0] for p in FILES}
    assert top <= rooms | files, sorted(top - rooms - files)
    must = {'nbs', 'expblip', 'data', 'outputs', 'tests', 'docs', 'settings.ini', 'environment.yml', 'pyproject.toml', 'Makefile', 'LICENSE'}
    assert must <= top, sorted(must - top)

# written in pieces, so that this file does not find itself
PRIVATE = re.compile('|'.join([
    r'/(?:wo' r'rk|tm' r'p|ro' r'ot|ho' r'me)/\w', r'/op' r't/(?:wheels|pypi)', r'file:' r'///(?!\.)',              # places of one machine
    r'\bsk-' r'[A-Za-z0-9_-]{20,}', r'\bhf_' r'[A-Za-z0-9]{30,}', r'\bgh[pousr]_' r'[A-Za-z0-9]{30,}',           # keys
    r'AK' r'IA[0-9A-Z]{16}', r'BEGIN [A-Z ]*PRIV' r'ATE KEY']))

def test_no_machine_path_and_no_key():
    "Nothing committed names this machine's folders or looks like a secret."
    text = {'.py', '.ipynb', '.md', '.toml', '.ini', '.yml', '.yaml', '.txt', '.lock', '.cff', '.csv', '.json', '.jsonl', '.sh', '.cfg', ''}
    found = []
    for n, p in zip(rel(FILES), FILES, strict=True):
        if p.suffix in text:
            body = re.sub(r'[A-Za-z0-9+/]{200,}={0,2}', '', p.read_text(errors='replace'))   # pictures in notebooks
            found += [f'{n}: {m[0]}' for m in PRIVATE.finditer(body)]
    assert found == []

def test_nothing_unfinished():
    mark = re.compile('|'.join(['TO' 'DO', 'FIX' 'ME', 'NotImplemented' 'Error']))
    assert [n for n, p in zip(rel(FILES), FILES, strict=True) if p.suffix in ('.py', '.ipynb', '.md') and mark.search(p.read_text())] == []

def test_no_large_file():
    assert [n for n, p in zip(rel(FILES), FILES, strict=True) if p.stat().st_size > 16_000_000] == []
    assert sum(p.stat().st_size for n, p in zip(rel(FILES), FILES, strict=True) if n.startswith('data/drawn-blip2/')) <= 16_000_000

def test_readme_is_made_from_the_index():
    got = run(sys.executable, 'tools/readme.py', '--check')
    assert got.returncode == 0, got.stdout + got.stderr

# ---------------------------------------------------------------- make

def test_make_builds_the_environment_once(tmp_path):
    "With the stamp of this lock in place `make env` does nothing; another lock asks for an install."
    make = shutil.which('make')
    assert make, 'make is needed'
    for f in ('Makefile', 'requirements.lock'): shutil.copy(ROOT / f, tmp_path / f)
    def plan():
        return run(make, '-n', 'env', f'PYTHON={sys.executable}', 'VENV=v', cwd=tmp_path).stdout
    assert '-r requirements.lock' in plan()
    key = run(make, '-pn', 'env', f'PYTHON={sys.executable}', 'VENV=v', cwd=tmp_path).stdout
    stamp = re.search(r'^STAMP := (\S+)$', key, re.M)
    assert stamp and 'installed-' in stamp[1]
    (tmp_path / 'v').mkdir()
    time.sleep(.01)
    (tmp_path / stamp[1].replace('$(VENV)', 'v').replace('$(KEY)', '')).touch()
    assert '-r requirements.lock' not in plan()
    with (tmp_path / 'requirements.lock').open('a') as f: f.write('# another\n')
    assert '-r requirements.lock' in plan()
