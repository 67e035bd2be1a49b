// The page of --mode=serve: sends files to /api/score, draws slices, moves the threshold. No library, nothing kept.
"use strict";
const $ = id => document.getElementById(id);
const TRUTH = [70, 230, 255];
let info = null, shown = null, sent = [], links = [], busy = false;

const number = v => typeof v !== "number" ? String(v ?? "") :
  Number.isInteger(v) ? String(v) : String(Number(v.toPrecision(4)));
const TITLES = {segmentation: "Lesion mask of an image", restoration: "Image without its marks"};
const mib = n => n < 1024 ? `${n} bytes` : n < 2 ** 20 ? `${(n / 1024).toFixed(0)} KiB` : `${(n / 2 ** 20).toFixed(1)} MiB`;

function say(words, working = false) {
  $("status").textContent = words;
  $("status").classList.toggle("busy", working);
}

function fail(words) {
  $("error").textContent = words;
  $("error").hidden = !words;
}

async function begin() {
  const answer = await fetch("/api/info");
  info = await answer.json();
  $("title").textContent = TITLES[info.task] ?? $("title").textContent;
  if (info.task === "segmentation") $("what").textContent = "probability";
  document.title = `${info.run} - medae_jax`;
  $("about").textContent = `Run ${info.run}: method ${info.method}, ${info.checkpoint}.`;
  const scan = info.modalities.length ?
    `one scan: ${info.modalities.join(", ")}, a file each (name_${info.modalities[0]}.nii.gz ...)` : "one image";
  $("wanted").textContent = `${scan}, also as a folder or a .zip; ${info.reads.slice(0, 4).join(" ")} ...; at most ${mib(info.max_bytes)}`;
  if (info.trained_on) {
    $("synthetic").textContent = `Trained on ${info.trained_on} data: results say nothing about patients.`;
    $("synthetic").hidden = false;
  }
  $("run").textContent = `${info.calibration ? `Calibration: ${info.calibration}. ` : ""}medae_jax ${info.version}`;
}

// ------------------------------------------------------------------------------- files to the server
async function send(files, threshold) {
  if (!files.length || busy) return;
  busy = true;
  sent = files;
  fail("");
  for (const button of document.querySelectorAll("button")) button.disabled = true;
  say(`Scoring ${files.length === 1 ? files[0].name : `${files.length} files`} ...`, true);
  const body = new FormData();
  for (const file of files) body.append("file", file, file.name);
  try {
    const bytes = files.reduce((n, f) => n + f.size, 0);
    if (info && bytes > info.max_bytes) throw new Error(`${mib(bytes)} is more than ${mib(info.max_bytes)}: ` +
      "use --mode=predict, or start the server with a larger --max_mb");
    const asked = threshold ? `&threshold=${threshold}` : "";
    const answer = await fetch(`/api/score?include=files,view${asked}`, {method: "POST", body});
    const found = await answer.json().catch(() => ({detail: `the server answered ${answer.status}`}));
    if (!answer.ok) throw new Error(found.detail);
    await show(found);
    say(`Scored in ${number(found.seconds)} s.`);
    if (!threshold) $("name").focus({preventScroll: true});
  } catch (error) {
    say("");
    $("result").hidden = !threshold;
    fail(error instanceof TypeError ? `the server does not answer (${error.message}): does it still run?` : error.message);
  } finally {
    busy = false;
    $("file").value = "";
    for (const button of document.querySelectorAll("button")) button.disabled = false;
  }
}

async function dropped(transfer) {
  const found = [];
  const walk = async entry => {
    if (entry.isFile) {
      found.push(await new Promise((good, bad) => entry.file(good, bad)));
    } else if (entry.isDirectory) {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((good, bad) => reader.readEntries(good, bad));
        if (!some.length) break;
        for (const inner of some) await walk(inner);
      }
    }
  };
  const entries = [...transfer.items].map(item => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  for (const entry of entries) await walk(entry);
  return found;
}

// ------------------------------------------------------------------------------------------- results
function bytes(base64) {
  const text = atob(base64), data = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) data[i] = text.charCodeAt(i);
  return data;
}

async function unpacked(base64) {
  const stream = new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return await new Response(stream).arrayBuffer();
}

async function show(found) {
  $("result").hidden = false;
  $("name").textContent = found.input;
  const verdict = document.createElement("b");
  verdict.textContent = found.verdict ?? "no verdict";
  verdict.className = found.verdict ?? "none";
  const rest = [];
  if (found.score !== null) rest.push(`score ${number(found.score)}`);
  if (found.p_value !== null) rest.push(`p-value ${number(found.p_value)}`);
  $("verdict").hidden = info.task !== "anomaly"; // the others call no whole input anything
  if (!found.verdict) rest.push("validation has not given a threshold for whole inputs");
  $("verdict").replaceChildren(verdict, ` ${rest.join(", ")}`);
  $("warning").textContent = found.warning;
  $("warning").hidden = !found.warning;
  const rows = Object.entries(found.row).filter(([k, v]) => v !== "" && v !== null && !["error", "warning"].includes(k));
  $("numbers").tBodies[0].replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("tr");
    const text = number(value) + (name === "highest_slice" ? ` (slice ${value + 1} here)` : "");
    row.append(...[name.replaceAll("_", " "), text].map(text =>
      Object.assign(document.createElement("td"), {textContent: text})));
    return row;
  }));
  offer(found.files);
  await view(found);
}

function offer(files) {
  links.forEach(URL.revokeObjectURL);
  links = [];
  $("picture").hidden = true;
  $("files").replaceChildren(...files.map(file => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([bytes(file.base64)], {type: file.type}));
    link.download = file.name.split("/").pop();
    link.textContent = file.name;
    links.push(link.href);
    const item = document.createElement("li");
    item.append(link, ` ${mib(file.bytes)}`);
    return item;
  }));
  const picture = files.find(f => f.name.startsWith("compare")) ?? files.find(f => f.name.endsWith("_overlay.png"));
  if (picture) {
    const image = $("picture").querySelector("img");
    image.src = links[files.indexOf(picture)];
    image.alt = `${picture.name}: input and result side by side`;
  }
  $("picture").dataset.there = picture ? "yes" : "";
}

async function view(found) {
  const given = found.view, there = given !== null && given.image !== undefined;
  $("viewer").hidden = !there;
  $("again").hidden = true;
  $("picture").hidden = there || !$("picture").dataset.there;
  if (!there) { shown = null; return; }
  const [depth, height, width] = given.shape;
  shown = {...given, depth, height, width, threshold: found.threshold, chosen: found.threshold,
    image: new Uint8Array(await unpacked(given.image)), levels: new Uint16Array(await unpacked(given.levels)),
    mask: given.mask ? new Uint8Array(await unpacked(given.mask)) : null};
  shown.most = Math.max(given.high, found.threshold ? 1.25 * found.threshold : 0);
  for (const id of ["image", "map"]) {
    const canvas = $(id);
    canvas.width = width;
    canvas.height = height;
    canvas.style.aspectRatio = `${width * given.pixel[1]} / ${height * given.pixel[0]}`;
  }
  for (const side of document.querySelectorAll(".side")) side.hidden = !given.sides;
  $("slices").hidden = depth === 1;
  $("slice").max = depth;
  $("slice").value = given.first + 1;
  $("top").textContent = `${number(given.top)} and more`;
  $("reset").hidden = found.threshold === null;
  scale();
  move(found.threshold ?? given.top / 2, true);
}

function scale() {
  const context = $("scale").getContext("2d"), line = context.createImageData(256, 1);
  info.colours.forEach((c, i) => line.data.set([...c, 255], 4 * i));
  context.putImageData(line, 0, 0);
}

// The threshold in use; `place`: the slider follows. At that of validation the mask is the server's own.
function move(threshold, place) {
  shown.chosen = threshold;
  const part = (threshold - shown.low) / (shown.most - shown.low);
  if (place) $("threshold").value = Math.round(1000 * part);
  $("threshold").setAttribute("aria-valuetext", number(threshold));
  $("threshold-now").textContent = number(threshold);
  $("mark").style.left = `${100 * Math.min(1, Math.max(0, threshold / shown.top))}%`;
  draw();
}

function draw() {
  const v = shown, z = Number($("slice").value) - 1, size = v.height * v.width, start = z * size;
  const own = v.chosen === v.threshold && v.mask;
  const cut = (v.chosen - v.low) / (v.high - v.low) * 65535;
  const above = i => own ? v.mask[i] > 0 : v.levels[i] > cut;
  let all = 0, here = 0;
  for (let i = 0; i < v.levels.length; i++) all += above(i);
  const pictures = ["image", "map"].map(id => $(id).getContext("2d").createImageData(v.width, v.height));
  const heat = $("heat").checked, outline = $("outline").checked;
  for (let i = 0; i < size; i++) {
    const grey = v.image[start + i], x = i % v.width, in_ = above(start + i);
    here += in_;
    let colour = [grey, grey, grey];
    pictures[0].data.set([grey, grey, grey, 255], 4 * i);
    if (heat) {
      const value = v.low + v.levels[start + i] / 65535 * (v.high - v.low);
      const strength = 0.85 * Math.min(1, Math.max(0, value / (v.top / 2)));
      const over = info.colours[Math.round(255 * Math.min(1, Math.max(0, value / v.top)))];
      colour = over.map(c => Math.round(grey * (1 - strength) + c * strength));
    }
    if (outline && in_) {
      const y = (i - x) / v.width, at = start + i;
      const inside = x > 0 && x < v.width - 1 && y > 0 && y < v.height - 1 &&
        above(at - 1) && above(at + 1) && above(at - v.width) && above(at + v.width);
      if (!inside) colour = TRUTH;
    }
    pictures[1].data.set([...colour, 255], 4 * i);
  }
  ["image", "map"].forEach((id, k) => $(id).getContext("2d").putImageData(pictures[k], 0, 0));
  const where = v.depth > 1 ? `slice ${z + 1} of ${v.depth}` : "the image";
  $("slice-now").textContent = `${z + 1} of ${v.depth}`;
  $("slice").setAttribute("aria-valuetext", where);
  const pixels = all * v.thinned ** 2;
  const amount = v.ml ? `${number(pixels * v.ml)} ml` : `${number(100 * all / v.levels.length)} % of the pixels`;
  const rule = own ? "the threshold of the mask file" : "small regions not removed";
  $("above").textContent = `Above ${number(v.chosen)}: ${v.thinned > 1 && v.ml ? "about " : ""}${amount} (${rule}).`;
  $("image").setAttribute("aria-label", `input, ${where}`);
  $("map").setAttribute("aria-label",
    `${$("what").textContent}, ${where}: ${number(100 * here / size)} % of it above the threshold ${number(v.chosen)}`);
  $("again").hidden = v.threshold === null || v.chosen === v.threshold;
  $("again").querySelector("span").textContent = `The mask below is that of the threshold ${number(v.threshold)}.`;
}

// -------------------------------------------------------------------------------------------- events
$("file").addEventListener("change", event => send([...event.target.files]));
$("form").addEventListener("submit", event => event.preventDefault());
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, event => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
document.addEventListener("drop", async event => send(await dropped(event.dataTransfer)));
$("slice").addEventListener("input", draw);
$("threshold").addEventListener("input", event =>
  move(shown.low + event.target.value / 1000 * (shown.most - shown.low), false));
for (const id of ["heat", "outline"]) $(id).addEventListener("change", draw);
$("reset").addEventListener("click", () => move(shown.threshold, true));
$("again").querySelector("button").addEventListener("click", () => send(sent, shown.chosen));
begin().catch(error => fail(`the server does not answer (${error.message})`));
