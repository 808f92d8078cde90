// Runs on the browser's audio thread: posts blocks of about 40 ms of 16-bit samples to the page.
class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(128 * Math.round(sampleRate * 0.04 / 128));
    this.filled = 0;
  }

  process([[samples]]) {
    if (!samples) return true; // not connected yet
    for (const sample of samples) {
      this.block[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(32768 * sample)));
      if (this.filled === this.block.length) {
        this.port.postMessage(this.block);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
