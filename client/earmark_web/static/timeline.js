// The plot next to the keywords: spectrogram, scores and detections over time. It scrolls with live audio and
// zooms in recordings.

import { BANDS, HOP_S, Spectrogram, position } from "./spectrogram.js";

const LIVE_HISTORY_S = 60, LIVE_PIXELS_PER_S = 85, MIN_VIEW_S = 1;
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export class Timeline {
  /** `keywords`: a Keywords object. `parts`: the elements plot, canvas, chips, cursor and names. */
  constructor(keywords, parts) {
    Object.assign(this, parts);
    this.keywords = keywords;
    this.context = this.canvas.getContext("2d");
    this.image = document.createElement("canvas");
    this.reset(16000, null);
    new ResizeObserver(() => this.resize()).observe(this.plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.resize());
  }

  /** Clear the plot and start with new audio at `rate` Hz; `length`: seconds of a recording, null for live audio. */
  reset(rate, length) {
    Object.assign(this, { rate, length, received: 0, columns: [], dropped: 0, scores: [], view: [0, length] });
    this.spectrogram = new Spectrogram(rate);
    this.setDetections([]);
  }

  addSamples(samples) {
    this.received += samples.length;
    for (const column of this.spectrogram.append(samples)) this.columns.push(column);
    if (this.length === null) this.forget(this.now - LIVE_HISTORY_S);
    this.redraw();
  }

  addScores(offset, scores) {
    this.scores.push({ offset, scores });
    this.redraw();
  }

  /** Replace all detections by these. */
  setDetections(detections) {
    this.chips.replaceChildren();
    this.detections = [];
    for (const one of detections) this.addChip(one);
    this.arrange();
  }

  addDetection(detection) {
    this.addChip(detection);
    this.arrange();
  }

  addChip(detection) {
    const chip = document.createElement("div"), word = document.createElement("span");
    chip.className = "chip";
    word.textContent = detection.keyword;
    chip.append(word);
    this.chips.append(chip);
    this.detections.push({ ...detection, chip, width: chip.offsetWidth + 2 });
  }

  /** Seconds of audio so far. */
  get now() {
    return this.received / this.rate;
  }

  /** Show `length` seconds of the recording from `from` on, clipped to the recording. */
  setView(from, length) {
    length = Math.min(this.length, Math.max(MIN_VIEW_S, length));
    from = Math.max(0, Math.min(from, this.length - length));
    this.view = [from, from + length];
    this.arrange();
  }

  zoom(factor, at) {
    const [from, to] = this.view, length = (to - from) * factor;
    const middle = at >= from && at <= to ? at : (from + to) / 2;
    this.setView(middle - length / 2, length);
  }

  /** Move the cursor to a time, and the view with it if necessary. */
  setCursor(at) {
    const [from, to] = this.view;
    if (at < from || at > to) this.setView(at, to - from);
    this.cursor.hidden = false;
    this.cursor.style.transform = `translateX(${this.x(at)}px)`;
  }

  x(seconds) {
    return ((seconds - this.from) / (this.to - this.from)) * this.plot.clientWidth;
  }

  seconds(x) {
    return this.from + (x / this.plot.clientWidth) * (this.to - this.from);
  }

  /** Drop the data of live audio before a time. */
  forget(before) {
    const columns = Math.floor(before / HOP_S) - this.dropped;
    if (columns > 500) {
      this.columns.splice(0, columns);
      this.dropped += columns;
      this.scores = this.scores.filter(one => one.offset >= before);
      for (const one of this.detections) if (one.end_s < before) one.chip.remove();
      this.detections = this.detections.filter(one => one.end_s >= before);
    }
  }

  /** Place each chip in the first of three rows with enough space; hide it if there is none. */
  arrange() {
    this.updateWindow();
    const free = [-Infinity, -Infinity, -Infinity];
    for (const one of this.detections) {
      const left = this.x(one.start_s), row = free.findIndex(end => end <= left);
      one.chip.hidden = row < 0;
      one.chip.style.setProperty("--chip-row", Math.max(0, row));
      if (row >= 0) free[row] = left + one.width;
    }
    this.redraw();
  }

  updateWindow() {
    if (this.length !== null) {
      [this.from, this.to] = this.view;
      return;
    }
    const shown = Math.max(4, this.plot.clientWidth / LIVE_PIXELS_PER_S);
    // Scroll continuously. For users who prefer reduced motion, fill the plot, then start a new page.
    this.to = reducedMotion.matches ? Math.ceil(this.now / shown + 1e-9) * shown : Math.max(this.now, shown);
    this.from = this.to - shown;
  }

  resize() {
    const style = getComputedStyle(document.documentElement);
    this.colour = name => style.getPropertyValue(`--${name}`).trim();
    this.palette = palette(this.colour("spectrum"));
    const ratio = devicePixelRatio || 1;
    this.canvas.width = this.plot.clientWidth * ratio;
    this.canvas.height = this.plot.clientHeight * ratio;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.arrange();
  }

  redraw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  draw() {
    if (!this.palette) return;
    this.updateWindow();
    const c = this.context, width = this.plot.clientWidth;
    const rows = [...this.names.children], top = row => row.offsetTop - this.names.offsetTop;
    const [strip, spectrum, axis] = rows;
    c.clearRect(0, 0, width, this.plot.clientHeight);
    this.drawSpectrogram(top(spectrum), spectrum.offsetHeight, width);
    this.drawAxis(top(axis), axis.offsetHeight, width);
    for (const one of this.keywords.all) this.drawScores(one, top(one.row) + 3, one.row.offsetHeight - 6, width);
    c.fillStyle = this.colour("detected");
    for (const one of this.detections) {
      const left = this.x(one.start_s);
      one.chip.style.transform = `translateX(${Math.max(0, Math.min(left, width - one.width))}px)`;
      one.chip.style.visibility = left + one.width > 0 && left < width ? "visible" : "hidden";
      c.fillRect(left, top(spectrum) - 3, Math.max(2, this.x(one.end_s) - left), 3);
    }
    this.canvas.dataset.seconds = this.now.toFixed(2);
  }

  drawSpectrogram(y, height, width) {
    const image = this.image, columns = Math.max(1, Math.ceil(width));
    [image.width, image.height] = [columns, BANDS];
    const context = image.getContext("2d"), pixels = context.createImageData(columns, BANDS);
    const shades = new Uint32Array(pixels.data.buffer);
    const at = x => Math.round(this.seconds(x) / HOP_S) - this.dropped;
    for (let x = 0; x < columns; x++) {
      const first = at(x), last = Math.max(first + 1, at(x + 1));
      for (let band = 0; band < BANDS; band++) {
        let loudest = 0;
        for (let i = Math.max(0, first); i < last && i < this.columns.length; i++)
          loudest = Math.max(loudest, this.columns[i][band]);
        shades[(BANDS - 1 - band) * columns + x] = this.palette[loudest];
      }
    }
    context.putImageData(pixels, 0, 0);
    this.context.drawImage(image, 0, y, width, height);
    this.context.fillStyle = this.colour("line");
    for (const hz of [500, 2000]) this.context.fillRect(0, Math.round(y + height * (1 - position(hz))), width, 0.5);
  }

  drawAxis(y, height, width) {
    const c = this.context, shown = this.to - this.from;
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120].find(one => (one / shown) * width > 55) ?? 300;
    c.font = "12px system-ui, sans-serif";
    c.fillStyle = this.colour("soft");
    c.textBaseline = "middle";
    for (let i = Math.ceil(this.from / step - 1e-9); i * step <= this.to + 1e-9; i++) {
      const x = this.x(i * step), text = `${+(i * step).toFixed(1)} s`;
      c.fillRect(x, y, 1, 4);
      c.textAlign = x < 20 ? "left" : x > width - 20 ? "right" : "center";
      c.fillText(text, x, y + height / 2 + 2);
    }
  }

  drawScores({ keyword, threshold }, y, height, width) {
    const c = this.context, at = score => y + height * (1 - score);
    c.fillStyle = this.colour("detected-ground");
    for (const one of this.detections)
      if (one.keyword === keyword) {
        const left = this.x(one.start_s);
        c.fillRect(left, y, Math.max(2, this.x(one.end_s) - left), height);
      }
    // Each model has scores of its own.
    const visible = this.scores.filter(
      one => keyword in one.scores && one.offset >= this.from - 0.2 && one.offset <= this.to + 0.2,
    );
    if (visible.length) {
      c.beginPath();
      for (const one of visible) c.lineTo(this.x(one.offset), at(one.scores[keyword]));
      c.strokeStyle = this.colour("curve");
      c.lineWidth = 1.5;
      c.stroke();
      c.lineTo(this.x(visible.at(-1).offset), y + height);
      c.lineTo(this.x(visible[0].offset), y + height);
      c.fillStyle = this.colour("fill");
      c.fill();
    }
    c.fillStyle = this.colour("line");
    c.fillRect(0, y + height, width, 1);
    c.strokeStyle = this.colour("limit");
    c.lineWidth = 1;
    c.setLineDash([4, 4]);
    c.beginPath();
    c.moveTo(0, at(threshold));
    c.lineTo(width, at(threshold));
    c.stroke();
    c.setLineDash([]);
  }
}

/** Interpolate a list of colours to 256 shades, in the byte order of ImageData. */
function palette(list) {
  const stops = list.split(",").map(text => parseInt(text.trim().slice(1), 16));
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const at = (i / 255) * (stops.length - 1), low = Math.min(stops.length - 2, Math.floor(at));
    const [red, green, blue] = [16, 8, 0].map(shift => {
      const [a, b] = [(stops[low] >> shift) & 255, (stops[low + 1] >> shift) & 255];
      return Math.round(a + (at - low) * (b - a));
    });
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}
