"use strict";
// The images of a report. All text is set by textContent, because labels and names are untrusted.
(() => {
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const { rows, columns, images } = data;
const pixels = rows * columns;
const labelled = images.some((image) => image.true >= 0);
let visible = [];  // positions of the images in the list, in its order
let current = -1, maps = null, picture = null, a = 0, b = -1, box = null, spot = null;

// ---- small helpers ----------------------------------------------------------------------------------------------

function element(tag, text, properties = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, properties);
}

function short(text, length = 60) {
  const letters = Array.from(text), keep = length - 1;
  if (letters.length <= length) return text;
  return letters.slice(0, Math.ceil(keep / 2)).join("") + "…" + letters.slice(-Math.floor(keep / 2)).join("");
}

function name(text, length) {  // isolated, so that the direction of its script stays its own
  return element("bdi", short(text, length), { title: text });
}

function number(value, plus = "") {
  const text = Math.abs(value).toFixed(data.decimals);
  return (Number(text) === 0 ? "" : value < 0 ? "−" : plus) + text;
}
const signed = (value) => number(value, "+");

const percent = (share) => share > 0.9995 && share < 1 ? ">\u00a099.9\u00a0%" : (100 * share).toFixed(1) + "\u00a0%";
const label = (position) => data.classes[position];
const wrong = (image) => image.true >= 0 && image.predicted >= 0 && image.true !== image.predicted;
const best = (image) => image.classes[image.scores.indexOf(Math.max(...image.scores))];
const answer = (image) => image.predicted >= 0 ? image.predicted : best(image);
const strange = "unlike the training images: do not trust the answer";
const pictureOf = (i) => $("picture-" + i).textContent;

// ---- maps: integers times a step, deflated, in base64 -------------------------------------------------------------

async function unpack(i) {
  const bytes = Uint8Array.from(atob($("maps-" + i).textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = planes.length / 2;
  return images[i].steps.map((step, j) => {
    const map = new Float64Array(pixels);
    for (let at = 0, from = j * pixels; at < pixels; at++, from++) {
      const code = planes[from] + 256 * planes[size + from];
      map[at] = step * (code % 2 ? -(code + 1) / 2 : code / 2);
    }
    return map;
  });
}

async function read(uri) {  // the picture's pixels, RGBA
  const image = new Image();
  image.src = uri;
  await image.decode();
  const context = element("canvas", "", { width: columns, height: rows }).getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, columns, rows).data;
}

// ---- the list -----------------------------------------------------------------------------------------------------

const orders = {
  given: () => 0,
  margin: (i, j) => images[i].margin - images[j].margin,
  sure: (i, j) => images[j].margin - images[i].margin,
  wrong: (i, j) => wrong(images[j]) - wrong(images[i]) || (wrong(images[i]) ? -1 : 1) * (images[i].margin - images[j].margin),
  true: (i, j) => images[i].true - images[j].true,
  predicted: (i, j) => answer(images[i]) - answer(images[j]),
};
const thumbs = images.map((image, i) => {
  const item = element("li");
  const button = element("button", undefined, { type: "button", className: "thumb" });
  const text = element("span");
  text.append(name(image.name, 40), element("br"));
  if (wrong(image)) text.append(element("span", "✗ WRONG", { className: "mark" }), " ");
  if (image.strange) text.append(element("span", "unlike training", { className: "mark", title: strange }), " ");
  if (image.why && image.why !== "wrong") text.append(element("span", image.why, { className: "tag", title: "why it is shown" }), " ");
  text.append(name(label(answer(image)), 24));
  if (wrong(image)) text.append(element("br"), "true: ", name(label(image.true), 24));
  button.append(element("img", undefined, { alt: "", width: 64, height: 64 }), text);
  button.addEventListener("click", () => show(i));
  item.append(button);
  return item;
});
const watcher = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    target.querySelector("img").src = pictureOf(thumbs.indexOf(target));
    watcher.unobserve(target);
  }
}, { rootMargin: "300px" });
thumbs.forEach((item) => watcher.observe(item));

function list() {
  const wanted = (id) => $(id) && $(id).value !== "" ? Number($(id).value) : null;
  const [truth, predicted, words] = [wanted("true"), wanted("predicted"), $("search").value.toLowerCase()];
  visible = images.map((_, i) => i).filter((i) =>
    (truth === null || images[i].true === truth) && (predicted === null || answer(images[i]) === predicted) &&
    (!labelled || !$("only-wrong").checked || wrong(images[i])) && images[i].name.toLowerCase().includes(words));
  visible.sort(orders[$("sort").value]);
  $("list").replaceChildren(...visible.map((i) => thumbs[i]));
  $("count").textContent = `${visible.length} of ${images.length} images`;
  $("detail").hidden = visible.length === 0;
  if (visible.length) show(visible[0]);
}

function step(by) {
  const at = visible.indexOf(current) + by;
  if (at >= 0 && at < visible.length) show(visible[at]);
}

// ---- one image ----------------------------------------------------------------------------------------------------

function leading(image) {  // the first question: why the answer, rather than the truth or the next in score
  const order = image.scores.map((_, j) => j).sort((i, j) => image.scores[j] - image.scores[i]);
  const first = image.predicted >= 0 ? image.classes.indexOf(image.predicted) : order[0];
  const truth = image.classes.indexOf(image.true);
  const rest = order.filter((j) => j !== first);
  return [first, truth >= 0 && truth !== first ? truth : rest.length ? rest[0] : -1];
}

async function show(i) {
  current = i;
  const image = images[i];
  const found = await Promise.all([unpack(i), read(pictureOf(i))]);
  if (current !== i) return;  // another was chosen meanwhile
  [maps, picture] = found;
  [a, b] = leading(image);
  spot = null;
  for (const [j, item] of thumbs.entries()) item.firstChild.setAttribute("aria-current", String(j === i));
  const strip = $("list"), item = thumbs[i];
  if (item.offsetTop < strip.scrollTop || item.offsetTop + item.offsetHeight > strip.scrollTop + strip.clientHeight)
    strip.scrollTop = item.offsetTop - strip.clientHeight / 2;
  if (item.offsetLeft < strip.scrollLeft || item.offsetLeft + item.offsetWidth > strip.scrollLeft + strip.clientWidth)
    strip.scrollLeft = item.offsetLeft - strip.clientWidth / 2;
  $("detail-name").replaceChildren(`Image ${image.number}`);
  if (image.name !== String(image.number)) $("detail-name").append(": ", name(image.name, 80));
  const at = visible.indexOf(i);
  [$("previous").disabled, $("next").disabled] = [at <= 0, at >= visible.length - 1];
  verdict(image);
  for (const id of ["a", "b"]) {
    const options = image.classes.map((c, j) => element("option", short(label(c), 40), { value: j, title: label(c) }));
    if (id === "b") options.push(element("option", "none: the score alone", { value: -1 }));
    $(id).replaceChildren(...options);
  }
  choose(a, b);
}

function verdict(image) {
  const parts = [data.measured ? "predicted: " : "highest score: ", element("strong")];
  parts[1].append(name(label(answer(image))));
  if (data.measured) {
    const at = image.classes.indexOf(image.predicted);
    parts.push(` (probability ${percent(image.probabilities[at])}, margin ${number(image.margin)})`);
  }
  if (image.true >= 0) {
    const truth = element("strong");
    truth.append(name(label(image.true)));
    parts.push(" · true: ", truth, " · ", wrong(image) ? element("span", "✗ WRONG", { className: "mark" }) : "✓ right");
  }
  if (image.strange) parts.push(" · ", element("span", strange, { className: "mark" }));
  $("verdict").replaceChildren(...parts);
}

function choose(first, second) {
  const k = images[current].classes.length;
  if (first < 0 || first >= k || second >= k || first === second) return;
  [a, b] = [first, second];
  [$("a").value, $("b").value] = [a, b];
  const [A, B] = [label(images[current].classes[a]), b < 0 ? null : label(images[current].classes[b])];
  const texts = B === null ? [["speaks for ", A], ["speaks against ", A]] : [["speaks for ", A], ["speaks for ", B]];
  $("for-title").replaceChildren(texts[0][0], name(texts[0][1], 30));
  $("against-title").replaceChildren(texts[1][0], name(texts[1][1], 30));
  draw();
  table();
  point(spot);
}

const value = (at) => maps[a][at] - (b < 0 ? 0 : maps[b][at]);

// ---- pictures -----------------------------------------------------------------------------------------------------

const rgb = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const anchors = data.colours.signed.map(rgb);
const palette = Array.from({ length: 513 }, (_, i) => {  // of shares of the scale, -1 .. 1
  const place = i / 512 * (anchors.length - 1), low = Math.min(Math.floor(place), anchors.length - 2);
  return [0, 1, 2].map((c) => anchors[low][c] + (place - low) * (anchors[low + 1][c] - anchors[low][c]));
});
const [forColour, againstColour] = [rgb(data.colours.for), rgb(data.colours.against)];

function paint(id, colour, description) {
  const canvas = $(id);
  if (canvas.width !== columns || canvas.height !== rows) [canvas.width, canvas.height] = [columns, rows];
  canvas.style.aspectRatio = String(Math.min(Math.max(columns / rows, 1 / 3), 3));
  const context = canvas.getContext("2d"), out = context.createImageData(columns, rows);
  for (let at = 0; at < pixels; at++) out.data.set([...colour(at), 255], 4 * at);
  context.putImageData(out, 0, 0);
  canvas.setAttribute("aria-label", description);
}

function draw() {
  const image = images[current], scale = data.scale / $("strength").value, opacity = $("opacity").value / 100;
  const least = data.scale * ($("threshold").value / 100) ** 2;  // finer where most of the evidence is
  const kept = (at) => Math.abs(value(at)) < least ? 0 : value(at) / scale;
  const map = (share) => palette[Math.round((Math.min(Math.max(share, -1), 1) + 1) * 256)];
  const versus = b < 0 ? "" : " rather than " + short(label(image.classes[b]));
  const what = short(label(image.classes[a])) + versus;
  paint("picture", (at) => picture.subarray(4 * at, 4 * at + 3), `Image ${short(image.name)}`);
  paint("overlay", (at) => {
    const grey = (picture[4 * at] + picture[4 * at + 1] + picture[4 * at + 2]) / 3, share = kept(at);
    const weight = opacity * Math.min(Math.abs(share), 1), colour = share > 0 ? forColour : againstColour;
    return colour.map((part) => grey + weight * (part - grey));
  }, `The image in grey under the evidence for ${what}`);
  paint("positive", (at) => map(Math.max(kept(at), 0)), `Evidence for ${what}: ${strongest(1)}`);
  paint("negative", (at) => map(Math.min(kept(at), 0)), `Evidence against ${what}: ${strongest(-1)}`);
  $("threshold-value").textContent = number(least);
  const most = maps[a].reduce((sofar, _, at) => Math.max(sofar, Math.abs(value(at))), 0);
  $("pale").textContent = `${most < scale / 2 ? "Pale: the" : "The"} largest value of this image is ${number(most)} of ${number(scale)}.`;
  $("low").textContent = `≤ −${number(scale)}`;
  $("high").textContent = `≥ ${number(scale)}`;
}

function strongest(sign) {
  let at = 0;
  for (let i = 1; i < pixels; i++) if (sign * value(i) > sign * value(at)) at = i;
  if (sign * value(at) <= 0) return "none";
  return `strongest at row ${Math.floor(at / columns)}, column ${at % columns}`;
}

// ---- a pixel, a box ------------------------------------------------------------------------------------------------

const stages = document.querySelectorAll(".stage");
for (const stage of stages)
  for (const className of ["mark-box", "mark-dot"]) stage.append(element("div", undefined, { className, hidden: true }));

function mark(selector, place) {  // place: [left, top, right, bottom] in pixels, or null
  for (const stage of stages) {
    const shown = stage.querySelector(selector);
    shown.hidden = !place;
    if (!place) continue;
    const [left, top, right, bottom] = place.map((at, j) => 100 * at / (j % 2 ? rows : columns));
    const sides = { left, top, width: right - left, height: bottom - top };
    for (const [side, share] of Object.entries(sides)) shown.style[side] = `${share}%`;
  }
}

function point(place) {
  spot = place;
  mark(".mark-dot", place && [place[0], place[1], place[0] + 1, place[1] + 1]);
  $("readout").textContent = "Point at a pixel to read its values.";
  if (!place) return;
  const [column, row] = place, at = row * columns + column, image = images[current];
  const channels = Array.from(picture.subarray(4 * at, 4 * at + 3), (part) => (part / 255).toFixed(2));
  const grey = channels.every((part) => part === channels[0]);
  const mean = (picture[4 * at] + picture[4 * at + 1] + picture[4 * at + 2]) / 765;
  const parts = [`row ${row}, column ${column} · image ${grey ? channels[0] : channels.join(" ")}`];
  const add = (j) => {
    parts.push(" · ", name(label(image.classes[j]), 24), " ");
    if (data.weights) parts.push(`weight ${mean > 0 ? signed(maps[j][at] / mean) : "unknown (black)"}, `);
    parts.push(`contribution ${signed(maps[j][at])}`);
  };
  add(a);
  if (b >= 0) {
    add(b);
    parts.push(` · difference ${signed(value(at))}`);
  }
  $("readout").replaceChildren(...parts);
}

function sum(map, [left, top, right, bottom]) {  // what a box adds to the score
  let total = 0;
  for (let row = top; row < bottom; row++)
    for (let at = row * columns + left; at < row * columns + right; at++) total += map[at];
  return total / pixels;
}

function table() {
  const image = images[current], whole = [0, 0, columns, rows];
  const parts = maps.map((map, j) => {
    const [inside, all] = [sum(map, box || whole), sum(map, whole)];
    return [inside, all - inside, all, image.scores[j]];
  });
  const line = (key, title, probability, values, className) => {
    const made = element("tr", "", { className });
    made.append(element("td", key), title, ...(data.measured ? [element("td", probability)] : []));
    made.append(...values.map((part) => element("td", signed(part))));
    values.forEach((part, j) => { made.children[made.children.length - 4 + j].dataset.value = part; });
    return made;
  };
  $("scores").tBodies[0].replaceChildren(...image.classes.map((c, j) => {
    const title = element("td");
    title.append(name(label(c)));
    if (c === image.predicted) title.append(" ", element("span", "predicted", { className: "tag" }));
    if (c === image.true) title.append(" ", element("span", "true", { className: "tag" }));
    const probability = data.measured ? percent(image.probabilities[j]) : "";
    return line(j < 9 ? j + 1 : "", title, probability, parts[j], j === a ? "a" : j === b ? "b" : "");
  }));
  const difference = b < 0 ? [] : [parts[a].map((part, j) => part - parts[b][j])];
  $("scores").tFoot.replaceChildren(...difference.map((d) => line("", element("td", "red minus blue"), "", d, "")));
  ["left", "top", "right", "bottom"].forEach((side, j) => {
    if ($(side) !== document.activeElement) $(side).value = (box || whole)[j];
    $(side).max = j % 2 ? rows : columns;
  });
  mark(".mark-box", box);
  $("box-error").textContent = `Right and bottom lie just outside the box. Stored maps are rounded: a part differs ` +
    `from the exact value by at most ${data.error.toExponential(1)}.`;
}

const setBox = (sides) => { box = sides; table(); };

const place = (event) => {
  const area = event.currentTarget.getBoundingClientRect();
  const within = (share, size) => Math.min(Math.max(Math.floor(share * size), 0), size - 1);
  const [x, y] = [event.clientX - area.left, event.clientY - area.top];
  return [within(x / area.width, columns), within(y / area.height, rows)];
};
let start = null;
for (const canvas of document.querySelectorAll(".stage canvas")) {
  const finger = (event) => event.pointerType === "touch" && !$("drag").checked;
  canvas.addEventListener("pointerdown", (event) => {
    point(place(event));
    if (event.button !== 0 || finger(event)) return;
    start = place(event);
    canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    const end = place(event);
    point(end);
    if (start && (end[0] !== start[0] || end[1] !== start[1])) {
      const [left, right] = [Math.min(start[0], end[0]), Math.max(start[0], end[0]) + 1];
      const [top, bottom] = [Math.min(start[1], end[1]), Math.max(start[1], end[1]) + 1];
      setBox([left, top, right, bottom]);
    }
  });
  for (const ending of ["pointerup", "pointercancel"]) canvas.addEventListener(ending, () => { start = null; });
}

// ---- controls -------------------------------------------------------------------------------------------------------

for (const select of document.querySelectorAll("#true, #predicted"))
  select.append(...data.classes.map((text, c) => element("option", short(text, 40), { value: c, title: text })));
$("choose").addEventListener("input", list);
for (const id of ["choose", "box"]) $(id).addEventListener("submit", (event) => event.preventDefault());
$("choose").addEventListener("reset", () => setTimeout(list));
for (const id of ["a", "b"]) $(id).addEventListener("input", () => {
  const [first, second] = [Number($("a").value), Number($("b").value)];
  if (first === second) choose(b < 0 ? first : b, b < 0 ? -1 : a);  // the other one's class: they change places
  else choose(first, second);
});
for (const id of ["opacity", "threshold", "strength"]) $(id).addEventListener("input", draw);
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("whole").addEventListener("click", () => setBox(null));
$("drag").addEventListener("input", () => $("detail").classList.toggle("drawing", $("drag").checked));
$("help").addEventListener("click", () => $("help-text").showModal());
$("box").addEventListener("input", () => {
  const sides = ["left", "top", "right", "bottom"].map((side) => $(side).valueAsNumber);
  const [left, top, right, bottom] = sides;
  const [wide, high] = [0 <= left && left < right && right <= columns, 0 <= top && top < bottom && bottom <= rows];
  if (wide && high && sides.every(Number.isInteger)) setBox(sides);
});
for (const cell of document.querySelectorAll(".cell")) cell.addEventListener("click", () => {
  $("choose").reset();  // which lists, once these are set
  $("true").value = cell.dataset.true;
  $("predicted").value = cell.dataset.predicted;
  $("images").scrollIntoView();
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || current < 0) return;
  if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || $("help-text").open) return;
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code);
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "?") $("help-text").showModal();
  else if (event.key === "Escape") setBox(null);
  else if (event.key === "x" && b >= 0) choose(b, a);
  else if (digit && digit[1] === "0") choose(a, -1);
  else if (digit && event.shiftKey) choose(a, digit[1] - 1);
  else if (digit) choose(digit[1] - 1, b === digit[1] - 1 ? a : b);
  else return;
  event.preventDefault();
});
for (const part of document.querySelectorAll(".scroll"))  // where it does not fit, a sign says so
  new ResizeObserver(() => part.classList.toggle("wide", part.scrollWidth > part.clientWidth)).observe(part.firstElementChild);
$("choose").hidden = $("browser").hidden = false;
list();
})();
