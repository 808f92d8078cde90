// The browser's microphone, as blocks of 16-bit samples.

/** Open it; `onBlock` gets Int16Arrays, `onLost` is told when it goes away. */
export async function openMicrophone(onBlock, onLost) {
  const media = await navigator.mediaDevices.getUserMedia({
    // What cleans speech for people takes away what a listener was trained on.
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false },
  });
  const context = new AudioContext();
  const stop = () => {
    media.getTracks().forEach(track => track.stop());
    return context.close();
  };
  try {
    await context.audioWorklet.addModule("/static/worklet.js");
    await Promise.race([context.resume(), noSound()]);
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

/** Fails after a while: Firefox waits for ever where there is nothing to play sound with. */
const noSound = () => new Promise((_, fail) => setTimeout(fail, 10_000, new Error(
  "the browser does not start its sound. Connect a loudspeaker or headphones, then press Listen again.")));

/** Say why it cannot be opened, and what to do. */
export function microphoneProblem(error) {
  switch (error.name) {
    case "NotAllowedError":
      return "The browser gives no microphone: allow it for this page (beside its address), then press Listen again.";
    case "NotFoundError":
      return "There is no microphone: connect one, then press Listen again.";
    case "NotReadableError":
      return "Another program keeps the microphone: end it, then press Listen again.";
    default:
      return `The microphone cannot be opened: ${error.message}`;
  }
}
