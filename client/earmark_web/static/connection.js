// A stream to the page's server, and what comes back.

/**
 * Open a stream of 16-bit samples at `rate`; `thresholds` are those that are not as calibrated.
 * `onEvent` gets what the server tells, last an event called ended, error or lost.
 */
export function openStream(rate, thresholds, onEvent) {
  const socket = new WebSocket(new URL("/stream", location.href.replace(/^http/, "ws")));
  let waiting = [], over = false;
  const send = message => {
    if (waiting) waiting.push(message);
    else if (socket.readyState === WebSocket.OPEN) socket.send(message);
  };
  const tell = event => {
    if (over) return;
    over = ["ended", "error", "lost"].includes(event.event);
    onEvent(event);
  };
  socket.onopen = () => {
    const before = waiting;
    waiting = null;
    before.forEach(send);
  };
  socket.onmessage = message => tell(JSON.parse(message.data));
  socket.onclose = () => tell({ event: "lost" });
  send(JSON.stringify({ sample_rate_hz: rate, keywords: thresholds }));
  return {
    audio: samples => send(samples),
    thresholds: changed => send(JSON.stringify({ keywords: changed })),
    end: () => send(JSON.stringify({ end: true })),
    /** Leave without waiting for the end. */
    leave() {
      over = true;
      socket.close();
    },
    /** Seconds of sound that the network has not taken yet. */
    get behind() {
      return socket.bufferedAmount / 2 / rate;
    },
  };
}
