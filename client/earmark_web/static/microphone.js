// The browser's microphone, as blocks of 16-bit samples.

/** Open the microphone. `onBlock` is called with Int16Arrays, `onLost` when the microphone is disconnected. */
export async function openMicrophone(onBlock, onLost) {
  const media = await navigator.mediaDevices.getUserMedia({
    // Echo cancellation and noise suppression distort speech: the model was trained without them.
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false },
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
    case "NotReadableError":
      return "Another program uses the microphone: close it, then press Listen again.";
    default:
      return `The microphone cannot be opened: ${error.message}`;
  }
}
