// A WebSocket connection to the page's server: sends audio and thresholds, receives events.

/**
 * Open a stream of 16-bit samples at `rate` Hz. `models`: the names of the models. `thresholds`: those that
 * differ from the calibrated ones.
 * `onEvent` is called with each event of the server. The last one is `ended`, `error` or `lost`.
 */
export function openStream(rate, models, thresholds, onEvent) {
  const socket = new WebSocket(new URL("/stream", location.href.replace(/^http/, "ws")));
  let queued = [], closed = false; // queued: messages from before the connection opened, then null
  const send = message => {
    if (queued) queued.push(message);
    else if (socket.readyState === WebSocket.OPEN) socket.send(message);
  };
  const notify = event => {
    if (closed) return;
    closed = ["ended", "error", "lost"].includes(event.event);
    onEvent(event);
  };
  socket.onopen = () => {
    const messages = queued;
    queued = null;
    messages.forEach(send);
  };
  socket.onmessage = message => notify(JSON.parse(message.data));
  socket.onclose = () => notify({ event: "lost" });
  send(JSON.stringify({ sample_rate_hz: rate, models, keywords: thresholds }));
  return {
    sendAudio: samples => send(samples),
    sendThresholds: changed => send(JSON.stringify({ keywords: changed })),
    /** Send the end of the audio. The remaining events still arrive. */
    end: () => send(JSON.stringify({ end: true })),
    /** Close at once; no further events arrive. */
    close() {
      closed = true;
      socket.close();
    },
    /** Seconds of audio that are buffered because the network is slow. */
    get backlog() {
      return socket.bufferedAmount / 2 / rate;
    },
  };
}
