// A recording as 16-bit mono samples, decoded by the browser.

export const RATE = 16000;
const MAX_LENGTH_S = 600;

/** Decode a File. Throws an Error with a message for the user. */
export async function decode(file) {
  if (file.size > 4 * MAX_LENGTH_S * 192000) throw new Error(tooLong(file));
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(`${file.name} is not a recording that this browser can decode. Use WAV, FLAC, Ogg or MP3.`);
  }
  if (buffer.duration > MAX_LENGTH_S) throw new Error(tooLong(file));
  const samples = new Int16Array(buffer.length);
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i));
  for (let i = 0; i < samples.length; i++) {
    let sum = 0;
    for (const channel of channels) sum += channel[i];
    samples[i] = Math.max(-32768, Math.min(32767, Math.round((32768 * sum) / channels.length)));
  }
  return samples;
}

const tooLong = file =>
  `${file.name} is longer than ${MAX_LENGTH_S / 60} minutes, the limit of this page. Use the command earmark spot.`;
