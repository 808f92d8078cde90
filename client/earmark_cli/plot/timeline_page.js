// Draws `data`, which the page defines, and plays the recording.
const bytes = (text, Type) => new Type(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
const wave = bytes(data.wave, Int8Array), mel = bytes(data.mel, Uint8Array);
const columns = mel.length / data.mel_bands;
for (const one of data.keywords) one.values = bytes(one.scores, Uint8Array);

const $ = id => document.getElementById(id);
const canvas = $("canvas"), plot = $("plot"), cursor = $("cursor"), sound = $("sound");
const LEFT = 84, TOP = 34, WAVE = 90, MEL = 130, ROW = 42, GAP = 10, AXIS = 24;
const HEIGHT = TOP + WAVE + GAP + MEL + GAP + data.keywords.length * ROW + AXIS;
let from = 0, to = data.duration_s, width = 0;

// Cividis (Nunez et al. 2018): perceptually uniform, also with colour blindness.
const STOPS = [[0, 32, 77], [65, 77, 107], [124, 123, 120], [187, 175, 113], [255, 234, 70]];
const image = document.createElement("canvas");
image.width = columns;
image.height = data.mel_bands;
{
  const context = image.getContext("2d"), pixels = context.createImageData(columns, data.mel_bands);
  for (let i = 0; i < mel.length; i++) {
    const band = Math.floor(i / columns), place = 4 * ((data.mel_bands - 1 - band) * columns + i % columns);
    const at = mel[i] / 255 * (STOPS.length - 1), low = Math.min(STOPS.length - 2, Math.floor(at));
    for (let c = 0; c < 3; c++)
      pixels.data[place + c] = STOPS[low][c] + (at - low) * (STOPS[low + 1][c] - STOPS[low][c]);
    pixels.data[place + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}

const x = seconds => LEFT + (seconds - from) / (to - from) * (width - LEFT);
const seconds = x => from + (x - LEFT) / (width - LEFT) * (to - from);

function draw() {
  const ratio = devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
  const colour = name => style.getPropertyValue("--" + name);
  width = plot.clientWidth;
  canvas.width = width * ratio;
  canvas.height = HEIGHT * ratio;
  canvas.style.height = HEIGHT + "px";
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  c.font = "12px system-ui, sans-serif";
  c.textBaseline = "middle";
  const label = (text, y, align = "right", at = LEFT - 8, ink = "soft") => {
    c.fillStyle = colour(ink); c.textAlign = align; c.fillText(text, at, y);
  };

  let y = TOP;
  c.save();
  c.beginPath(); c.rect(LEFT, 0, width - LEFT, HEIGHT); c.clip();
  const free = [LEFT, LEFT];
  for (const one of data.detections) {
    if (one.end_s < from || one.start_s > to) continue;
    const left = x(one.start_s), right = x(one.end_s);
    c.globalAlpha = .22; c.fillStyle = colour("detection");
    c.fillRect(left, TOP, Math.max(1, right - left), WAVE);
    const row = data.keywords.findIndex(known => known.keyword === one.keyword);
    c.fillRect(left, TOP + WAVE + GAP + MEL + GAP + row * ROW, Math.max(1, right - left), ROW - 4);
    c.globalAlpha = 1;
    // On the lower of two lines if that is free.
    const line = left >= free[1] ? 1 : 0;
    if (left >= free[line]) {
      label(one.keyword, 8 + 15 * line, "left", left, "ink");
      free[line] = left + c.measureText(one.keyword).width + 6;
    }
  }
  c.fillStyle = colour("wave");
  const per = wave.length / 2 / data.duration_s;
  for (let px = LEFT; px < width; px++) {
    let low = 127, high = -127;
    const first = Math.floor(seconds(px) * per), last = Math.max(first + 1, Math.ceil(seconds(px + 1) * per));
    for (let i = Math.max(0, first); i < Math.min(last, wave.length / 2); i++) {
      low = Math.min(low, wave[2 * i]); high = Math.max(high, wave[2 * i + 1]);
    }
    if (low <= high)
      c.fillRect(px, y + WAVE / 2 * (1 - high / 127), 1, Math.max(1, (high - low) / 127 * WAVE / 2));
  }
  y += WAVE + GAP;
  c.drawImage(image, from / data.duration_s * columns, 0, (to - from) / data.duration_s * columns,
    data.mel_bands, LEFT, y, width - LEFT, MEL);
  c.restore();
  label("waveform", TOP + WAVE / 2);
  label("mel, Hz", y + 8);
  for (const hz of [500, 1000, 2000, 4000]) {
    const band = data.mel_hz.findIndex(centre => centre >= hz);
    label(hz, y + MEL * (1 - band / data.mel_bands));
  }
  y += MEL + GAP;

  for (const one of data.keywords) {
    const high = y + 2, low = y + ROW - 6, at = score => low - score * (low - high);
    label(one.keyword, (high + low) / 2, "right", LEFT - 8, "ink");
    c.save();
    c.beginPath(); c.rect(LEFT, y, width - LEFT, ROW); c.clip();
    c.strokeStyle = colour("line"); c.lineWidth = 1;
    c.beginPath(); c.moveTo(LEFT, low + .5); c.lineTo(width, low + .5); c.stroke();
    c.strokeStyle = colour("threshold"); c.setLineDash([5, 4]);
    c.beginPath(); c.moveTo(LEFT, at(one.threshold)); c.lineTo(width, at(one.threshold)); c.stroke();
    c.setLineDash([]); c.strokeStyle = colour("curve"); c.lineWidth = 1.5;
    c.beginPath();
    data.offsets_s.forEach((offset, i) => c.lineTo(x(offset), at(one.values[i] / 255)));
    c.stroke();
    c.restore();
    y += ROW;
  }
  const steps = [.05, .1, .2, .5, 1, 2, 5, 10, 20, 30, 60, 120];
  const step = steps.find(step => (to - from) / step * 60 < width - LEFT) || 300;
  for (let tick = Math.ceil((from + data.start_s) / step - 1e-9) * step; tick <= to + data.start_s + 1e-9; tick += step)
    label(+tick.toFixed(2) + " s", y + AXIS / 2, "center", Math.min(x(tick - data.start_s), width - 14));
  place();
  plot.dataset.drawn = data.keywords.length;
}

function place() {
  const at = x(sound.currentTime);
  cursor.hidden = at < LEFT || at > width;
  cursor.style.left = at + "px";
}

function show(start, length) {
  length = Math.min(data.duration_s, Math.max(.5, length));
  from = Math.max(0, Math.min(start, data.duration_s - length));
  to = from + length;
  draw();
}

function zoom(factor) {
  const shown = sound.currentTime >= from && sound.currentTime <= to;
  const middle = shown ? sound.currentTime : (from + to) / 2, length = (to - from) * factor;
  show(middle - length / 2, length);
}

function follow() {
  if (sound.currentTime > to || sound.currentTime < from) show(sound.currentTime, to - from);
  place();
  if (!sound.paused) requestAnimationFrame(follow);
}

function play(at) {
  sound.currentTime = Math.max(0, at);
  sound.play();
}

$("in").onclick = () => zoom(.5);
$("out").onclick = () => zoom(2);
$("all").onclick = () => show(0, data.duration_s);
canvas.onclick = event => { if (event.offsetX >= LEFT) play(seconds(event.offsetX)); };
sound.onplay = sound.onseeked = follow;
for (const one of data.detections) {
  const row = $("detections").insertRow(), button = document.createElement("button");
  for (const text of [(one.start_s + data.start_s).toFixed(2), one.keyword, (one.end_s + data.start_s).toFixed(2),
    one.confidence.toFixed(2)]) row.insertCell().textContent = text;
  button.textContent = "Play";
  button.ariaLabel = "Play " + one.keyword + " at " + (one.start_s + data.start_s).toFixed(2) + " seconds";
  button.onclick = () => play(one.start_s - .3);
  row.insertCell().append(button);
}
addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
