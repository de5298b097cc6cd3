"""README.md from nbs/index.ipynb: `python tools/readme.py` writes it, `--check` compares (exit code 1 where they differ).

A cell that starts with `#| hide` is left out, `#| echo: false` leaves out the code and keeps what it shows; pictures and notebooks that
the index links to lie in nbs/, so their links get that folder in front.
"""
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

def from_root(text: str) -> str:
    "Pictures and notebooks of the notebook's folder as the README finds them; in code too."
    return re.sub(r"(!\[[^\]]*\]\((?!https?:)|\]\((?=\w+/\w+\.ipynb\))|'(?=images/))", r'\1nbs/', text)

def shown(output: dict) -> str:
    "One output of a code cell as Markdown: Markdown as it is, plain text fenced, pictures not at all (the README shows files)."
    data = output.get('data', {})
    if 'text/markdown' in data: return from_root(''.join(data['text/markdown']))
    text = ''.join(output.get('text', data.get('text/plain', '')))
    return f'```text\n{text.rstrip()}\n```' if text and 'image/png' not in data else ''

def cell(c: dict) -> list[str]:
    "The Markdown blocks of one notebook cell."
    text = ''.join(c['source']).strip()
    if text.startswith('#| hide'): return []
    if c['cell_type'] == 'markdown': return [from_root(text)]
    quiet = '#| echo: false' in text.split('\n\n')[0]
    code = '\n'.join(x for x in text.splitlines() if not x.startswith('#|')).strip()
    return ([] if quiet or not code else [f'```python\n{from_root(code)}\n```']) + [s for s in map(shown, c.get('outputs', [])) if s]

def readme() -> str:
    "The whole README."
    cells = json.loads((ROOT / 'nbs' / 'index.ipynb').read_text())['cells']
    return '<!-- made from nbs/index.ipynb by tools/readme.py: edit the notebook -->\n\n' + '\n\n'.join(b for c in cells for b in cell(c)) + '\n'

if __name__ == '__main__':
    path, text = ROOT / 'README.md', readme()
    if '--check' in sys.argv:
        if not path.exists() or path.read_text() != text: sys.exit('README.md is not what nbs/index.ipynb gives: run `make readme`')
    else: path.write_text(text)
