"The site: built strictly from what lies here, and opened in a real browser as a reader would, with no network but this machine."
import functools
import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from importlib.metadata import files
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[1]
# a page of each section, and why it is looked at
PAGES = {'index.html': 'cards, a figure, a captioned face', 'api/step1.html': 'reference entries, folded source',
         'api/attention.html': 'formulas, pictures', 'stages/30_step1.html': 'an executed stage', 'tables/table2.html': 'a table of the paper',
         'explanations/paper_code_ours.html': 'wide tables', 'explanations/decisions.html': 'tables in outputs',
         'explanations/benchmarks.html': 'data frames', 'explanations/model_cards.html': 'cards in outputs',
         'explanations/glossary.html': 'a glossary'}
WIDTHS = (1280, 390)
RUN = ROOT / 'outputs' / 'reference'


def first_of(folder):
    "The first notebook of a folder that may be there or not, as a page."
    return [f'{folder}/{p.stem}.html' for p in sorted((ROOT / 'nbs' / folder).glob('*.ipynb'))[:1]]


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The site, every warning an error."
    source, html = ROOT / '_build' / 'test_src', tmp_path_factory.mktemp('site')
    begun = time.perf_counter()
    try:
        for command in ([sys.executable, 'tools/stage_docs.py', str(source), str(RUN)],
                        [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-j', '2', '-b', 'html', str(source), str(html)]):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    finally: shutil.rmtree(source, ignore_errors=True)
    print(f'site built in {time.perf_counter() - begun:.0f} s')
    return html


@pytest.fixture(scope='module')
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *told): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()


def look(browser, address, width, scheme):
    "A page of the browser, and a list that fills with what should not happen."
    context, wrong = browser.new_context(viewport={'width': width, 'height': 900}, color_scheme=scheme), []
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on('console', lambda m: wrong.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda e: wrong.append(str(e)))
    page.on('request', lambda r: None if r.url.startswith((address, 'data:', 'blob:')) else wrong.append(f'asks for {r.url}'))
    page.on('response', lambda r: wrong.append(f'{r.status} {r.url}') if r.status >= 400 else None)
    return page, wrong


@pytest.mark.slow
@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_page_of_each_section(browser, address, width, scheme):
    "No request to another machine, no error in the console, nothing wider than the screen, and the reader's colour scheme."
    page, wrong = look(browser, address, width, scheme)
    pages = [*PAGES, *(p for f in ('tutorials', 'howto', 'lessons') for p in first_of(f)), 'stages/index.html', 'search.html']
    for name in pages:
        page.goto(address + name, wait_until='load')
        assert page.locator('h1').count() or name == 'search.html', name
        wide = page.evaluate('document.documentElement.scrollWidth - window.innerWidth')
        assert wide <= 0, f'{name} is {wide} pixels wider than {width}'
        assert page.evaluate('document.documentElement.dataset.theme') == scheme, name
        light = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).every(x => +x > 128)")
        assert light == (scheme == 'light'), name
        assert page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)") == [], name
    assert wrong == []
    page.context.close()


@pytest.mark.slow
def test_formulas_are_drawn(browser, address):
    page, wrong = look(browser, address, 1280, 'light')
    for name in ('api/attention.html', 'api/metrics.html', 'api/probes.html'):
        page.goto(address + name)
        page.wait_for_function("(all => all.length && all.every(m => m.querySelector('mjx-container')))([...document.querySelectorAll('.math')])")
        assert page.locator('.math mjx-container').first.bounding_box()['width'] > 5
        assert not re.search(r'\$[^$\n]*\\[a-z]+|\\\(|\\\[', page.locator('article').inner_text()), name
    assert wrong == []
    page.context.close()


@pytest.mark.slow
def test_the_search_finds(browser, address):
    page, wrong = look(browser, address, 1280, 'light')
    page.goto(address + 'search.html?q=Q-Former')
    page.wait_for_selector('#search-results ul.search li a')
    found = page.locator('#search-results ul.search li a').evaluate_all('links => links.map(a => a.href)')
    assert any('api/qformer.html' in link for link in found) and wrong == []
    page.context.close()


# ---------------------------------------------------------------- every link and picture of every page

class Links(HTMLParser):
    "What a page refers to, and the places in it that can be referred to."
    def __init__(self):
        super().__init__()
        self.to, self.ids = [], set()
    def handle_starttag(self, tag, attrs):
        have = dict(attrs)
        if 'id' in have: self.ids.add(have['id'])
        if tag == 'a' and have.get('name'): self.ids.add(have['name'])
        for name in ('href', 'src', 'poster'):
            if have.get(name): self.to.append(have[name])


@pytest.fixture(scope='module')
def pages(site):
    found = {}
    for path in sorted(site.rglob('*.html')):
        if '_static' not in path.parts:
            found[path] = Links()
            found[path].feed(path.read_text())
    return found


@pytest.mark.slow
def test_no_link_leads_nowhere(site, pages):
    broken = []
    for path, links in pages.items():
        for to in set(links.to):
            if re.match(r'[a-z]+:|//', to): continue
            place, anchor = urldefrag(unquote(to))
            target = (path.parent / place.split('?')[0]).resolve() if place else path
            if target.is_dir(): target /= 'index.html'
            if not target.is_file(): broken.append(f'{path.relative_to(site)}: {to}')
            elif anchor and target in pages and anchor not in pages[target].ids: broken.append(f'{path.relative_to(site)}: {to}: no such place there')
    assert broken == [] and len(pages) > 100


@pytest.mark.slow
def test_no_page_loads_anything_from_outside(site, pages):
    outside = re.compile(r'<(?:script|img|link|iframe|source)[^>]+(?:src|href)="(?:https?:)?//[^"]+"')
    found = [f'{path.relative_to(site)}: {m[0]}' for path in pages for m in outside.finditer(path.read_text()) if 'rel="canonical"' not in m[0]]
    assert found == []


@pytest.mark.slow
def test_stages_are_shown_as_they_ran(site):
    "Each stage of which the committed run, or a small one beside it, keeps a notebook shows its results; the others say that they do not."
    runs = [RUN, *(RUN.with_name(f'reference-{what}') for what in ('scaling', 'finetuning'))]
    ran = {json.loads(p.read_text())['notebook']: p for run in runs for p in run.rglob('manifest.json') if p.with_name('notebook.ipynb').exists()}
    assert len(ran) > 10 and {'nbs/stages/96_scaling.ipynb', 'nbs/stages/86_finetune.ipynb'} <= set(ran)
    for page, run in (('stages/96_scaling', 'reference-scaling'), ('stages/86_finetune', 'reference-finetuning'), ('stages/90_report', 'reference'),
                      ('tables/tableS6', 'reference-scaling'), ('tables/tableS4', 'reference')):
        assert f'<span class="pre">{run}</span>' in (site / f'{page}.html').read_text(), page
    for notebook in sorted((ROOT / 'nbs' / 'stages').glob('*.ipynb')):
        html = (site / 'stages' / f'{notebook.stem}.html').read_text()
        shown = 'cell_output' in html
        assert shown == (f'nbs/stages/{notebook.name}' in ran) != ('Shown without results' in html), notebook.name


@pytest.mark.slow
def test_words_of_the_glossary_are_links(site):
    html = (site / 'api' / 'step1.html').read_text()
    for word in ('ITC', 'ITM', 'ITG', 'Q-Former'): assert f'explanations/glossary.html#term-{word}"' in html, word


# ---------------------------------------------------------------- numbers

def results_of(book):
    "What the cells of a notebook show."
    def shown(o): return next((o['data'][kind] for kind in ('text/markdown', 'text/html', 'text/plain') if kind in o.get('data', {})), o.get('text'))
    return [''.join(shown(o) or '') for c in book['cells'] if c['cell_type'] == 'code' for o in c['outputs'] if o.get('name') != 'stderr']


@pytest.mark.slow
@pytest.mark.parametrize('name', ['index', 'explanations/benchmarks', 'explanations/model_cards', 'explanations/glossary'])
def test_what_a_page_shows_is_what_its_cells_give(name):
    "Executed again, the pages whose numbers come from committed files show the same: no number on them is old."
    import nbformat
    from nbclient import NotebookClient
    path = ROOT / 'nbs' / f'{name}.ipynb'
    book = nbformat.read(path, as_version=4)
    kept = results_of(book)
    NotebookClient(book, timeout=300, kernel_name='python3', resources={'metadata': {'path': str(path.parent)}}).execute()
    assert kept and results_of(book) == kept, f'execute nbs/{name}.ipynb anew, then make readme'


def test_the_readme_shows_a_caption_beside_its_face():
    "And the caption is what the model that ships says of that very picture."
    from expblip.captioner import Captioner
    row = re.search(r'\| !\[A drawn face\]\((nbs/images/drawn_face\.jpg)\) \| (.+) \|', (ROOT / 'README.md').read_text())
    assert row and Captioner.from_pretrained('drawn', device='cpu').caption(ROOT / row[1]).text == row[2]


def numbers(text):
    "Numbers that claim something: code, addresses, and labels such as AU 12, Table 2, ViT-g/14 or Python 3.11 left out."
    for gone in (r'```.*?```', r'`[^`]*`', r'\]\([^)]*\)', r'<!--.*?-->', r'^\| faces/.*$', r'^1\. |^2\. |^3\. ',
                 r'BMVC 2023|Python 3\.11|BLIP-2|Tables? \d|ViT-g/14|OPT-6\.7B|Apache-2\.0'):
        text = re.sub(gone, ' ', text, flags=re.S if '.*?' in gone else re.M)
    return re.findall(r'(?<![\w.])\d+(?:\.\d+)*(?![\w])', text)


def test_every_number_of_the_readme_is_accounted_for():
    "Each comes out of a cell of the front page (executed anew above), or stands here with the file that says so."
    index = json.loads((ROOT / 'nbs' / 'index.ipynb').read_text())
    made = '\n'.join(results_of(index))
    lock = dict(x.split('==') for x in (ROOT / 'requirements.lock').read_text().splitlines() if '==' in x)
    project = (ROOT / 'pyproject.toml').read_text()
    known = {lock['torch']: True, '2.11': '"torch>=2.11,' in project, '5.17': '"transformers>=5.17,' in project,
             '20': 'Add a data set in 20 lines' in (ROOT / 'nbs/howto/own_data_set.ipynb').read_text(),
                 '1.5': any(p.name == 'meteor-1.5.jar' for p in files('pycocoevalcap') or ()),
             **dict.fromkeys(('8', '4'), '8 and 4 bits' in (ROOT / 'nbs/api/memory.ipynb').read_text())}
    assert all(known.values())
    unknown = [n for n in numbers((ROOT / 'README.md').read_text()) if n not in known and not re.search(rf'(?<![\w.]){re.escape(n)}(?![\w])', made)]
    assert unknown == []
