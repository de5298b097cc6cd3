"""Keep the small part of a finished run: `python tools/keep_reference.py <run folder> [outputs/reference] [--only stage or table, ...]`.

Kept: the report with all results, manifests and training logs of every stage, one executed notebook of every stage that ran (of the first seed, and
of the paper's model where there is one a model: the site shows these) and those of the tables (`make tables RUN=...` first), without papermill's
times and this machine's folder. Left behind: full-size pictures, weights, captions. The old reference goes when the new one is whole.

With `--only` the notebooks and logs of these stages and tables alone: what the reference has not is kept beside it, as `outputs/reference-<what>`.
"""
import argparse
import base64
import io
import json
import shutil
import sys
from pathlib import Path

from PIL import Image

from expblip.io import read_json
from expblip.page import shows_faces

SMALL = ('manifest.json', 'timing.json', 'log.jsonl', 'contact_sheet.jpg')
LIMIT, MOST = 400_000, 10_000_000  # bytes of a file, and of all

def executed(stages: list[Path]) -> list[Path]:
    "One notebook of each stage that had something to do, and the report's: Exp-BLIP's where there is one a model."
    first: dict[str, Path] = {}
    for stage in sorted(stages, key=lambda p: (not p.name.endswith('-exp'), p.name)):
        if (stage / 'absent.json').exists() or not (stage / 'notebook.ipynb').exists(): continue
        first.setdefault(read_json(stage / 'manifest.json').get('notebook', stage.name), stage / 'notebook.ipynb')
    return list(first.values())

def kept(run: Path, only: list[str]) -> list[Path]:
    "The files that stay, relative to the run."
    def wanted(p: Path) -> bool: return not only or p.stem in only
    stages = [p.parent for p in sorted(run.glob('*/*/manifest.json'))]
    seeds = sorted({p.parent.name for p in stages if p.parent.name.startswith('seed')})
    found = [run / 'run.json', run / 'timings.json', *(p for p in sorted((run / 'report').rglob('*')) if p.is_file())]
    found += [p for stage in stages for pattern in SMALL for p in sorted(stage.glob(pattern)) if p.name == 'manifest.json' or wanted(stage)]
    found += executed([p for p in stages if p.parent.name in ('shared', *seeds[:1]) and wanted(p)])
    found += [p for p in sorted((run / 'tables').glob('*.ipynb')) if wanted(p)]
    return [p.relative_to(run) for p in dict.fromkeys(found)]

def as_jpeg(data: dict) -> dict:
    "An output whose picture takes a fifth of the room."
    with Image.open(io.BytesIO(base64.b64decode(''.join(data['image/png'])))) as picture:
        flat = Image.new('RGB', picture.size, 'white')
        flat.paste(picture.convert('RGBA'), mask=picture.convert('RGBA').getchannel('A'))
    flat.save(out := io.BytesIO(), 'JPEG', quality=80)
    return {k: v for k, v in data.items() if k != 'image/png'} | {'image/jpeg': base64.b64encode(out.getvalue()).decode()}

def tidy(path: Path, root: Path) -> str:
    "An executed notebook without papermill's metadata, pictures as JPEG, paths below the project's folder relative to it."
    book = json.loads(path.read_text())
    book['metadata'].pop('papermill', None)
    for cell in book['cells']:
        cell['metadata'] = {k: v for k, v in cell['metadata'].items() if k == 'tags'}
        if 'execution_count' in cell: cell['execution_count'] = None
        for output in cell.get('outputs', []):
            if 'execution_count' in output: output['execution_count'] = None
            if 'image/png' in output.get('data', {}): output['data'] = as_jpeg(output['data'])
    return json.dumps(book, indent=1, ensure_ascii=False).replace(f'{root}/', '') + '\n'

def main(run: Path, target: Path, only: list[str]) -> None:
    scale, seeds = (read_json(run / 'run.json')[key] for key in ('scale', 'seeds'))
    if any((run / 'shared' / 'data').glob('*')) and not shows_faces(run):
        sys.exit(f'{run}: its pictures were lent, or nothing says whose they are; contact sheet and notebooks show them, so this run is not kept')
    files = kept(run, only)
    fresh = target.with_name(target.name + '.new')
    shutil.rmtree(fresh, ignore_errors=True)
    for p in files:
        (fresh / p).parent.mkdir(parents=True, exist_ok=True)
        if p.suffix == '.ipynb': (fresh / p).write_text(tidy(run / p, run.parents[1]))
        else: shutil.copy(run / p, fresh / p)
    sizes = {p: (fresh / p).stat().st_size for p in files}
    size, free = sum(sizes.values()), ('.json', '.html')
    large = [f'{p}: {n:,} bytes' for p, n in sizes.items() if n > LIMIT and p.suffix not in free and p.name != 'provenance.csv']
    if large or size > MOST:
        shutil.rmtree(fresh)
        sys.exit(f'{run}: too large to commit ({size:,} bytes in all); ' + '; '.join(large))
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    print(f'{target}: {len(files)} files, {size / 1e6:.1f} MB, scale {scale}, seeds {seeds}')

if __name__ == '__main__':
    root = Path(__file__).resolve().parents[1]
    ask = argparse.ArgumentParser(description='Keep the small part of a finished run.')
    ask.add_argument('run', type=Path)
    ask.add_argument('target', type=Path, nargs='?', default=root / 'outputs' / 'reference')
    ask.add_argument('--only', nargs='+', default=[], metavar='NAME', help='notebooks and logs of these stages and tables alone')
    said = ask.parse_args()
    run, target = said.run.resolve(), said.target.resolve()
    if not (run / 'run.json').is_file(): ask.error(f'{said.run}: no run of the pipeline (run.json is missing)')
    if run == target or run in target.parents or target in run.parents:
        ask.error(f'{said.target}: the target must lie beside the run, not in or around it')
    if target.exists() and not (target / 'run.json').is_file(): ask.error(f'{said.target}: there is something else, which would be deleted')
    if said.only and target == root / 'outputs' / 'reference':
        ask.error('--only: name a target, before it: the reference is kept whole')
    known = {p.parent.name for p in said.run.glob('*/*/manifest.json')} | {p.stem for p in said.run.glob('tables/*.ipynb')}
    if unknown := [name for name in said.only if name not in known]: ask.error(f'--only: {said.run} has no stage or table {", ".join(unknown)}')
    main(run, target, said.only)
