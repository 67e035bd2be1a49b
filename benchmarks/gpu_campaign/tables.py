"""Markdown of what the campaign measured; shares are of the peaks that the same campaign measured."""

from __future__ import annotations

from benchmarks.gpu_campaign import units


def page(state: dict, names) -> str:
  """All tables, part by part, with the machine, what failed and what is missing."""
  machine = state["machine"]
  lines = [f"# Accelerator campaign, {machine['date']}, --size={state['size']} --device={state['device']}",
           "",
           f"Host: {machine['cpu']}, {machine['cores']} core(s); {machine['versions']}. Command: "
           f"`python -m {' '.join(['benchmarks.gpu_campaign', *machine['command'].split()[1:]])}`."]
  for part, title in units.PARTS.items():
    inside = [n for n in names if n in state["units"] and state["units"][n]["part"] == part]
    if inside:
      lines += ["", f"## ({part}) {title}"]
    for name in inside:
      lines += ["", unit_text(name, state["units"][name], state)]
  missing = [n for n in names if n not in state["units"]]
  if missing:
    lines += ["", f"Not measured: {', '.join(missing)}."]
  return "\n".join(lines) + "\n"


def unit_text(name: str, unit: dict, state: dict) -> str:
  """The table of one unit, and in one line why it failed."""
  text = f"**{name}**: failed: {unit['why']}" if unit["status"] == "failed" else ""
  if unit["result"] is None:
    return text
  make = {"a": _facts, "b": _steps, "c": _flags, "d": _feed, "e": _evaluation, "f": _tests, "g": _starts,
          "h": _kernels, "i": _norm}[unit["part"]]
  return "\n\n".join(filter(None, [text, make(name, unit["result"], state)]))


def _table(columns, rows) -> str:
  lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
  return "\n".join(lines + ["| " + " | ".join(str(v) for v in row) + " |" for row in rows])


def _peaks(state):
  """(bf16 FLOP/s, float32 FLOP/s as it comes, bytes/s), None where part (a) is not there."""
  facts = (state["units"].get("facts") or {}).get("result")
  if not facts:
    return None, None, None
  products = facts["products"]
  return (products["bfloat16 default"]["flops_per_s"], products["float32 default"]["flops_per_s"],
          facts["copy_bytes_per_s"])


def _share(value, peak) -> str:
  return f"{100 * value / peak:.0f} %" if value and peak else ""


def _facts(_, found, state) -> str:
  rows = [("device", f"{found['device']['kind']} x {found['device']['count']}"),
          ("nvidia-smi", found["nvidia_smi"]), ("versions", found["versions"])]
  if found["memory_bytes"]:
    rows.append(("memory for this process", f"{found['memory_bytes'] / 2**30:.1f} GiB"))
  rows += [(f"products, {name}", f"{p['flops_per_s'] / 1e12:.4g} TFLOP/s (side {p['size']})")
           for name, p in found["products"].items()]
  rows += [("copy, read + written", f"{found['copy_bytes_per_s'] / 1e9:.4g} GB/s"),
           ("host to device", f"{found['host_to_device_bytes_per_s'] / 1e9:.3g} GB/s"),
           ("one dispatch", f"{found['dispatch_us']:.3g} us")]
  return _table(("what", "measured"), rows)


def _rate(row) -> str:
  if row.get("error") or "images_per_s" not in row:
    return f"failed: {row.get('error')}"
  return f"{row['images_per_s']:.4g} ({row['slowest']:.4g} to {row['fastest']:.4g})"


def _steps(name, found, state) -> str:
  rows = []
  bf16, f32, bandwidth = _peaks(state)
  for run in found["runs"]:
    # One program's counts serve the contender that repeats it in a scan.
    counts = {}
    for row in run["rows"]:
      if row.get("program"):
        counts[row["name"].split(" x")[0]] = row["program"]
    for row in run["rows"]:
      cells = [row["name"], row["batch"], _rate(row)]
      if "images_per_s" in row:
        program = counts.get(row["name"].split(" x")[0]) or {}
        steps_per_s = 1e3 / row["ms_per_step"]
        peak = bf16 if "bf16" in row["name"] or "bfloat16" in row["name"] else f32
        cells += [f"{row['ms_per_step']:.4g}", f"{row['ratio_to_first'] or 0:.2f}",
                  f"{row['peak_bytes'] / 2**30:.2f} GiB", f"{row['first_step_s']:.0f} s",
                  _share((program.get("flops") or 0) * steps_per_s, peak),
                  _share((program.get("bytes") or 0) * steps_per_s, bandwidth),
                  program.get("kernels", "")]
      rows.append(cells + [""] * (10 - len(cells)))
  columns = ("contender", "batch", "images/s (slowest to fastest)", "ms/step", "ratio to the first",
             "peak memory", "first step", "of peak FLOP/s", "of copy bandwidth", "kernels")
  return f"{name}; {found['cpu']}\n\n{_table(columns, rows)}"


def _flags(_, found, state) -> str:
  rows = list(found["rows"].items())
  first = rows[0][1].get("images_per_s")
  cells = [(name, f"`{row['flag']}`" if row["flag"] else "", _rate(row),
            f"{row['images_per_s'] / first:.3f}" if first and "images_per_s" in row else "",
            f"{row['first_step_s']:.0f} s" if row.get("first_step_s") else "",
            (row.get("program") or {}).get("kernels", "")) for name, row in rows]
  return _table((f"DAE, bfloat16, batch {found['setting']['batch']}", "flag", "images/s", "ratio",
                 "first step", "kernels"), cells)


def _norm(_, found, state) -> str:
  cells = []
  for batch, rows in found["steps"].items():
    first = rows["plain"].get("images_per_s")
    ratio = lambda row, one=first: f"{row['images_per_s'] / one:.3f}" if one and "images_per_s" in row else ""
    cells += [(batch, name, _rate(row), ratio(row), (row.get("program") or {}).get("kernels", ""))
              for name, row in rows.items()]
  errors = [(name, *(f"{v:.1e}" for v in row["error"].values()), "yes" if row["within"] else "NO")
            for name, row in found["layers"].items()]
  return "\n\n".join([
      _table(("DAE, bfloat16, batch", "model.norm_kernel", "images/s", "ratio", "kernels"), cells),
      _table((f"pallas against plain, float32, of the largest value (at most {found['limit']:g})", "y", "x",
              "bias", "scale", "shift", "within"), errors)])


def _feed(_, found, state) -> str:
  first = next(iter(found["rates"].values()))["median"]
  return _table((f"DAE, bfloat16, batch {found['setting']['batch']}", "images/s", "of the first"), [
      (name, f"{r['median']:.4g} ({r['min']:.4g} to {r['max']:.4g})", f"{100 * r['median'] / first:.1f} %")
      for name, r in found["rates"].items()])


def _evaluation(name, found, state) -> str:
  if "found" in found:
    seconds = {side: sum(f["seconds"].values()) for side, f in found["found"].items()}
    rows = [(side, f"{seconds[side]:.4g} s", f"{found['slices'] / seconds[side]:.4g}",
             ", ".join(f"{v:.5f}" for v in f["figures"])) for side, f in found["found"].items()]
    columns = (f"{name}, {found['slices']} slices", "in all", "slices/s",
               "AP, best Dice, threshold, Dice after the filter")
    ratio = seconds["reference"] / seconds["medae_jax"]
    return f"{_table(columns, rows)}\n\nReference / ours: {ratio:.2f} times."
  # The metrics: the reference saw a share of the scans, ours all of them and that share.
  rows = [(side, f"{sum(f['seconds'].values()):.4g} s", ", ".join(f"{v:.5f}" for v in f["figures"]))
          for side, f in found.items() if isinstance(f, dict) and "seconds" in f]
  return _table((name, "in all", "AP, best Dice, threshold, Dice after the filter"), rows)


def _tests(name, found, state) -> str:
  if "passed" in found:
    rows = [(name, found["passed"], len(found["failed"]), len(found["skipped"]))]
    text = _table(("tests", "passed", "failed", "skipped"), rows)
    return "\n".join([text, *(f"- failed: {f}" for f in found["failed"][:20]),
                      *(f"- skipped: {s}" for s in found["skipped"][:3])])
  rows = [(task, form, f"{r['loss']:.2g} (at most {r['limit'][0]:g})",
           f"{r['cosine']:.5f} (at least {r['limit'][1]:g})", "yes" if r["within"] else "NO")
          for task, forms in found.items() for form, r in forms.items()]
  return _table(("ten steps against full float32", "form", "largest relative error of a loss",
                 "cosine of the updates", "within"), rows)


def _starts(_, found, state) -> str:
  rows = [(name, *(f"{s[k]:.1f}" for k in ("import", "network", "first step", "whole")))
          for name, s in found["starts"].items()]
  columns = ("DAE, seconds from the start of the process to", "imports", "network", "step 1", "its end")
  return _table(columns, rows)


def _kernels(name, found, state) -> str:
  bf16, _, bandwidth = _peaks(state)
  rows = []
  for k in found["kernels"][:20]:
    least = max(k["bytes"] / bandwidth if bandwidth else 0, k["flops"] / bf16 if bf16 else 0)
    rows.append((k["name"], f"{1e6 * k['seconds']:.1f}", _share(k["seconds"], found["in_kernels_s"]),
                 f"{k['bytes'] / 1e6:.1f}", f"{k['flops'] / 1e9:.2f}", _share(least, k["seconds"]),
                 k["source"][-60:].replace("|", "/")))
  text = (f"{name}: {1e3 * found['step_s']:.3g} ms a step, {1e3 * found['in_kernels_s']:.3g} ms in named "
          f"kernels, {1e3 * found['unnamed_s']:.3g} ms in others; {found['count']} kernels, "
          f"{found['bytes'] / 1e9:.3g} GB, {found['flops'] / 1e12:.3g} TFLOP of convolutions; the memory "
          f"roofline is {_share(found['bytes'] / bandwidth, found['step_s']) if bandwidth else 'unknown'} "
          "of the step.")
  columns = ("kernel", "us", "of the step", "MB", "GFLOP", "of its roofline", "source")
  return f"{text}\n\n{_table(columns, rows)}"
