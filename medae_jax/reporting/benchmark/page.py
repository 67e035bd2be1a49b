"""The benchmark's HTML page, and the call that writes all its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import pathlib

from absl import logging

from medae_jax.core import files
from medae_jax.reporting import page as pages
from medae_jax.reporting.benchmark import published, summary, tables as text_tables, words
from medae_jax.reporting.benchmark.picture import critical_difference
from medae_jax.reporting.benchmark.runs import Found, find
from medae_jax.reporting.benchmark.summary import SCORES, Cell
from medae_jax.reporting.plots import number, text


def write(folders: Sequence[str | os.PathLike], output: pathlib.Path,
          compared: pathlib.Path | None = None) -> pathlib.Path:
  """Writes all files to `output`; returns the HTML page, with a link to the comparison where there is one.

  Raises:
    FileNotFoundError: a folder is not there, or holds no run. UserError: a damaged file.
  """
  found = find(folders)
  scores = summary.scores_of(found.runs) or ["image_auroc"]
  tables = {score: summary.table(found.runs, score) for score in scores}
  ranking = summary.ranking(tables[scores[0]])
  files.write_csv(output / "runs.csv", [text_tables.row_of_run(r, scores) for r in found.runs])
  files.write_csv(output / "cells.csv", text_tables.rows_of_classes(tables))
  files.write_csv(output / "table.csv", text_tables.rows_of_cells(tables))
  svg = ""
  if ranking.found is not None:
    svg = critical_difference(words.names(ranking.methods), ranking.found)
    files.write_bytes(output / "critical_difference.svg", svg.encode())
  else:
    (output / "critical_difference.svg").unlink(missing_ok=True)  # of an earlier call
  files.write_bytes(output / "benchmark.md", text_tables.markdown(found, tables, ranking).encode())
  path = files.write_bytes(output / "benchmark.html", html(found, tables, ranking, svg, compared))
  done = sum(r.result is not None for r in found.runs)
  logging.info("Benchmark of %d runs, %d missing: %s", done, len(found.runs) - done, path)
  return path


# -------------------------------------------------------------------------------------------- HTML
def html(found: Found, tables: Mapping[str, Mapping], ranking: summary.Ranking, svg: str,
         compared: pathlib.Path | None = None) -> bytes:
  """The page."""
  cells = next(iter(tables.values()))
  body = ["<h1>Benchmark</h1>", _summary(found, cells)]
  if compared is not None:
    body.append(f"<p><a href='{text(compared.name)}'>Every pair of runs on the same cases</a></p>")
  if any(c.synthetic for c in cells.values()):
    body.append(pages.SYNTHETIC)
  for score in tables:
    body.append(f"<h2>{SCORES[score]}</h2>" + _table(found, tables[score], score,
                                                    words.ranks(ranking) if tables[score] is cells else {}))
  body.append(f"<h2>Ranks</h2><p>{text(words.ranking_sentence(ranking))}</p>{svg}")
  body.append(f"<p class='what'>{text(words.HOW)}</p>")
  body += [_classes(cells), _folds(found)]
  for title, names in words.lists(found):
    items = "".join(f"<li>{text(n)}</li>" for n in names)
    body.append(f"<h2>{text(title)}</h2><details{' open' if len(names) <= 20 else ''}><summary>{len(names)}"
                f"</summary><ul>{items}</ul></details>")
  return pages.page("medae_jax benchmark", body)


def _summary(found, cells) -> str:
  done = sum(r.result is not None for r in found.runs)
  none = found.unpublished
  more = f"; {len(none)} launches of the published runner have no config" if none else ""
  return (f"<div class='say'>{done} of {len(found.runs)} runs; {len(words.rows(cells))} methods on "
          f"{len(words.columns(cells))} data sets{more}.</div>")


def _table(found, cells, score, rank) -> str:
  data, base = words.columns(cells), summary.trivial(found.runs, score)
  most = {d: max(c.classes for (_, e), c in cells.items() if e == d) for d in data}  # means compare there
  best = {d: max((c.mean for (_, e), c in cells.items() if e == d and c.classes == most[d]
                  and c.mean is not None), default=None) for d in data}
  sizes = {d: {c.images for (_, e), c in cells.items() if e == d and c.images} for d in data}
  shown = {d: "".join(f"<br><span class='ci'>{n:,} test images</span>" for n in sizes[d]) for d in data}
  head = "".join(f"<th>{text(d)}{shown[d]}</th>" for d in data)
  rows = []
  for method in words.rows(cells):
    shown = "".join(_html_cell(cells.get((method, d)), method, d, score, best[d]) for d in data)
    trunk = text(method[1] or "no pretrained trunk")
    place = f"<td>{rank.get(method, '&ndash;')}</td>" if rank else ""
    rows.append(f"<tr><td>{text(method[0])}<br><span class='ci'>{trunk}</span></td>{shown}{place}</tr>")
  if base:
    shown = "".join(f"<td>{number(base.get(d))}</td>" for d in data)
    rows.append("<tr class='ci'><td>plain intensity<br><span class='ci'>no network; the better of two scores"
                f"</span></td>{shown}{'<td>&ndash;</td>' if rank else ''}</tr>")
  return (f"<div class='wide'><table><tr><th>method, trunk</th>{head}"
          f"{'<th>average rank</th>' if rank else ''}</tr>"
          + "".join(rows) + "</table></div>")


def _html_cell(cell: Cell | None, method, data, score, best) -> str:
  quoted = published.figures(method[0], data) if score == "image_auroc" else []
  other = published.differences(method[0], data, method[1], cell.images) if cell else ""
  papers = "".join(f"<br><span class='paper' title='{text(published.SOURCES[f.source])}'>"
                   f"{'re-run' if f.source == 'rerun' else 'paper'} {words.figure(f)}"
                   f"{other}</span>" for f in quoted)
  if cell is None:
    return f"<td class='none'>not planned{papers}</td>"
  if cell.mean is None:
    return f"<td class='none'>missing: 0 of {cell.of} runs{papers}</td>"
  mean = f"<span class='best'>{number(cell.mean)}</span>" if cell.mean == best else number(cell.mean)
  spread = f" ± {number(cell.std_runs)}" if cell.std_runs is not None else ""
  low = ""
  if cell.interval:
    low = (f"<br><span class='ci'>[{number(cell.interval[0])}, {number(cell.interval[1])}] over {cell.over}"
           "</span>")
  whole = "" if cell.runs == cell.of else " class=some"
  return (f"<td{whole}>{mean}{spread}{low}<br><span class='ci'>{text(words.count(cell))}</span>{papers}</td>")


def _classes(cells) -> str:
  """Every class, folded; data sets of one class are in the table above."""
  parts = []
  for data in words.columns(cells):
    own = {m: c for (m, d), c in cells.items() if d == data}
    classes = sorted({cls for c in own.values() for cls in c.by_class if cls})
    if len(classes) < 2:
      continue
    head = "".join(f"<th>{text(c)}</th>" for c in classes)
    rows = "".join(
        f"<tr><td>{text(words.name(m))}</td>" + "".join(
            f"<td>{number(sum(v) / len(v))} <span class='ci'>({len(v)})</span></td>"
            if (v := c.by_class.get(k)) else "<td class='none'>missing</td>" for k in classes) + "</tr>"
        for m, c in own.items())
    parts.append(f"<details open><summary>{text(data)}</summary><div class='wide'><table><tr>"
                 f"<th>mean (runs)</th>{head}</tr>{rows}</table></div></details>")
  return "<h2>Class by class</h2>" + "".join(parts) if parts else ""


def _folds(found) -> str:
  rows = summary.folds(found.runs, "image_auroc")
  if not rows:
    return ""
  lines = "".join(f"<tr><td>{text(r['method'])}</td><td>{text(r['data'])}</td><td>{text(r['class'])}</td>"
                  f"<td>{r['setting']}</td><td>{number(r['mean'])}</td><td>{number(r['std'])}</td>"
                  f"<td>{r['folds']}/{r['of']}</td></tr>" for r in rows)
  return ("<h2>Folds of the search</h2><p>Image AUROC against validation anomalies of one kind: it chooses, "
          f"it is no result.</p><details><summary>{len(rows)} settings</summary><table><tr><th>method</th>"
          "<th>data</th><th>class</th><th>setting</th><th>mean</th><th>sd over folds</th><th>folds</th></tr>"
          + lines + "</table></details>")


