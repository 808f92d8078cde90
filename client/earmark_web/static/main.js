// The page's controller: the buttons, the choosers and the status line.

import { openStream } from "./connection.js";
import { Detections } from "./detections.js";
import { Keywords } from "./keywords.js";
import { levelDb, listMicrophones, microphoneProblem, openMicrophone } from "./microphone.js";
import { RATE, decode } from "./recording.js";
import { Timeline } from "./timeline.js";

const $ = id => document.getElementById(id);
const button = $("listen"), file = $("file"), sound = $("sound"), level = $("level");

const RETRY_MS = 3000, THRESHOLD_DELAY_MS = 150, MAX_BACKLOG_S = 20, MAX_MODELS = 8;
const CHUNK_SAMPLES = 32768, LEVEL_DECAY_DB = 1.5; // per block
// The page requests only what its server had.
const OTHER_MODEL_REASONS = ["BAD_RESUME_TOKEN", "UNKNOWN_MODEL", "UNKNOWN_KEYWORD"];

const keywords = new Keywords($("names"), $("reset"), onThresholdChange);
const timeline = new Timeline(keywords, {
  plot: $("plot"), canvas: $("canvas"), chips: $("chips"), cursor: $("cursor"), names: $("names"),
});

const detections = new Detections(
  { log: $("log"), list: $("detections"), empty: $("empty"), exports: $("exports") },
  at => playFrom(at - 0.3),
  describe,
);

let models = [];
let microphone = null, stream = null, recording = null, thresholdTimer = 0;
let startedAt = null; // when live audio began
let detectedBy = []; // the models of the detections, each as "NAME VERSION"
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
    models = info.models;
    $("model").replaceChildren(...models.map(one => new Option(`${one.name} ${one.version}`, one.name)));
    if (models.length > 1 && models.length <= MAX_MODELS) $("model").append(new Option("All models", ""));
    $("model").value = info.model;
    showKeywords();
    await showMicrophones();
  } catch (error) {
    setStatus("bad", `No server: ${error.message} Retrying.`);
    setTimeout(start, RETRY_MS);
    return;
  }
  file.disabled = $("sample").disabled = $("model").disabled = false;
  button.disabled = $("microphone").disabled = !isSecureContext;
  if (isSecureContext) setStatus("idle", "Ready. Press Listen and speak.");
  else setStatus("bad", "Browsers allow the microphone only on localhost and over https. You can still open a recording.");
}

const chosenModels = () => ($("model").value ? models.filter(one => one.name === $("model").value) : models);

const has = (model, keyword) => model.keywords.some(one => one.keyword === keyword);

/** The name of a keyword on the page: with its model if another one of these models has it too. */
const label = (keyword, model, models) =>
  models.filter(one => has(one, keyword)).length > 1 ? `${keyword} (${model})` : keyword;

/** Show the keywords of the chosen models, at their calibrated thresholds. */
function showKeywords() {
  const chosen = chosenModels();
  timeline.scores = [];
  keywords.show(
    chosen.flatMap(({ name, keywords }) =>
      keywords.map(({ keyword, threshold }) => ({
        keyword: label(keyword, name, chosen),
        key: chosen.length > 1 ? `${name}/${keyword}` : keyword,
        threshold,
      })),
    ),
  );
  timeline.resize();
}

/** Open a stream of the chosen models, whose events name keywords as the page does. */
function openChosen(rate, onEvent) {
  const chosen = chosenModels();
  return openStream(rate, chosen.map(one => one.name), keywords.changed, event => {
    const { keyword, model, scores } = event;
    if (keyword) event.keyword = label(keyword, model, chosen);
    if (scores) {
      const { keywords } = chosen.find(one => one.name === model);
      event.scores = Object.fromEntries(keywords.map(one => [label(one.keyword, model, chosen), scores[one.keyword]]));
    }
    onEvent(event);
  });
}

function onModelChange() {
  showKeywords();
  if (microphone) listen();
  else if (recording) analyse();
}

/** Show the microphones, and keep the choice if it is still connected. */
async function showMicrophones() {
  const list = $("microphone"), chosen = list.value;
  const found = await listMicrophones();
  list.replaceChildren(new Option("Default", ""), ...found.map(one => new Option(one.name, one.id)));
  list.value = found.some(one => one.id === chosen) ? chosen : "";
}

/** What an export states besides the detections. */
function describe() {
  // Another model may have been chosen since.
  const [model, model_version] = [0, 1].map(part => detectedBy.map(one => one.split(" ")[part]).join(", "));
  if (recording) {
    const { name, length } = recording;
    return { name: name.replace(/\.[^.]*$/, ""), recording: name, audio_s: length, model, model_version };
  }
  const time = startedAt.toISOString();
  return { name: `microphone-${time.slice(0, 19).replaceAll(":", "-")}`, started_at: time, audio_s: timeline.now, model, model_version };
}

// Live audio.

async function listen() {
  reset();
  const mine = activity;
  recording = null;
  startedAt = new Date();
  timeline.reset(RATE, null);
  detections.show([], true);
  setPressed(true);
  $("playback").hidden = $("cursor").hidden = true;
  $("plot").classList.remove("seekable");
  sound.pause();
  setStatus("wait", "Waiting for the microphone. Your browser may ask for permission.");
  const earlyBlocks = [];
  let opened;
  try {
    opened = await openMicrophone($("microphone").value, block => (stream ? sendBlock(block) : earlyBlocks.push(block)), () => {
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
  startedAt = new Date();
  showMicrophones(); // the browser names them now
  timeline.reset(microphone.rate, null);
  setStatus("wait", "Connecting to the server…");
  stream = openChosen(microphone.rate, onLiveEvent);
  earlyBlocks.forEach(sendBlock);
}

function sendBlock(block) {
  timeline.addSamples(block);
  level.value = Math.max(levelDb(block), level.value - LEVEL_DECAY_DB);
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
  level.value = level.min;
  setPressed(false);
}

/** Cancel the current activity, for another one. */
function reset() {
  clearTimeout(thresholdTimer); // the other one begins with the current thresholds
  end();
}

/** End the current activity. Thresholds that were changed just before still apply. */
function end() {
  activity++;
  microphone?.stop();
  stream?.close();
  microphone = stream = null;
  level.value = level.min;
  setPressed(false);
}

function onLiveEvent(event) {
  switch (event.event) {
    case "started":
      detectedBy = event.models;
      setStatus("live", "Listening.");
      break;
    case "scores":
      timeline.addScores(event.offset_s, event.scores);
      break;
    case "detection":
      timeline.addDetection(event);
      keywords.highlight(event.keyword);
      detections.add(event);
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
  end();
  setStatus(state, text);
}

function failureText(event) {
  if (event.event === "lost") return "The connection to this page's server was lost: is earmark web still running?";
  if (OTHER_MODEL_REASONS.includes(event.reason))
    return "The server has another model now: save the detections if you need them, then reload this page.";
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
  detections.show([], false);
  analyse();
}

/** Open the recording that this page's server offers to try. */
async function openSample() {
  reset();
  const mine = activity;
  setStatus("wait", "Loading the sample…");
  try {
    const response = await fetch("/sample");
    if (!response.ok) throw new Error(`status ${response.status}`);
    const sample = new File([await response.blob()], "demo.flac");
    if (mine === activity) open(sample);
  } catch (error) {
    if (mine === activity) setStatus("bad", `The sample cannot be loaded: ${error.message}. Is earmark web still running?`);
  }
}

/** Detect the keywords in the whole recording at the current thresholds. */
function analyse() {
  stream?.close();
  const { samples, length, name } = recording, scores = [], found = [];
  const warnings = recording.warning ? [` ${recording.warning}`] : [];
  let analysedBy;
  stream = openChosen(RATE, event => {
    switch (event.event) {
      case "started":
        analysedBy = event.models;
        setStatus("wait", `Analysing ${name}…`);
        break;
      case "resumed":
        setStatus("wait", `Analysing ${name}…`);
        break;
      case "scores":
        scores.push({ offset: event.offset_s, scores: event.scores });
        break;
      case "detection":
        found.push(event);
        break;
      case "warning":
        warnings.push(` ${event.message}`);
        break;
      case "reconnecting":
        setStatus("wait", `Reconnecting: ${event.cause}.`);
        break;
      case "ended":
        timeline.scores = scores;
        timeline.setDetections(found);
        detections.show(found, false);
        detectedBy = analysedBy;
        finish("idle", `${name}: ${seconds(length)}, ${detectionCount(found.length)}.${warnings.join("")}`);
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

button.onclick = () => {
  if (microphone) stop();
  else if (button.dataset.on === "true") finish("idle", "Ready. Press Listen and speak."); // permission is pending
  else listen();
};
$("sample").onclick = openSample;
$("model").onchange = onModelChange;
$("microphone").onchange = () => microphone && listen();
if (navigator.mediaDevices) navigator.mediaDevices.ondevicechange = showMicrophones;
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
