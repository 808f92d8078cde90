// The browser's microphones, and one of them as blocks of 16-bit samples.

/** Return the microphones as {id, name}, without the default one. Before the user permits one, browsers name none. */
export async function listMicrophones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices
    .filter(one => one.kind === "audioinput" && one.label && one.deviceId !== "default")
    .map(one => ({ id: one.deviceId, name: one.label }));
}

/** Return the level of a block, in dB below full scale. */
export const levelDb = block => 20 * Math.log10(block.reduce((peak, one) => Math.max(peak, Math.abs(one)), 1) / 32768);

/** Open the microphone with this id; an empty one is the default. `onBlock` is called with Int16Arrays, `onLost` when the microphone is disconnected. */
export async function openMicrophone(id, onBlock, onLost) {
  const media = await navigator.mediaDevices.getUserMedia({
    // Echo cancellation and noise suppression distort speech: the model was trained without them.
    audio: {
      channelCount: 1, echoCancellation: false, noiseSuppression: false, deviceId: id ? { exact: id } : undefined,
    },
  });
  const context = new AudioContext();
  const stop = () => {
    media.getTracks().forEach(track => track.stop());
    return context.close();
  };
  try {
    await context.audioWorklet.addModule("/static/worklet.js");
    await Promise.race([context.resume(), startTimeout()]);
  } catch (error) {
    stop();
    throw error;
  }
  const source = context.createMediaStreamSource(media);
  const node = new AudioWorkletNode(context, "microphone", {
    numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit",
  });
  node.port.onmessage = message => onBlock(message.data);
  media.getAudioTracks()[0].onended = onLost;
  source.connect(node);
  return { rate: context.sampleRate, stop };
}

/** Reject after 10 s: without an audio output, Firefox never resumes an AudioContext. */
const startTimeout = () => new Promise((_, reject) => setTimeout(reject, 10_000, new Error(
  "the browser's audio did not start. Connect a loudspeaker or headphones, then press Listen again.")));

/** Return a message with the reason why the microphone cannot be opened, and the remedy. */
export function microphoneProblem(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The browser blocks the microphone: allow it for this page (next to the address), then press Listen again.";
    case "NotFoundError":
      return "There is no microphone: connect one, then press Listen again.";
    case "OverconstrainedError":
      return "The chosen microphone is not connected: choose another one, then press Listen again.";
    case "NotReadableError":
      return "Another program uses the microphone: close it, then press Listen again.";
    default:
      return `The microphone cannot be opened: ${error.message}`;
  }
}
