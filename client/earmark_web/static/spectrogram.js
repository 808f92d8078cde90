// A mel spectrogram for display (mel scale of O'Shaughnessy, 1987). The model's own features differ.

export const BANDS = 64;
export const HOP_S = 0.01;
const LOWEST_HZ = 60, HIGHEST_HZ = 8000, WINDOW_S = 0.025;
const FLOOR_DB = -90, RANGE_DB = 60;

const mel = hz => 2595 * Math.log10(1 + hz / 700);
const hertz = mel => 700 * (10 ** (mel / 2595) - 1);

/** The position of a frequency on the mel scale: 0 at the lowest band, 1 at the highest. */
export const position = hz => (mel(hz) - mel(LOWEST_HZ)) / (mel(HIGHEST_HZ) - mel(LOWEST_HZ));

/** Converts samples to columns of BANDS bytes, one column every HOP_S, lowest band first. */
export class Spectrogram {
  constructor(rate) {
    this.hop = Math.round(HOP_S * rate);
    const window = Math.round(WINDOW_S * rate);
    this.size = 2 ** Math.ceil(Math.log2(window));
    this.taper = Float32Array.from({ length: window }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (window - 1)));
    this.scale = 1 / (32768 * this.taper.reduce((sum, one) => sum + one)) ** 2;
    this.filters = melFilters(rate, this.size);
    this.recent = new Int16Array(0);
    this.re = new Float32Array(this.size);
    this.im = new Float32Array(this.size);
  }

  /** Append samples; return the columns that they complete. */
  append(samples) {
    const all = new Int16Array(this.recent.length + samples.length);
    all.set(this.recent);
    all.set(samples, this.recent.length);
    const columns = [];
    let start = 0;
    for (; start + this.taper.length <= all.length; start += this.hop) columns.push(this.column(all, start));
    this.recent = all.slice(start);
    return columns;
  }

  column(samples, start) {
    const { re, im, taper } = this;
    re.fill(0);
    im.fill(0);
    for (let i = 0; i < taper.length; i++) re[i] = samples[start + i] * taper[i];
    fft(re, im);
    return Uint8Array.from(this.filters, ({ first, weights }) => {
      let power = 0;
      for (let i = 0; i < weights.length; i++) power += weights[i] * (re[first + i] ** 2 + im[first + i] ** 2);
      const share = (10 * Math.log10(power * this.scale + 1e-12) - FLOOR_DB) / RANGE_DB;
      return 255 * Math.max(0, Math.min(1, share));
    });
  }
}

/** Return triangular filters over the spectrum's bins. Each sums to 1 and is at least one bin wide. */
function melFilters(rate, size) {
  const step = (mel(HIGHEST_HZ) - mel(LOWEST_HZ)) / (BANDS + 1), bin = rate / size;
  return Array.from({ length: BANDS }, (_, i) => {
    const [low, centre, high] = [0, 1, 2].map(k => hertz(mel(LOWEST_HZ) + (i + k) * step));
    const half = Math.max(high - low, 2 * bin) / 2;
    const first = Math.max(0, Math.ceil((centre - half) / bin));
    const last = Math.min(size / 2, Math.floor((centre + half) / bin));
    const weights = [];
    for (let k = first; k <= last; k++) weights.push(1 - Math.abs(k * bin - centre) / half);
    const sum = weights.reduce((sum, one) => sum + one, 0) || 1;
    return { first, weights: weights.map(one => one / sum) };
  });
}

/** Compute the fast Fourier transform in place (Cooley and Tukey, 1965); the length is a power of two. */
function fft(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) [re[i], re[j], im[i], im[j]] = [re[j], re[i], im[j], im[i]];
  }
  for (let length = 2; length <= n; length *= 2) {
    for (let k = 0; k < length / 2; k++) {
      const angle = (-2 * Math.PI * k) / length, cos = Math.cos(angle), sin = Math.sin(angle);
      for (let a = k; a < n; a += length) {
        const b = a + length / 2;
        const x = re[b] * cos - im[b] * sin, y = re[b] * sin + im[b] * cos;
        re[b] = re[a] - x;
        im[b] = im[a] - y;
        re[a] += x;
        im[a] += y;
      }
    }
  }
}
