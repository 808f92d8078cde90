// The page's controller: the buttons, the status line and the list of detections.

import { openStream } from "./connection.js";
import { Keywords } from "./keywords.js";
import { microphoneProblem, openMicrophone } from "./microphone.js";
import { RATE, decode } from "./recording.js";
import { Timeline } from "./timeline.js";

const $ = id => document.getElementById(id);
const button = $("listen"), file = $("file"), sound = $("sound"), detectionList = $("detections");

const RETRY_MS = 3000, THRESHOLD_DELAY_MS = 150, MAX_BACKLOG_S = 20, MAX_LIST_ITEMS = 100;
const CHUNK_SAMPLES = 32768;

const keywords = new Keywords($("names"), $("reset"), onThresholdChange);
const timeline = new Timeline(keywords, {
  plot: $("plot"), canvas: $("canvas"), chips: $("chips"), cursor: $("cursor"), names: $("names"),
});

let microphone = null, stream = null, recording = null, thresholdTimer = 0;
let activity = 0; // a counter: results of an earlier activity are ignored

/** Show a status text; `state` is idle, live, wait or bad. */
function setStatus(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

const seconds = s => `${s.toFixed(1)} s`;
const detectionCount = n => `${n} detection${n === 1 ? "" : "s"}`;

async function start() {
  try {
    const response = await fetch("/info"), info = await response.json();
    if (!response.ok) throw new Error(info.error.message);
    const used = info.models.find(one => one.name === info.model);
    $("model").textContent = `${used.name} ${used.version}`;
    keywords.show(used.keywords);
    timeline.resize();
  } catch (error) {
    setStatus("bad", `No server: ${error.message} Retrying.`);
    setTimeout(start, RETRY_MS);
    return;
  }
  file.disabled = false;
  button.disabled = !isSecureContext;
  if (isSecureContext) setStatus("idle", "Ready. Press Listen and speak.");
  else setStatus("bad", "Browsers allow the microphone only on localhost and over https. You can still open a recording.");
}

// Live audio.

async function listen() {
  reset();
  const mine = activity;
  recording = null;
  setPressed(true);
  $("playback").hidden = $("cursor").hidden = true;
  $("plot").classList.remove("seekable");
  sound.pause();
  setStatus("wait", "Waiting for the microphone. Your browser may ask for permission.");
  const earlyBlocks = [];
  let opened;
  try {
    opened = await openMicrophone(block => (stream ? sendBlock(block) : earlyBlocks.push(block)), () => {
      finish("bad", "The microphone was disconnected: connect it, then press Listen again.");
    });
  } catch (error) {
    if (mine === activity) finish("bad", microphoneProblem(error));
    return;
  }
  if (mine !== activity) {
    opened.stop();
    return;
  }
  microphone = opened;
  timeline.reset(microphone.rate, null);
  showDetections([]);
  setStatus("wait", "Connecting to the server…");
  stream = openStream(microphone.rate, keywords.changed, onLiveEvent);
  earlyBlocks.forEach(sendBlock);
}

function sendBlock(block) {
  timeline.addSamples(block);
  stream.sendAudio(block);
  if (stream.backlog > MAX_BACKLOG_S) {
    reset();
    setStatus("bad", "The network is too slow for live audio. Open a recording instead.");
  }
}

/** Stop the microphone. The remaining events still arrive. */
function stop() {
  microphone?.stop();
  microphone = null;
  stream?.end();
  setPressed(false);
}

/** Cancel the current activity. */
function reset() {
  activity++;
  clearTimeout(thresholdTimer);
  microphone?.stop();
  stream?.close();
  microphone = stream = null;
  setPressed(false);
}

function onLiveEvent(event) {
  switch (event.event) {
    case "started":
      setStatus("live", "Listening.");
      break;
    case "scores":
      timeline.addScores(event.offset_s, event.scores);
      break;
    case "detection":
      timeline.addDetection(event);
      keywords.highlight(event.keyword);
      prependDetection(event);
      break;
    case "warning":
      setStatus("live", `Listening. ${event.message}`);
      break;
    case "reconnecting":
      setStatus("wait", `Reconnecting: ${event.cause}. Keep speaking: no audio is lost.`);
      break;
    case "resumed":
      setStatus("live", `Resumed after ${seconds(event.outage_s)}. No audio was lost. Listening.`);
      break;
    case "ended":
      finish("idle", `Ended: ${seconds(event.audio_s)}, ${detectionCount(event.detections)}.`);
      break;
    default:
      finish("bad", failureText(event));
  }
}

function finish(state, text) {
  reset();
  setStatus(state, text);
}

function failureText(event) {
  if (event.event === "lost") return "The connection to this page's server was lost: is earmark web still running?";
  return event.reason ? `${event.message} (${event.reason})` : event.message;
}

function setPressed(pressed) {
  button.dataset.on = pressed;
  button.querySelector("b").textContent = pressed ? "Stop" : "Listen";
}

// Recordings.

async function open(chosen) {
  reset();
  const mine = activity;
  setStatus("wait", `Reading ${chosen.name}…`);
  let samples, warning;
  try {
    ({ samples, warning } = await decode(chosen));
  } catch (error) {
    if (mine === activity) setStatus("bad", error.message);
    return;
  }
  if (mine !== activity) return;
  recording = { name: chosen.name, samples, warning, length: samples.length / RATE };
  URL.revokeObjectURL(sound.src);
  sound.src = URL.createObjectURL(chosen);
  $("playback").hidden = false;
  $("plot").classList.add("seekable");
  timeline.reset(RATE, recording.length);
  timeline.addSamples(samples);
  timeline.setCursor(0);
  showDetections([]);
  analyse();
}

/** Detect the keywords in the whole recording at the current thresholds. */
function analyse() {
  stream?.close();
  const { samples, length, name } = recording, scores = [], detections = [];
  const warnings = recording.warning ? [` ${recording.warning}`] : [];
  stream = openStream(RATE, keywords.changed, event => {
    switch (event.event) {
      case "started":
      case "resumed":
        setStatus("wait", `Analysing ${name}…`);
        break;
      case "scores":
        scores.push({ offset: event.offset_s, scores: event.scores });
        break;
      case "detection":
        detections.push(event);
        break;
      case "warning":
        warnings.push(` ${event.message}`);
        break;
      case "reconnecting":
        setStatus("wait", `Reconnecting: ${event.cause}.`);
        break;
      case "ended":
        timeline.scores = scores;
        timeline.setDetections(detections);
        showDetections(detections);
        finish("idle", `${name}: ${seconds(length)}, ${detectionCount(detections.length)}.${warnings.join("")}`);
        break;
      default:
        finish("bad", failureText(event));
    }
  });
  for (let i = 0; i < samples.length; i += CHUNK_SAMPLES) stream.sendAudio(samples.subarray(i, i + CHUNK_SAMPLES));
  stream.end();
}

/** Apply changed thresholds, once the slider has stopped moving. */
function onThresholdChange() {
  timeline.redraw();
  clearTimeout(thresholdTimer);
  thresholdTimer = setTimeout(() => {
    if (recording) analyse();
    else if (microphone) stream?.sendThresholds(keywords.changed);
  }, THRESHOLD_DELAY_MS);
}

function playFrom(at) {
  sound.currentTime = Math.max(0, at);
  sound.play();
}

function updateCursor() {
  if (!recording) return;
  timeline.setCursor(sound.currentTime);
  if (!sound.paused) requestAnimationFrame(updateCursor);
}

// The list of detections.

function listItem({ keyword, confidence, start_s }) {
  const item = document.createElement("li"), time = document.createElement("time");
  const word = document.createElement("b"), score = document.createElement("span");
  time.textContent = `${start_s.toFixed(2)} s`;
  word.textContent = keyword;
  const label = document.createElement("span");
  label.className = "visually-hidden";
  label.textContent = "confidence ";
  score.className = "confidence";
  score.append(label, confidence.toFixed(2));
  item.append(time, word, score);
  if (recording) {
    const play = document.createElement("button");
    play.type = "button";
    play.textContent = "Play";
    play.ariaLabel = `Play ${keyword} at ${start_s.toFixed(1)} seconds`;
    play.onclick = () => playFrom(start_s - 0.3);
    item.append(play);
  }
  return item;
}

function prependDetection(detection) {
  $("empty").hidden = true;
  detectionList.prepend(listItem(detection));
  if (detectionList.children.length > MAX_LIST_ITEMS) detectionList.lastChild.remove();
}

function showDetections(detections) {
  // A screen reader must not read out all detections of a recording at once. The status line announces their number.
  $("log").ariaLive = recording ? "off" : "polite";
  detectionList.replaceChildren(...detections.map(listItem));
  $("empty").hidden = detections.length > 0;
}

button.onclick = () => {
  if (microphone) stop();
  else if (button.dataset.on === "true") finish("idle", "Ready. Press Listen and speak."); // permission is pending
  else listen();
};
file.onchange = () => {
  if (file.files.length) open(file.files[0]);
  file.value = "";
};
document.ondragover = event => {
  event.preventDefault();
  $("drop").classList.add("over");
};
document.ondragleave = event => event.relatedTarget || $("drop").classList.remove("over");
document.ondrop = event => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (event.dataTransfer.files.length && !file.disabled) open(event.dataTransfer.files[0]);
};
sound.onplay = sound.onseeked = updateCursor;
$("plot").onclick = event => {
  if (recording) playFrom(timeline.seconds(event.clientX - $("plot").getBoundingClientRect().left));
};
$("zoom-in").onclick = () => timeline.zoom(0.5, sound.currentTime);
$("zoom-out").onclick = () => timeline.zoom(2, sound.currentTime);
$("show-all").onclick = () => timeline.setView(0, recording.length);

start();
