"""The same graph for doit's own commands: `doit list --all --status`, `doit -n 2 -P thread`, `doit info stage:seed0/step1-au`.

The settings come from the environment: RUN, SCALE, SEEDS, DATA, P (parameters, separated by spaces). `python -m expblip.pipeline`
is the fuller command: lock, progress lines, one import of the heavy modules, the closing table.
"""

import atexit
import os

from expblip.kernels import Kernels, kernel_environment
from expblip.pipeline import doit_tasks
from expblip.runs import cores, plan

DOIT_CONFIG = {"default_tasks": ["stage"], "continue": True, "verbosity": 2, "backend": "json", "dep_file": ".doit.json"}


def task_stage():
    """One notebook of the graph."""
    get = os.environ.get
    scale = get("SCALE", "tiny")
    run = plan(get("RUN", scale), scale, get("SEEDS", "1"), get("P", "").split(), data=get("DATA", ""))
    run.kernels = Kernels(run.root, kernel_environment(max(1, cores() // run.workers), scale))
    run.kernels.__enter__()
    atexit.register(run.kernels.close)
    yield from doit_tasks(run)
