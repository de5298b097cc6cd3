"""Lay the notebooks out for Sphinx: `python tools/stage_docs.py <target folder> [<run folder>]`.

Pages keep their folder and name. Hidden cells go, directives go, an exported symbol gets its reference entry in front of its (folded) source,
names in back-ticks become links to these entries, the list of the glossary becomes a real one whose words are links on other pages, and a stage or
table is shown as the run folder holds it, executed, where it does: a line under its title says which run that was, or that none is kept.
"""
import ast
import json
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

from expblip.page import shows_faces

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT / 'nbs'
FOLDERS = {'lessons': ('Lessons', 'The method from the first face to the findings, for readers who know PyTorch and not BLIP-2.'),
           'howto': ('How-to', 'One task a page: what you need, the way, what can go wrong.'),
           'stages': ('Stages', 'The notebooks that one run is made of, in order.'),
           'tables': ('Tables', 'The tables and figures of the paper, each from saved artefacts.'),
           'explanations': ('Explanations', 'Why it is built like this, and what is promised.'),
           'api': ('API', 'One notebook, one module: the idea, the code, an example, a failure.')}

# further cards on the front page, with the folders above: pages that are looked for by name
NAMED = ('explanations/paper_code_ours', 'explanations/results', 'explanations/decisions', 'explanations/benchmarks', 'explanations/model_cards',
         'explanations/glossary')
SMALL = ('scaling', 'finetuning')  # runs kept beside the reference, for what it has not
GLOSSARY = NBS / 'explanations' / 'glossary.ipynb'

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

ENTRY = re.compile(r'^\* ((?:\*\*[^*]+\*\*(?: / )?)+): (.*)$')
def forms(entry: str) -> list[str]: return re.findall(r'\*\*([^*]+)\*\*', entry)

def glossary() -> dict[str, str]:
    "Each form of a word in the glossary, with the form to link to; plain English words are left out: they would be links everywhere."
    if not GLOSSARY.exists(): return {}
    lines = [line for c in load(GLOSSARY)['cells'] if c['cell_type'] == 'markdown' for line in text(c).splitlines()]
    entries = [forms(m[1]) for line in lines if (m := ENTRY.match(line))]
    return {form: some[0] for some in entries for form in some if re.search('[A-Z0-9 ]', form)}

def as_glossary(source: str) -> str:
    "A list of `* **word** / **other form**: meaning` as a glossary that other pages can link to."
    found = [ENTRY.match(line) for line in source.splitlines()]
    if not found or not all(found): return source
    return '```{glossary}\n' + '\n'.join('\n'.join(forms(m[1])) + f'\n  {m[2]}\n' for m in found if m) + '```'

# what holds no prose: code, formulas, links, HTML, roles
CLOSED = re.compile(r'(`+.*?`+|\$\$?[^$]+\$?\$|!?\[[^\]]*\]\([^)]*\)|<[^>]+>|https?://\S+)', re.S)

def explained(source: str, terms: dict[str, str], told: set[str]) -> str:
    "The first use of each word of the glossary on a page as a link; titles, tables and code are left alone."
    if not terms: return source
    word = re.compile(r'(?<![\w/.-])(' + '|'.join(re.escape(t) for t in sorted(terms, key=len, reverse=True)) + r')(s?)(?![\w-])')
    def link(m: re.Match) -> str:
        if terms[m[1]] in told: return m[0]
        told.add(terms[m[1]])
        return f'{{term}}`{m[0]} <{terms[m[1]]}>`'
    parts, lines = re.split(r'(^```.*?^```|^#.*$|^\|.*$|^> .*$)', source, flags=re.M | re.S), []
    for i, part in enumerate(parts):
        lines.append(part if i % 2 else ''.join(x if j % 2 else word.sub(link, x) for j, x in enumerate(CLOSED.split(part))))
    return ''.join(lines)

def page(path: Path, module: str, symbols: dict[str, str], terms: dict[str, str], note: str = '') -> dict:
    "One notebook as the site shows it; a note stands below the title."
    nb, cells, told = load(path), [], set()
    for c in nb['cells']:
        source = text(c)
        if c['cell_type'] != 'code':
            prose = as_glossary(source) if path == GLOSSARY else explained(source, terms, told)
            cells.append({**c, 'source': linked(prose, symbols)})
            if note: cells.append(markdown(note))
            note = ''
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
    # without it MyST-NB counts ten thousand lines a cell, and each reference entry is parsed behind as many empty ones: minutes instead of seconds
    about = {**PYTHON, 'source_map': list(range(len(cells) + 2))}
    return {'nbformat': 4, 'nbformat_minor': 5, 'metadata': about, 'cells': [{**c, 'id': f'c{i}'} for i, c in enumerate(cells)]}

def described(path: Path) -> tuple[str, str]:
    "Title and one-line description of a notebook."
    lines = text(load(path)['cells'][0]).splitlines()
    return lines[0].lstrip('# '), next((x.lstrip('> ') for x in lines if x.startswith('>')), '')

def in_run(path: Path, run: Path | None) -> tuple[Path, str]:
    "The executed copy of a stage or table notebook that the run folder keeps, else the notebook itself; and a line that says which it is."
    name = str(path.relative_to(ROOT))
    if run is None or path.parent.name not in ('stages', 'tables'): return path, ''
    beside = [run.with_name(f'reference-{what}') for what in SMALL] if run.name == 'reference' else []
    for one in (*beside, run) if path.parent.name == 'tables' else ():
        if (done := one / 'tables' / path.name).exists():
            return done, aside('As it ran', f'Made from the run `{one.name}`, on drawn faces: nothing here is comparable with the paper.')
    for one in (run, *beside):
        made = {p: m for p in sorted(one.rglob('manifest.json')) if (m := load(p)).get('notebook') == name}
        if kept := [p for p in made if p.with_name('notebook.ipynb').exists()]:
            run = one
            break
    if not kept: return path, aside('Not executed here', f'Shown without results: no execution of this page is kept in the run `{run.name}`.')
    chosen, others = made[kept[0]], len(made) - 1
    facts = f'scale `{chosen["all_params"]["scale"]}`, {chosen["started"][:10]}, {chosen["seconds"]:.0f} s on {chosen["machine"]}'
    more = f' The same notebook ran {others} times more, for other models and seeds: their figures are in the report.' if others else ''
    return kept[0].with_name('notebook.ipynb'), aside('As it ran', f'As `{chosen["instance"]}` of the run `{run.name}` left it '
        f'({facts}).{more} The faces are drawn: nothing here is comparable with the paper.')

def aside(title: str, words: str) -> str: return f':::{{admonition}} {title}\n:class: note\n\n{words}\n:::'

def folder_page(folder: str, paths: list[Path]) -> str:
    "The index page of a folder: a card for each notebook."
    title, about = FOLDERS[folder]
    cards = ''.join(f':::{{grid-item-card}} {t}\n:link: {p.stem}\n:link-type: doc\n{d}\n:::\n' for p in paths for t, d in [described(p)])
    names = '\n'.join(p.stem for p in paths)
    return f'# {title}\n\n{about}\n\n{grid(cards)}\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n'

def grid(cards: str) -> str: return f'::::{{grid}} 1 2 2 3\n:gutter: 2\n\n{cards}::::'

def sections(books: list[Path]) -> str:
    "The front page's cards: every folder, and the pages that are looked for by name."
    rooms = [(title, about, f'{f}/index') for f, (title, about) in FOLDERS.items() if any(p.parent.name == f for p in books)]
    pages = [(*described(NBS / f'{name}.ipynb'), name) for name in NAMED if (NBS / f'{name}.ipynb').exists()]
    return grid(''.join(f':::{{grid-item-card}} {title}\n:link: {at}\n:link-type: doc\n{about}\n:::\n' for title, about, at in rooms + pages))

def main(target: Path, run: Path | None) -> None:
    if run and (run / 'shared/data/records.parquet').exists() and not shows_faces(run):
        sys.exit(f'{run}: its pictures were lent, or nothing says whose they are; a site shows the run\'s notebooks: build it of another run')
    if target.exists(): shutil.rmtree(target)
    shutil.copytree(ROOT / 'docs', target)
    if (NBS / 'images').exists(): shutil.copytree(NBS / 'images', target / 'images')
    books = sorted(p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    modules = {p: exported(p) for p in books}
    count = Counter(n for _, names in modules.values() for n in names)
    symbols = {n: f'expblip.{m}.{n}' for m, names in modules.values() for n in names if count[n] == 1}
    terms = glossary()
    for p in books:
        to = target / p.relative_to(NBS)
        to.parent.mkdir(parents=True, exist_ok=True)
        source, note = in_run(p, run)
        nb = page(source, modules[p][0], symbols, terms, note)
        if p.name == 'index.ipynb':
            here = '\n'.join(f'{f}/index' for f in FOLDERS if any(q.parent.name == f for q in books))
            first = next(i for i, c in enumerate(nb['cells']) if text(c).startswith('## '))
            nb['cells'].insert(first, {**markdown(sections(books)), 'id': 'sections'})
            nb['cells'].append({**markdown(f'```{{toctree}}\n:hidden:\n\n{here}\n```'), 'id': 'contents'})
        to.write_text(json.dumps(nb))
    for f in FOLDERS:
        if mine := [p for p in books if p.parent.name == f]: (target / f / 'index.md').write_text(folder_page(f, mine))
    print(f'{len(books)} notebooks and {len(symbols)} symbols laid out in {target}')

if __name__ == '__main__': main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 and Path(sys.argv[2]).exists() else None)
