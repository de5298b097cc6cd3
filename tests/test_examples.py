"""Every example of the documentation: Python blocks are run, commands are held against the programs that they call, cheap ones are run.

Looked at are the fenced blocks and the `make ...`, `expblip ...` in running text of every page: README.md, CONTRIBUTING.md, the pages of the
folders, the model cards, and the Markdown cells of all notebooks (their code cells are run by nbdev_test). What cannot be checked stands in
NOT_CHECKED, with its reason; a line there that fits nothing any more is a failure too.
"""
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from test_house import FILES, ROOT

BIN = Path(sys.executable).parent
PYPROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())

# (page, how the block or the command begins): why it is not checked
NOT_CHECKED: dict[tuple[str, str], str] = {
    ('nbs/howto/share_weights.ipynb', "captioner.push_to_hub('me/faces')"): 'needs a hub and a login, which CI has not',
    ('nbs/howto/slurm.ipynb', 'squeue'): 'a program of a cluster',
}

# Python blocks run in a folder that holds these, so a page may say 'photo.jpg' and be run as it stands
GIVEN = 'photo.jpg, photos/anna_1.jpg, photos/ben_1.jpg, photos.csv, nbs/'
# languages of blocks that are neither run nor commands; those with a reader must be readable
READERS = {'json': json.loads, 'yaml': yaml.safe_load, 'toml': tomllib.loads}
PLAIN = {'text', 'output', 'bibtex', 'csv', 'html', 'ini', 'mermaid', 'makefile', 'diff'}
SHELL, PYTHON = {'bash', 'sh', 'shell', 'console'}, {'python', 'py'}
INLINE = re.compile(r'(make|expblip|python3?|pip|papermill|jupyter|nbdev_\w+|pre-commit|\.venv/bin/\S+)\s+\S')


class Block(NamedTuple):
    page: str
    language: str
    text: str

    def __str__(self): return f'{self.page}: {self.text.strip().splitlines()[0][:60] if self.text.strip() else "(empty)"}'


def files() -> list[str]:
    "Pages that are committed, or new and not ignored; runs keep their own copies of notebooks, which are not looked at again."
    names = [p.relative_to(ROOT).as_posix() for p in FILES if p.suffix in ('.md', '.ipynb')]
    return [name for name in names if not name.startswith('outputs/reference')]


def texts(page: str) -> list[str]:
    if page.endswith('.md'): return [(ROOT / page).read_text()]
    return [''.join(c['source']) for c in json.loads((ROOT / page).read_text())['cells'] if c['cell_type'] == 'markdown']


@cache
def blocks() -> list[Block]:
    "Fenced blocks, and commands in running text (language `inline`), each text once a page."
    from markdown_it import MarkdownIt
    reader, found = MarkdownIt('commonmark').enable('table'), {}
    for page in files():
        for token in (token for text in texts(page) for token in reader.parse(text)):
            if token.type == 'fence': found[Block(page, (token.info.split() or [''])[0].lower(), token.content)] = None
            for code in token.children or ():
                if code.type == 'code_inline' and INLINE.match(code.content): found[Block(page, 'inline', code.content)] = None
    return list(found)


def commands(text: str) -> list[list[str]]:
    "The commands of a block as lists of words: comments, prompts, redirections and assignments in front are gone."
    found, held = [], ''
    for line in re.sub(r'\\\n\s*', ' ', text).splitlines():
        held = f'{held}\n{line}' if held else re.sub(r'^\s*\$ ', '', line)
        words = shlex.shlex(held, posix=True, punctuation_chars='&|;')
        words.whitespace_split = True
        try: row = list(words)
        except ValueError: continue  # a quotation goes on in the next line
        held, one = '', []
        for word in [*row, ';']:
            if not set(word) <= set('&|;'): one.append(word); continue
            while one and re.match(r'\w+=', one[0]): one.pop(0)
            if '>' in one: one = one[:one.index('>')]
            if one: found.append(one)
            one = []
    assert not held, f'a quotation is never closed: {held}'
    return found


def excused(page: str, text: str) -> bool:
    hits = [key for key in NOT_CHECKED if key[0] == page and text.strip().startswith(key[1])]
    USED.update(hits)
    return bool(hits)


USED: set = set()

# ---------------------------------------------------------------- what a command may be

@cache
def printed(*args: str) -> str:
    "What a program says about itself."
    got = subprocess.run(args, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env())
    assert got.returncode == 0, f'{shlex.join(args)}: {got.stdout[-500:]}{got.stderr[-1500:]}'
    return got.stdout + got.stderr


def env() -> dict[str, str]:
    path = f'{BIN}{os.pathsep}{os.environ["PATH"]}'
    return {**os.environ, 'PATH': path, 'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1', 'MPLBACKEND': 'agg', 'COLUMNS': '200'}


def options_exist(help_text: str, words: list[str]):
    known = set(re.findall(r'(?<![\w-])(--?[A-Za-z][\w-]*)', help_text))
    for word in words:
        name = word.split('=')[0]
        if re.match(r'--?[A-Za-z]', word): assert name in known, f'there is no option {name}; there are {", ".join(sorted(known))}'


def exists(path: str):
    assert '...' in path or (ROOT / path).exists(), f'{path}: no such file in this repository'


@cache
def make_variables() -> set[str]:
    "What the Makefile sets or reads, in capitals."
    return {name for pair in re.findall(r'(?m)^([A-Z]\w*)\s*[?:]?=|\$\(([A-Z]\w*)\)', (ROOT / 'Makefile').read_text()) for name in pair if name}


@pytest.fixture(scope='module')
def built(tmp_path_factory) -> str:
    "An environment that make takes for built."
    venv = tmp_path_factory.mktemp('venv')
    (venv / f'.installed-{hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()[:16]}').touch()
    return str(venv)


def check_make(words: list[str], built: str):
    "The target is there, each variable means something to the Makefile, and the pipeline's knobs take these values."
    targets = [w for w in words if re.fullmatch(r'[a-z][\w-]*', w)]
    given = dict(w.split('=', 1) for w in words if re.match(r'[A-Z]\w*=', w))
    assert len(targets) + len(given) == len(words), f'not understood: {words}'
    assert set(given) <= make_variables(), f'the Makefile knows no {sorted(set(given) - make_variables())}'
    got = subprocess.run(['make', '-n', *words, f'VENV={built}', f'PYTHON={sys.executable}'], cwd=ROOT, capture_output=True, text=True)
    assert got.returncode == 0, got.stderr[-1000:]
    if 'paper' in targets: check_knobs(given)


def check_knobs(given: dict[str, str]):
    "SCALE, SEEDS, RUN and P of `make paper`: the same checks as before a run; files that a reader has are not looked for."
    from expblip.config import check_params
    from expblip.graph import parse_override
    device = given.get('DEVICE', 'auto')
    check_params('', {'scale': given.get('SCALE', 'tiny'), 'device': 'auto' if device in ('cuda', 'mps') else device})
    assert given.get('SEEDS', '1').replace(',', '').isdigit(), 'SEEDS is a number, or numbers joined by commas'
    wanted = defaultdict(dict)
    for stage, knob, value in map(parse_override, given.get('P', '').split()): wanted[stage].update({knob: value})
    for stage, knobs in wanted.items():
        try: check_params(stage.split('-')[0], {'scale': given.get('SCALE', 'tiny'), **knobs})
        except ValueError as fault:
            if not all('no such file' in one or 'neither a folder here nor' in one for one in str(fault).split('; ')): raise


def check_expblip(words: list[str], built: str):
    from expblip.cli import PIPELINE, parser
    from expblip.pipeline import _parser
    if words and words[0] in PIPELINE: check_arguments(_parser(), words)
    elif not {'-h', '--help', '--version'} & set(words): check_arguments(parser(), words)


def check_arguments(parser, words: list[str]):
    try: parser.parse_args(words)
    except SystemExit as end: assert not end.code, f'{parser.prog} does not take {shlex.join(words)}'


def check_python(words: list[str], built: str):
    if words[:1] == ['-c']: compile(words[1], 'example', 'exec')
    elif words[:1] == ['-m']:
        if words[1] in TOOLS: TOOLS[words[1]](words[2:], built)
        elif words[1] == 'expblip.pipeline': check_expblip(words[2:], built)
        elif words[1] == 'venv': return
        elif words[1].startswith('expblip.'): check_program([sys.executable, '-m', words[1]], ROOT / f'{words[1].replace(".", "/")}.py', words[2:])
        else: options_exist(printed(sys.executable, '-m', words[1], '--help'), words[2:])
    elif words:
        exists(words[0])
        check_program([sys.executable, words[0]], ROOT / words[0], words[1:])


def check_program(start: list[str], path: Path, words: list[str]):
    "A program of this repository: it is there, can be started, and its options exist."
    assert path.is_file(), f'{path.relative_to(ROOT)}: no such program'
    text = path.read_text()
    assert '__main__' in text, f'{path.relative_to(ROOT)} is not meant to be started'
    said = set(re.findall(r"""['"](--?[A-Za-z][\w-]*)['"]""", text))
    if all(word.split('=')[0] in said for word in words if re.match(r'--?[A-Za-z]', word)): return
    options_exist(printed(*start, '--help') if 'argparse' in text else text, words)


def check_pip(words: list[str], built: str):
    assert words[0] == 'install', words
    for name in re.findall(r'expblip\[([^\]]+)\]|\.\[([^\]]+)\]', ' '.join(words)):
        for extra in ''.join(name).split(','): assert extra in PYPROJECT['project']['optional-dependencies'], f'no extra {extra!r} in pyproject.toml'
    for flag, path in zip(words, words[1:]):
        if flag in ('-r', '-c', '-e') and not path.startswith('.'): exists(path)


def check_papermill(words: list[str], built: str):
    "The notebook is there, and has the parameters that are set."
    from expblip.graph import notebook_parameters
    exists(words[0])
    known = notebook_parameters(ROOT / words[0])
    for flag, name in zip(words, words[1:]):
        if flag in ('-p', '-r'): assert name in known, f'{words[0]} has no parameter {name!r}'


def check_installed(name: str):
    "A program that the environment brings: its options exist; a file that is named is there."
    def check(words: list[str], built: str):
        sub = [w for w in words[:1] if re.fullmatch(r'[a-z][\w-]*', w) and name in ('jupyter', 'ruff', 'pre-commit', 'transformers', 'accelerate')]
        options = [w for w in words if w.startswith('-')]
        if options: options_exist(printed(str(BIN / name), *sub, '--help-all' if name == 'jupyter' else '--help'), options)
        else: assert (BIN / name).exists() or shutil.which(name), f'{name} is not installed by requirements.lock'
        for word in words:
            if re.match(r'(nbs|tests|tools|expblip|data|benchmarks|docs)/', word): exists(word)
    return check


def check_launcher(words: list[str], built: str):
    "accelerate launch, torchrun: their options, then what they start."
    cut = words.index('-m') if '-m' in words else len(words)
    check_installed('accelerate')(words[:cut], built)
    if cut < len(words): check_python(words[cut:], built)


def check_sbatch(words: list[str], built: str):
    "SLURM's own options are SLURM's; the script is ours, and what follows it goes to make."
    script = next(i for i, w in enumerate(words) if not w.startswith('-'))
    exists(words[script])
    check_make(['paper', *words[script + 1:]], built)


def check_git(words: list[str], built: str):
    assert words[0] in ('clone', 'add', 'commit', 'checkout', 'switch', 'pull', 'push', 'diff', 'status', 'tag', 'log', 'rebase', 'merge'), words
    home = PYPROJECT['project']['urls']['Repository']
    if words[0] == 'clone': assert words[1].removesuffix('.git') == home, f'{words[1]} is not {home}'


def accepted(words: list[str], built: str): "Part of the system, not of this repository."


INSTALLED = ('jupyter', 'nbdev_export', 'nbdev_clean', 'nbdev_test', 'ruff', 'mypy', 'pytest', 'pre-commit', 'transformers', 'hf', 'doit')
SYSTEM = ('cd', 'export', 'source', '.', 'mkdir', 'ls', 'cp', 'mv', 'cat', 'conda', 'apt-get', 'sudo', 'tar', 'unzip', 'open', 'xdg-open')
TOOLS = {'make': check_make, 'expblip': check_expblip, 'python': check_python, 'python3': check_python, 'pip': check_pip,
         'papermill': check_papermill, 'accelerate': check_launcher, 'sbatch': check_sbatch, 'git': check_git,
         **{name: check_installed(name) for name in INSTALLED}, **dict.fromkeys(SYSTEM, accepted)}
# run as they stand, because they take a moment and change nothing
CHEAP = ('make help', 'expblip doctor', 'expblip --help', 'expblip --version', 'expblip graph', 'python -m expblip.pipeline graph',
         'python tools/readme.py --check')


def check_command(words: list[str], built: str):
    program = words[0].removeprefix('.venv/bin/')
    assert program in TOOLS, (f'{program!r} is a program that tests/test_examples.py cannot check: add it to TOOLS there, '
                              'or the command to NOT_CHECKED with a reason')
    TOOLS[program](words[1:], built)
    if shlex.join([program, *words[1:]]) not in CHEAP: return
    printed(*(['make', *words[1:], f'VENV={built}'] if program == 'make' else [str(BIN / program), *words[1:]]))

# ---------------------------------------------------------------- the tests

def of(*languages: str) -> list: return [pytest.param(b, id=str(b)) for b in blocks() if b.language in languages]


@pytest.mark.parametrize('block', of(*SHELL, 'inline'))
def test_commands(block, built):
    if excused(block.page, block.text): return
    try: rows = commands(block.text)
    except (AssertionError, ValueError) as fault: pytest.fail(f'{block.page}: cannot be read as commands ({fault}):\n{block.text}')
    for words in rows:
        if excused(block.page, shlex.join(words)) or words == ['make']: continue
        try: check_command(words, built)
        except (AssertionError, ValueError, IndexError) as fault:
            pytest.fail(f'{block.page}: `{shlex.join(words)}` would not work: {fault}', pytrace=False)


@pytest.fixture(scope='module')
def desk(tmp_path_factory) -> Path:
    "A folder with photographs and their table, as a reader of the pages has one; the faces are drawn."
    from PIL import Image

    from expblip.drawing import draw
    from expblip.faces import Face
    at = tmp_path_factory.mktemp('desk')
    (at / 'nbs').symlink_to(ROOT / 'nbs')
    (at / 'photos').mkdir()
    for name, aus in (('photo', {6: (.9, .9), 12: (.9, .9)}), ('photos/anna_1', {12: (.9, .9)}), ('photos/ben_1', {4: (.9, .9)})):
        Image.fromarray(draw(Face(aus=aus))).save(at / f'{name}.jpg', quality=95)
    (at / 'photos.csv').write_text('image,subject,split,emotions\nphotos/anna_1.jpg,anna,train,happiness\nphotos/ben_1.jpg,ben,test,anger\n')
    return at


def python_pages() -> list:
    "The Python blocks of a page make one program, as they are read."
    found = defaultdict(list)
    for b in blocks():
        if b.language in PYTHON: found[b.page].append(b)
    return [pytest.param(page, rows, id=page) for page, rows in found.items()]


@pytest.mark.parametrize('page, rows', python_pages())
def test_python_blocks(page, rows, desk):
    code = '\n\n'.join(b.text for b in rows if not excused(page, b.text))
    try: compile(code, page, 'exec')
    except SyntaxError as fault:
        pytest.fail(f'{page}: a block marked as Python is none ({fault}); commands are marked bash, other text text', pytrace=False)
    got = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=desk, env=env(), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert got.returncode == 0, f'{page}: its Python blocks, one after the other in a folder with {GIVEN}, end with\n{got.stderr[-3000:]}\n\n{code}'


@pytest.mark.parametrize('block', [pytest.param(b, id=str(b)) for b in blocks() if b.language not in {*SHELL, *PYTHON, 'inline'}])
def test_other_blocks(block):
    if block.language.startswith('{') or excused(block.page, block.text): return  # a directive of the site: its build is strict
    assert block.language, f'{block.page}: name the language of this block behind its fence (text where it is none):\n{block.text}'
    known = sorted({*PLAIN, *READERS, *SHELL, *PYTHON})
    assert block.language in known, f'{block.page}: a block in {block.language!r}; known are {known}'
    if block.language in READERS: READERS[block.language](block.text)


def test_exceptions_are_needed():
    "Each line of NOT_CHECKED has a reason and fits an example."
    for (page, start), reason in NOT_CHECKED.items():
        assert len(reason.split()) > 3, f'{page}, {start!r}: say why'
        rows = [b.text for b in blocks() if b.page == page]
        fits = [t for t in rows if t.strip().startswith(start) or any(shlex.join(w).startswith(start) for w in commands(t))]
        assert fits, f'{page}: no example begins {start!r}'


@pytest.mark.parametrize('text, fault', [
    ('make papers', 'No rule'), ('make paper SIZE=3', 'SIZE'), ('make paper P="step2.lrr=1"', 'lrr'), ('make paper SCALE=huge', 'huge'),
    ('expblip captoin a.jpg', 'captoin'), ('expblip caption a.jpg --loud', 'loud'),
    ('python tools/none.py', 'none.py'), ('python tools/readme.py --wrong', 'wrong'),
    ("pip install 'expblip[none]'", 'none'), ('papermill nbs/stages/10_data.ipynb out.ipynb -p sice 3', 'sice'), ('frobnicate', 'frobnicate'),
    ('pytest tests/test_none.py', 'test_none'), ('ruff check --wrongly', 'wrongly'), ('git clone https://example.org/x', 'example')])
def test_a_wrong_command_is_found(text, fault, built):
    with pytest.raises((AssertionError, ValueError), match=re.escape(fault)): check_command(commands(text)[0], built)


def test_commands_are_read():
    said = '$ make paper  # all\nexport A="b c"\nX=1 make test && expblip doctor > x\nmake paper P="a=1\nb=2" \\\n  RUN=x'
    assert commands(said) == [['make', 'paper'], ['export', 'A=b c'], ['make', 'test'], ['expblip', 'doctor'],
                              ['make', 'paper', 'P=a=1\nb=2', 'RUN=x']]
