// A recording as 16-bit mono samples, decoded by the browser.

export const RATE = 16000;
const MAX_LENGTH_S = 600;

const CANCELLED_SHARE = 1e-3; // of the power, as in earmark_audio/levels.py
const CANCELLING =
  "The channels cancel each other: their mean is nearly silent. Use the command earmark spot --channel 1.";

/** Decode a File into { samples, warning }; the warning may be empty. Throws an Error with a message for the user. */
export async function decode(file) {
  if (file.size > 4 * MAX_LENGTH_S * 192000) throw new Error(tooLong(file));
  let buffer;
  try {
    buffer = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Error(
      `${file.name} is not a recording that this browser can decode. Use WAV, FLAC, Ogg (Vorbis, Opus) or MP3, ` +
        "or the command earmark spot, which reads more formats.",
    );
  }
  if (buffer.duration > MAX_LENGTH_S) throw new Error(tooLong(file));
  const samples = new Int16Array(buffer.length);
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i));
  let power = 0, mixedPower = 0;
  for (let i = 0; i < samples.length; i++) {
    let sum = 0;
    for (const channel of channels) {
      sum += channel[i];
      power += channel[i] ** 2 / channels.length;
    }
    mixedPower += (sum / channels.length) ** 2;
    samples[i] = Math.max(-32768, Math.min(32767, Math.round((32768 * sum) / channels.length)));
  }
  return { samples, warning: mixedPower < CANCELLED_SHARE * power ? CANCELLING : "" };
}

const tooLong = file =>
  `${file.name} is longer than ${MAX_LENGTH_S / 60} minutes, the limit of this page. Use the command earmark spot.`;
