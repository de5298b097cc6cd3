"""Two image encoders by two language models (paper 4.3), on the drawn world: `python tools/scaling.py [--scale mid] [--seeds 1] [-p ...]`.

`scaling.yaml` beside this file is the graph: what does not depend on the pair is made once. All lies in `outputs/scaling`; stage 96 judges it,
and reports of other runs show its figures. What is fresh is not made again: a command that was stopped goes on, and further seeds are added.
"""
import argparse
import re
import shlex
import signal
import sys
from pathlib import Path

from expblip import pipeline
from expblip.config import check_params
from expblip.graph import GraphError, check, expand, notebook_parameters, parse_override, read_graph, select
from expblip.runs import Run, cores

HERE = Path(__file__).resolve().parent
PAIRS = [f'{encoder}-{lm}' for encoder in ('small', 'large') for lm in ('small', 'large')]
MID = (  # tiny with fewer updates, the same for small and large
    'encoder.steps=1000', 'lm.steps=200', 'lm.soft_steps=2500', 'blip2.steps1=250', 'step1.steps=90',
    'blip2-small-small.faces=2500', 'blip2-large-small.faces=2500',
    *(f'step2-{model}-{pair}.steps={steps}' for model, steps in (('au', 700), ('emot', 300), ('exp', 950)) for pair in PAIRS))
SETTINGS = {'mid': ('tiny', MID)}  # what --scale may also be: a scale, and parameters on top


def plan(root: Path, name: str, scale: str, seeds: int, given: list[str], workers: int = 0) -> Run:
    "The stages of scaling.yaml as a run; GraphError lists every fault."
    if seeds < 1: raise GraphError(f'--seeds {seeds}: give a number of seeds, 1 or more')
    if not re.fullmatch(r'\w[\w.-]*', name) or name.startswith('reference'):
        raise GraphError(f'--run {name!r}: use letters, digits, dots, dashes and underscores; reference* is what the repository keeps')
    base, more = SETTINGS.get(scale, (scale, ()))
    graph = read_graph(HERE / 'scaling.yaml')
    every = expand(graph, name, base, range(seeds), 'auto', [parse_override(text) for text in (*more, *given)])
    for instance in every.values():  # `encoder`, `lm` and `pair` name instances; to a notebook they are said only where it reads such a folder
        known = notebook_parameters(root / instance.notebook)
        for variable in ('encoder', 'lm', 'pair'):
            if variable not in known: instance.params.pop(variable, None)
    chosen = select(every, graph['default'])
    check(chosen, root, check_params)
    made = [int(p.name[4:]) + 1 for p in (root / 'outputs' / name).glob('seed*') if p.name[4:].isdigit()]  # stage 96 judges what is there
    command = ['python', 'tools/scaling.py', '--scale', scale, '--seeds', str(max(seeds, *made, 0))] + ['--run', name] * (name != 'scaling')
    command += [word for text in given for word in ('-p', text)]
    return Run(root, name, chosen, preload=read_graph(root / 'pipeline.yaml')['preload'], scale=base, workers=workers or min(2, cores()),
               command=shlex.join(command))


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument('--scale', default='mid', help='mid (70 CPU-minutes for the first seed, 40 for each further one), or a scale of the pipeline')
    ask.add_argument('--seeds', type=int, default=1)
    ask.add_argument('--run', default='scaling')
    ask.add_argument('-n', dest='workers', type=int, default=0, help='notebooks side by side')
    ask.add_argument('-p', action='append', default=[], metavar='STAGE.KNOB=VALUE')
    said = ask.parse_args()
    try:
        work = plan(HERE.parent, said.run, said.scale, said.seeds, said.p, said.workers)
    except GraphError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, pipeline._interrupted(work))
    print(f'run {said.run}: scale {said.scale}, {len(work.instances)} stages, {work.workers} side by side, outputs/{said.run}', flush=True)
    return pipeline.run(work)


if __name__ == '__main__': sys.exit(main())
