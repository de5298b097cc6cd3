"""Keep the small part of a finished run as the committed reference: `python tools/keep_reference.py <run folder> [outputs/reference]`.

Kept: the report with all results, manifests and training logs of every stage, and the executed notebooks of what is shared and of the first seed,
without papermill's times and this machine's folder. Left behind: full-size pictures, weights, captions.
The old reference goes when the new one is whole.
"""
import json
import shutil
import sys
from pathlib import Path

from expblip.io import read_json

SMALL = ('manifest.json', 'timing.json', 'log.jsonl', 'contact_sheet.jpg')
LIMIT, MOST = 400_000, 10_000_000  # bytes of a file, and of all

def kept(run: Path) -> list[Path]:
    "The files that stay, relative to the run."
    stages = [p.parent for p in sorted(run.glob('*/*/manifest.json'))]
    seeds = sorted({p.parent.name for p in stages if p.parent.name.startswith('seed')})
    found = [run / 'run.json', run / 'timings.json', *(p for p in sorted((run / 'report').rglob('*')) if p.is_file())]
    for stage in stages:
        found += [p for pattern in SMALL for p in sorted(stage.glob(pattern))]
        if stage.parent.name in ('shared', *seeds[:1]): found.append(stage / 'notebook.ipynb')
    return [p.relative_to(run) for p in dict.fromkeys(found)]

def tidy(path: Path, root: Path) -> str:
    "An executed notebook without papermill's metadata, paths below the project's folder relative to it."
    book = json.loads(path.read_text())
    book['metadata'].pop('papermill', None)
    for cell in book['cells']:
        cell['metadata'] = {k: v for k, v in cell['metadata'].items() if k == 'tags'}
        if 'execution_count' in cell: cell['execution_count'] = None
        for output in cell.get('outputs', []):
            if 'execution_count' in output: output['execution_count'] = None
    return json.dumps(book, indent=1, ensure_ascii=False).replace(f'{root}/', '') + '\n'

def main(run: Path, target: Path) -> None:
    facts = read_json(run / 'run.json')
    files = kept(run)
    small = [p for p in files if p.suffix not in ('.json', '.html') and p.name != 'provenance.csv']
    large = [f'{p}: {(run / p).stat().st_size:,} bytes' for p in small if (run / p).stat().st_size > LIMIT]
    size = sum((run / p).stat().st_size for p in files)
    if large or size > MOST: sys.exit(f'{run}: too large to commit ({size:,} bytes in all); ' + '; '.join(large))
    fresh = target.with_name(target.name + '.new')
    shutil.rmtree(fresh, ignore_errors=True)
    for p in files:
        (fresh / p).parent.mkdir(parents=True, exist_ok=True)
        if p.suffix == '.ipynb': (fresh / p).write_text(tidy(run / p, run.parents[1]))
        else: shutil.copy(run / p, fresh / p)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    print(f'{target}: {len(files)} files, {size / 1e6:.1f} MB, scale {facts["scale"]}, seeds {facts["seeds"]}')

if __name__ == '__main__':
    root = Path(__file__).resolve().parents[1]
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else root / 'outputs' / 'reference')
