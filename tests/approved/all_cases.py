"""{name of a text: what makes it in a folder of its own}, by what they show."""

from tests.approved import data_sets, of_run, of_runs, pictures, programs, whole_run

WRITERS = {**of_run.CASES, **of_runs.CASES, **pictures.CASES}
RUNS, DATA_SETS, PROGRAMS = whole_run.CASES, data_sets.CASES, programs.CASES
CASES = {**WRITERS, **RUNS, **DATA_SETS, **PROGRAMS}
