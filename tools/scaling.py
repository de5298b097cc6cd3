"""Two image encoders by two language models (paper 4.3), on the drawn world: `python tools/scaling.py [--scale smoke] [--seeds 1] [-p ...]`.

For each of the four pairs the stages 01-03 make a start (`outputs/scaling-start-<encoder>-<lm>`), then the usual stages train AU-BLIP and Exp-BLIP
from it (`outputs/scaling-<encoder>-<lm>`); stage 96 puts them side by side. What is fresh is not made again, so a command that was stopped goes on.
"""
import argparse
import subprocess
import sys

ENCODERS = {'small': ['encoder.width=64', 'encoder.layers=1'], 'large': ['encoder.width=160', 'encoder.layers=2']}
LANGUAGES = {'small': ['lm.width=96', 'lm.layers=2'], 'large': ['lm.width=192', 'lm.layers=4']}
READERS = ('features', 'step1', 'step2', 'caption')  # the stages that begin from a start


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument('--scale', default='smoke')
    ask.add_argument('--seeds', default='1')
    ask.add_argument('--runs', default='scaling')
    ask.add_argument('-p', action='append', default=[])
    said = ask.parse_args()

    def run(name: str, only: list[str], settings: list[str], seeds: str = '1') -> None:
        wanted = [word for stage in only for word in ('--only', stage)] + [word for setting in settings for word in ('-p', setting)]
        command = [sys.executable, '-m', 'expblip.pipeline', 'run', '--run', name, '--scale', said.scale, '--seeds', seeds, *wanted]
        print(' '.join(command[1:]), flush=True)
        subprocess.run(command, check=True)

    def mine(stages: set[str]) -> list[str]: return [text for text in said.p if text.split('.')[0].split('-')[0] in stages]

    for encoder, its in ENCODERS.items():
        for language, own in LANGUAGES.items():
            start = f'{said.runs}-start-{encoder}-{language}'
            run(start, ['blip2'], its + own + mine({'encoder', 'lm', 'blip2'}))
            init = [f'{stage}.init=outputs/{start}/shared/blip2' for stage in READERS]
            run(f'{said.runs}-{encoder}-{language}', ['caption-au', 'caption-exp'], init + mine({'data', 'synthesize', 'fuse', *READERS}), said.seeds)
    run(said.runs, ['scaling'], [f'scaling.runs={said.runs}'])


if __name__ == '__main__': main()
