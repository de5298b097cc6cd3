"""Lay the notebooks out for Sphinx: `python tools/stage_docs.py <target folder> [<run folder>]`.

Pages keep their folder and name. Hidden cells go, directives go, an exported symbol gets its reference entry in front of its (folded) source,
names in back-ticks become links to these entries, and a stage or table is shown as the run folder holds it, executed, where it does.
"""
import ast
import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / 'nbs'
FOLDERS = {'lessons': ('Lessons', 'The method from the first face to the findings, for readers who know PyTorch and not BLIP-2.'),
           'howto': ('How-to', 'One task a page: what you need, the way, what can go wrong.'),
           'stages': ('Stages', 'The notebooks that one run is made of, in order.'),
           'tables': ('Tables', 'The tables and figures of the paper, each from saved artefacts.'),
           'explanations': ('Explanations', 'Why it is built like this, and what is promised.'),
           'api': ('API', 'One notebook, one module: the idea, the code, an example, a failure.')}

PYTHON = {'kernelspec': {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'},
          'language_info': {'name': 'python', 'pygments_lexer': 'ipython3'}}

def load(path: Path) -> dict: return json.loads(path.read_text())
def text(cell: dict) -> str: return ''.join(cell['source'])
def markdown(source: str) -> dict: return {'cell_type': 'markdown', 'metadata': {}, 'source': source}

def directives(source: str) -> set[str]:
    "Names of the `#|` lines that a cell starts with."
    found = re.match(r'(?:\s*#\|.*(?:\n|$))*', source)
    return {re.sub(r'\s+', ' ', m).strip() for m in re.findall(r'#\|(.*)', found[0] if found else '')}

def exported(path: Path) -> tuple[str, list[str]]:
    "The module that a notebook exports and its public functions and classes."
    sources = [text(c) for c in load(path)['cells'] if c['cell_type'] == 'code']
    module = next((d.split()[1] for s in sources for d in directives(s) if d.startswith('default_exp')), '')
    return module, [n.name for s in sources if 'export' in directives(s) for n in public(s)]

def public(source: str) -> list:
    "Public functions and classes defined at the top of a cell."
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    return [n for n in ast.parse(source).body if isinstance(n, kinds) and not n.name.startswith('_')]

def linked(source: str, symbols: dict[str, str]) -> str:
    "Back-ticked names of the package, outside fenced code, as links."
    def link(m): return f'{{py:obj}}`{m[1]} <{symbols[m[1]]}>`' if m[1] in symbols else m[0]
    parts = re.split(r'(^```.*?^```)', source, flags=re.M | re.S)
    return ''.join(p if p.startswith('```') else re.sub(r'(?<![`}\w\[])`(\w+)`(?!`)', link, p) for p in parts)

def page(path: Path, module: str, symbols: dict[str, str]) -> dict:
    "One notebook as the site shows it."
    nb, cells = load(path), []
    for c in nb['cells']:
        source = text(c)
        if c['cell_type'] != 'code':
            cells.append({**c, 'source': linked(source, symbols)})
            continue
        said = directives(source)
        if {'hide', 'default_exp ' + module} & said and not c.get('outputs') or 'hide' in said: continue
        tags = set(c['metadata'].get('tags', []))
        if {'echo: false', 'hide_input'} & said: tags.add('remove-input')
        if 'hide_output' in said: tags.add('remove-output')
        if {'export', 'exporti', 'exports'} & said and module:
            for n in public(source):
                kind = 'autoclass' if isinstance(n, ast.ClassDef) else 'autofunction'
                cells.append(markdown(f'```{{eval-rst}}\n.. {kind}:: expblip.{module}.{n.name}\n```'))
            if public(source): tags.add('hide-input')
        body = re.sub(r'\A(?:\s*#\|.*(?:\n|$))+', '', source).strip('\n')
        # progress and log lines on the error stream are for the terminal
        outputs = [o for o in c.get('outputs', []) if o.get('name') != 'stderr']
        if body or outputs: cells.append({**c, 'metadata': {'tags': sorted(tags)}, 'source': body, 'outputs': outputs})
    return {'nbformat': 4, 'nbformat_minor': 5, 'metadata': PYTHON, 'cells': [{**c, 'id': f'c{i}'} for i, c in enumerate(cells)]}

def described(path: Path) -> tuple[str, str]:
    "Title and one-line description of a notebook."
    lines = text(load(path)['cells'][0]).splitlines()
    return lines[0].lstrip('# '), next((x.lstrip('> ') for x in lines if x.startswith('>')), '')

def as_run(path: Path, run: Path | None) -> Path:
    "The executed copy of a stage or table notebook in the run folder, if there is one: the first whose manifest names it."
    name = str(path.relative_to(ROOT))
    for manifest in sorted(run.rglob('manifest.json')) if run else []:
        done = manifest.with_name('notebook.ipynb')
        if done.exists() and json.loads(manifest.read_text()).get('notebook') == name: return done
    return path

def folder_page(folder: str, paths: list[Path]) -> str:
    "The index page of a folder: a card for each notebook."
    title, about = FOLDERS[folder]
    cards = ''.join(f':::{{grid-item-card}} {t}\n:link: {p.stem}\n:link-type: doc\n{d}\n:::\n' for p in paths for t, d in [described(p)])
    names = '\n'.join(p.stem for p in paths)
    return f'# {title}\n\n{about}\n\n::::{{grid}} 1 2 2 3\n:gutter: 2\n\n{cards}::::\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n'

def main(target: Path, run: Path | None) -> None:
    if target.exists(): shutil.rmtree(target)
    shutil.copytree(ROOT / 'docs', target)
    if (NBS / 'images').exists(): shutil.copytree(NBS / 'images', target / 'images')
    books = sorted(p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    modules = {p: exported(p) for p in books}
    count = Counter(n for _, names in modules.values() for n in names)
    symbols = {n: f'expblip.{m}.{n}' for m, names in modules.values() for n in names if count[n] == 1}
    for p in books:
        to = target / p.relative_to(NBS)
        to.parent.mkdir(parents=True, exist_ok=True)
        nb = page(as_run(p, run), modules[p][0], symbols)
        if p.name == 'index.ipynb':
            here = '\n'.join(f'{f}/index' for f in FOLDERS if any(q.parent.name == f for q in books))
            nb['cells'].append({**markdown(f'```{{toctree}}\n:hidden:\n\n{here}\n```'), 'id': 'contents'})
        to.write_text(json.dumps(nb))
    for f in FOLDERS:
        if mine := [p for p in books if p.parent.name == f]: (target / f / 'index.md').write_text(folder_page(f, mine))
    print(f'{len(books)} notebooks and {len(symbols)} symbols laid out in {target}')

if __name__ == '__main__': main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 and Path(sys.argv[2]).exists() else None)
