"""The launcher file of a sweep for SLURM: one job array, runs that ended are resumed or repeated."""

from __future__ import annotations

from collections.abc import Sequence
import os
import pathlib
import shlex
import sys

from medae_jax.core import files

FILE = "slurm.sh"
_OWN = ("config.sweep.slurm", "config.sweep.shard", "config.sweep.retries")  # set by the file itself

_TEXT = """#!/usr/bin/env bash
# Written by --mode=sweep. `bash {name}` submits {n} tasks{twice} and a last one that does what is left
# and writes the table; the same command again repeats only what is not complete.
# Options of your cluster: SBATCH_OPTIONS="--partition=gpu --gres=gpu:1 --time=12:00:00" bash {name}
# A task that the cluster stops saves its run, is put back into the queue, and goes on there.
#SBATCH --job-name=medae_jax
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -u
cd {folder}

if [ -z "${{SLURM_JOB_ID:-}}" ]; then  # not in a job: submit
  set -e
  mkdir -p {logs}
  submit() {{ sbatch --parsable ${{SBATCH_OPTIONS:-}} --output={logs}/%A_%a.txt "$@" {path}; }}
  last=$(submit --array=0-{top})
{second}  last=$(submit --array={n} --dependency="afterany:$last")
  echo "submitted; the last job is $last; logs: {logs}"
  exit
fi

task=${{SLURM_ARRAY_TASK_ID}}
if [ "$task" -lt {n} ]; then shard="($task,{n})"; else shard="(0,1)"; fi
code=1
for attempt in 1 2 3; do
  {command} --config.sweep.shard="$shard" --config.sweep.retries=1 &
  child=$!
  trap 'stopped=1; kill -TERM "$child"' TERM
  wait "$child"; code=$?  # a signal ends it early
  while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
  if [ -n "${{stopped:-}}" ]; then scontrol requeue "$SLURM_JOB_ID"; exit 0; fi
  if [ "$code" -eq 0 ]; then exit 0; fi
  echo "attempt $attempt ended with $code"
done
exit "$code"
"""


def write(workdir, tasks: int, *, searches: bool, argv: Sequence[str] | None = None) -> pathlib.Path:
  """Writes <workdir>/slurm.sh.

  Args:
    tasks: of the job array; task i trains every tasks-th run from the i-th on.
    searches: a search comes first: the array is submitted twice, for the folds and the final runs.
    argv: the command line of the sweep; default that of this process.

  Returns:
    Its path.
  """
  path = pathlib.Path(workdir).absolute() / FILE
  quoted = lambda p: shlex.quote(str(p))
  again = f'  last=$(submit --array=0-{tasks - 1} --dependency="afterany:$last")\n' if searches else ""
  body = _TEXT.format(
      n=tasks, top=tasks - 1, name=path.name, path=quoted(path), folder=quoted(os.getcwd()),
      logs=quoted(path.parent / "slurm"), second=again, command=_command(sys.argv if argv is None else argv),
      twice=" for the folds, as many for the final runs" if searches else "")
  return files.write_bytes(path, body.encode())


def _command(argv: Sequence[str]) -> str:
  """The command line without what the file sets, for the same Python."""
  kept, skip = [], False
  for word in argv:
    flag, equals, _ = word.lstrip("-").partition("=")
    if skip or (word.startswith("-") and flag in _OWN):
      skip = not skip and not equals  # "--flag value" in two words
      continue
    kept.append(word)
  start = [sys.executable] if kept and kept[0].endswith(".py") else []
  return shlex.join([*start, *kept])
