"""Notebooks as they are committed: `python tools/clean.py` (`make clean-nbs`) cleans all, or those named.

nbdev_clean drops counts and what an editor adds. Then every notebook names the kernel `python3` and nothing else about the machine that ran it, so
that JupyterLab and papermill open it without a question and saving it elsewhere changes nothing; stages and tables lose their outputs.
"""
import json
import sys
from pathlib import Path

from execnb.nbio import write_nb
from nbdev.clean import nbdev_clean

ROOT = Path(__file__).resolve().parents[1]
KERNEL = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
EMPTIED = ('stages', 'tables')  # their pages on the site show a run

def tidy(nb: dict, folder: str) -> dict:
    "A cleaned notebook of that folder of `nbs`: one kernel; outputs only where they are kept."
    nb['metadata'] = KERNEL
    for cell in nb['cells'] if folder in EMPTIED else ():
        if cell['cell_type'] == 'code': cell.update(outputs=[], execution_count=None)
    return nb

if __name__ == '__main__':
    named = [Path(name).resolve() for name in sys.argv[1:]]
    for path in named or [None]: nbdev_clean(path and str(path))
    for path in named or sorted((ROOT / 'nbs').rglob('*.ipynb')):
        if '.ipynb_checkpoints' in path.parts: continue
        before = json.loads(path.read_text())
        if (after := tidy(json.loads(path.read_text()), path.parent.name)) != before: write_nb(after, path)
