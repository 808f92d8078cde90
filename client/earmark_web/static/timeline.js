// The plot beside the keywords: spectrogram, scores and detections over time, rolling or whole.

import { BANDS, HOP_S, Spectrogram, place } from "./spectrogram.js";

const LIVE_KEPT_S = 60, PIXELS_PER_S = 85, SHORTEST_S = 1;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Timeline {
  /** `keywords`: a Keywords; `parts`: the elements plot, canvas, chips, cursor and names. */
  constructor(keywords, parts) {
    Object.assign(this, parts);
    this.keywords = keywords;
    this.context = this.canvas.getContext("2d");
    this.image = document.createElement("canvas");
    this.begin(16000, null);
    new ResizeObserver(() => this.resize()).observe(this.plot);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.resize());
  }

  /** Begin anew with sound of that rate: `length` seconds of a recording, or null for live sound. */
  begin(rate, length) {
    Object.assign(this, { rate, length, received: 0, columns: [], dropped: 0, scores: [], view: [0, length] });
    this.spectrogram = new Spectrogram(rate);
    this.show([]);
  }

  addSamples(samples) {
    this.received += samples.length;
    for (const column of this.spectrogram.columns(samples)) this.columns.push(column);
    if (this.length === null) this.forget(this.now - LIVE_KEPT_S);
    this.redraw();
  }

  addScores(offset, scores) {
    this.scores.push({ offset, scores });
    this.redraw();
  }

  /** Show these detections and no others. */
  show(detections) {
    this.chips.replaceChildren();
    this.detections = [];
    for (const one of detections) this.append(one);
    this.arrange();
  }

  add(detection) {
    this.append(detection);
    this.arrange();
  }

  append(detection) {
    const chip = document.createElement("div"), word = document.createElement("span");
    chip.className = "chip";
    word.textContent = detection.keyword;
    chip.append(word);
    this.chips.append(chip);
    this.detections.push({ ...detection, chip, width: chip.offsetWidth + 4 });
  }

  /** Seconds of sound so far. */
  get now() {
    return this.received / this.rate;
  }

  /** Show these seconds of a recording, as far as it has them. */
  look(from, length) {
    length = Math.min(this.length, Math.max(SHORTEST_S, length));
    from = Math.max(0, Math.min(from, this.length - length));
    this.view = [from, from + length];
    this.arrange();
  }

  zoom(factor, at) {
    const [from, to] = this.view, length = (to - from) * factor;
    const middle = at >= from && at <= to ? at : (from + to) / 2;
    this.look(middle - length / 2, length);
  }

  /** Put the cursor at a time, in view. */
  point(at) {
    const [from, to] = this.view;
    if (at < from || at > to) this.look(at, to - from);
    this.cursor.hidden = false;
    this.cursor.style.transform = `translateX(${this.x(at)}px)`;
  }

  x(seconds) {
    return ((seconds - this.from) / (this.to - this.from)) * this.plot.clientWidth;
  }

  seconds(x) {
    return this.from + (x / this.plot.clientWidth) * (this.to - this.from);
  }

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

  /** Give each chip one of two lines, or none where there is no room. */
  arrange() {
    this.window();
    const free = [-Infinity, -Infinity];
    for (const one of this.detections) {
      const left = this.x(one.start_s), line = free.findIndex(end => end <= left);
      one.chip.hidden = line < 0;
      one.chip.classList.toggle("low", line === 1);
      if (line >= 0) free[line] = left + one.width;
    }
    this.redraw();
  }

  window() {
    if (this.length !== null) {
      [this.from, this.to] = this.view;
      return;
    }
    const shown = Math.max(4, this.plot.clientWidth / PIXELS_PER_S);
    // Rolling; or, for those whom that makes dizzy, filled and then begun anew.
    this.to = still.matches ? Math.ceil(this.now / shown + 1e-9) * shown : Math.max(this.now, shown);
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
    this.window();
    const c = this.context, width = this.plot.clientWidth;
    const rows = [...this.names.children], top = row => row.offsetTop - this.names.offsetTop;
    const [strip, spectrum, axis] = rows;
    c.clearRect(0, 0, width, this.plot.clientHeight);
    this.drawSpectrogram(top(spectrum), spectrum.offsetHeight, width);
    this.drawAxis(top(axis), axis.offsetHeight, width);
    for (const one of this.keywords.all) this.drawScores(one, top(one.row) + 3, one.row.offsetHeight - 6, width);
    c.fillStyle = this.colour("found");
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
    for (const hz of [500, 2000]) this.context.fillRect(0, Math.round(y + height * (1 - place(hz))), width, 0.5);
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
    c.fillStyle = this.colour("found-ground");
    for (const one of this.detections)
      if (one.keyword === keyword) {
        const left = this.x(one.start_s);
        c.fillRect(left, y, Math.max(2, this.x(one.end_s) - left), height);
      }
    const seen = this.scores.filter(one => one.offset >= this.from - 0.2 && one.offset <= this.to + 0.2);
    if (seen.length) {
      c.beginPath();
      for (const one of seen) c.lineTo(this.x(one.offset), at(one.scores[keyword]));
      c.strokeStyle = this.colour("curve");
      c.lineWidth = 1.5;
      c.stroke();
      c.lineTo(this.x(seen.at(-1).offset), y + height);
      c.lineTo(this.x(seen[0].offset), y + height);
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

/** 256 shades between the colours of a list, as pixels are written. */
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
