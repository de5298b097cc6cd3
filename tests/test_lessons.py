"""The lessons: their shape, and that each runs from the first cell to the last with the small settings.

They are executed here and nowhere else (nbs/lessons/.notest keeps nbdev_test out), in a kernel of their own, as a reader runs them.
"""
import ast
import json
import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

from expblip.lessons import LESSONS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / 'nbs' / 'lessons'
BOOKS = sorted(FOLDER.glob('[0-9]*.ipynb'))
QUESTIONS = FOLDER / 'questions.ipynb'
CPU_SECONDS = 40
each = pytest.mark.parametrize('book', BOOKS, ids=lambda p: p.stem)

def cells(book: Path) -> list[tuple[str, str, dict]]:
    "Kind, source and the cell itself, of every cell."
    return [(c['cell_type'], ''.join(c['source']), c) for c in json.loads(book.read_text())['cells']]

def tree(code: str) -> ast.AST:
    "Syntax tree of a cell, magics left out."
    return ast.parse('\n'.join(x for x in code.splitlines() if not x.lstrip().startswith(('%', '!'))))

def assigned(code: str) -> set[str]:
    "Names that a cell sets."
    return {n.id for n in ast.walk(tree(code)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}

def predicted(code: str) -> list[str]:
    "Names that a cell sets to a prediction."
    found = [n for n in ast.walk(tree(code)) if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)]
    return [n.targets[0].id for n in found if getattr(n.value.func, 'id', '') == 'predict' and isinstance(n.targets[0], ast.Name)]

def revealed(code: str) -> list[tuple[str, set[str], bool]]:
    "Predictions that a cell reveals: name, names that the measured value is made of, whether it is computed right there."
    calls = [n for n in ast.walk(tree(code)) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == 'reveal']
    parts = [(n.func.value.id, [x for a in n.args for x in ast.walk(a)]) for n in calls]
    return [(name, {x.id for x in nodes if isinstance(x, ast.Name)}, any(isinstance(x, ast.Call) for x in nodes)) for name, nodes in parts]

def headings(book: Path) -> set[str]:
    "All headings of a notebook, without their marks."
    return {m.strip() for kind, s, _ in cells(book) if kind == 'markdown' for m in re.findall(r'^#+ (.+)$', s, re.M)}

def test_every_lesson_has_its_place_on_the_map():
    assert [b.stem for b in BOOKS] == [name for name, _, _ in LESSONS.values()]

@each
def test_title_is_the_map_s(book):
    assert cells(book)[0][1].splitlines()[0] == f'# {book.stem[0]} {LESSONS[int(book.stem[0])][1]}'

@each
def test_it_shows_the_map_first(book):
    "The first output of the page is the map, with this lesson marked."
    shown = next((s, c['outputs']) for kind, s, c in cells(book) if kind == 'code' and c['outputs'])
    assert shown[0].strip() == f'where({book.stem[0]})'
    html = ''.join(shown[1][0]['data']['text/html'])
    assert '&#9664; here' in html and all(title in html for _, title, _ in LESSONS.values())

@each
def test_predictions_come_before_their_answers(book):
    "At least two; each is revealed in a later cell, with a value that was computed in between or right there, and not before."
    code = [s if kind == 'code' else '' for kind, s, _ in cells(book)]
    stated = {n: i for i, s in enumerate(code) for n in predicted(s)}
    answers = {n: (i, names, calls) for i, s in enumerate(code) for n, names, calls in revealed(s)}
    assert len(stated) >= 2 and set(stated) == set(answers)
    for name, asked in stated.items():
        shown, names, calls = answers[name]
        between = names & set().union(*map(assigned, code[asked + 1:shown + 1]))
        before = set().union(*map(assigned, code[:asked + 1]))
        assert asked < shown and (between or calls) and not between & before, f'{name}: its answer was on the page before it was asked'

@each
def test_exercises_have_solutions(book):
    "At least two: heading, a cell to try in, a folded solution that runs."
    found, all_cells = 0, cells(book)
    for i, (kind, s, _) in enumerate(all_cells):
        if kind != 'markdown' or not re.search(r'^### Exercise', s, re.M): continue
        (turn_kind, turn, _), (kind, solution, cell) = all_cells[i + 1:i + 3]
        assert turn_kind == kind == 'code' and turn.startswith('# your turn') and solution.startswith('# solution'), s
        assert cell['metadata'] == {'jupyter': {'outputs_hidden': True, 'source_hidden': True}, 'tags': ['hide-cell']}
        assert cell['outputs'] or 'assert' in solution, 'a solution shows or asserts what it found'
        found += 1
    assert found >= 2

@each
def test_it_reads_like_a_lesson(book):
    "25 to 60 short cells, and at least as many Markdown cells as a third of all."
    kinds = [kind for kind, _, _ in cells(book)]
    lengths = sorted(len(s.splitlines()) for kind, s, _ in cells(book) if kind == 'code')
    assert 25 <= len(kinds) <= 80 and kinds.count('markdown') >= len(kinds) / 3
    assert lengths[len(lengths) // 2] <= 5 and lengths[-1] <= 25

@each
def test_the_committed_page_was_run_in_full_within_three_minutes(book):
    "The last cell shows the CPU time of the full settings."
    kind, source, cell = cells(book)[-1]
    said = ''.join(cell['outputs'][0]['data']['text/plain'])
    assert source.strip() == 'spent()' and int(re.fullmatch(r"'(\d+) s of CPU time'", said)[1]) < 180

@each
def test_it_runs_with_the_small_settings(book, monkeypatch, capsys):
    "From the first cell to the last, offline, within the CPU time; wall time is not judged."
    monkeypatch.setenv('EXPBLIP_SMALL', '1')
    page = nbformat.read(book, 4)
    page.cells.append(nbformat.v4.new_code_cell('import os\nsum(os.times()[:4])'))
    NotebookClient(page, timeout=600, kernel_name='python3', resources={'metadata': {'path': str(FOLDER)}}).execute()
    seconds = float(page.cells[-1].outputs[0].data['text/plain'])
    with capsys.disabled(): print(f'\n{book.stem}: {seconds:.1f} s of CPU time')
    assert seconds < CPU_SECONDS

# ---------------------------------------------------------------- what is read from the reference run

def shown_by(book: Path) -> str:
    "All HTML that a page shows."
    found = [o.get('data', {}).get('text/html', '') for _, _, c in cells(book) for o in c.get('outputs', ())]
    return '\n'.join(''.join(x) for x in found)

def test_lessons_6_and_9_show_the_committed_reference_run():
    "A new reference run makes this fail until both pages have been run again; lesson 9 types none of its numbers into a sentence."
    report, sixth, ninth = ROOT / 'outputs' / 'reference' / 'report', *(FOLDER / f'{LESSONS[n][0]}.ipynb' for n in (6, 9))
    facts = pd.read_csv(report / 'facts.csv').query('decode == "greedy"').set_index(['model', 'dataset'])
    told, page = pd.read_csv(report / 'findings.csv').query('not id.str.endswith("/flattened")'), shown_by(ninth)
    assert facts.au_f1_full['exp', 'drawn-affectnet'] in shown_by(sixth) and facts.emotion_accuracy['exp', 'drawn-rafau'] in shown_by(sixth)
    assert len(told) > 10 and all(ours in page for ours in told.ours), 'run nbs/lessons/9_findings.ipynb again'
    assert not [s for kind, s, _ in cells(ninth) if kind == 'markdown' and re.search(r'\b0\.\d', s)]

# ---------------------------------------------------------------- ten questions

def asked() -> list[tuple[str, str]]:
    "Heading and answer of every question."
    text = '\n\n'.join(s for kind, s, _ in cells(QUESTIONS) if kind == 'markdown')
    return [(q.strip(), rest) for q, rest in re.findall(r'^## (\d+ .+?)$(.*?)(?=^## |\Z)', text, re.M | re.S)]

def test_every_question_is_answered_and_says_where():
    "A folded answer, and a link to the lesson with the heading that makes it answerable; both exist."
    questions, named = asked(), set()
    assert [int(q.split()[0]) for q, _ in questions] == list(range(1, len(questions) + 1)) and len(questions) == 10
    for question, rest in questions:
        answer = re.search(r'<details>\s*<summary>Answer</summary>\n\n(.+?)\n\n</details>', rest, re.S)
        assert answer and len(answer[1].split()) > 15, question
        places = re.findall(r'\[(\d) ([^\]]+)\]\((\d_\w+)\.ipynb\), "([^"]+)"', answer[1])
        assert places, question
        for number, title, name, heading in places:
            assert LESSONS[int(number)][:2] == (name, title) and heading in headings(FOLDER / f'{name}.ipynb'), (question, heading)
        named |= {int(number) for number, *_ in places}
    assert named == set(LESSONS), 'each lesson is asked about'
