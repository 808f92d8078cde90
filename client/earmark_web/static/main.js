// What the page does: the button, the file, the states, the list of what was heard.

import { openStream } from "./connection.js";
import { Keywords } from "./keywords.js";
import { microphoneProblem, openMicrophone } from "./microphone.js";
import { RATE, decode } from "./recording.js";
import { Timeline } from "./timeline.js";

const $ = id => document.getElementById(id);
const button = $("listen"), file = $("file"), sound = $("sound"), heard = $("heard");

const TRY_AGAIN_MS = 3000, SETTLED_MS = 150, MOST_BEHIND_S = 20, MOST_LISTED = 100;
const PIECE = 32768; // samples in a message

const keywords = new Keywords($("names"), $("reset"), settle);
const timeline = new Timeline(keywords, {
  plot: $("plot"), canvas: $("canvas"), chips: $("chips"), cursor: $("cursor"), names: $("names"),
});

let microphone = null, stream = null, recording = null, settling = 0;
let turn = 0; // counts what is begun, so that what comes late is known

/** Say how things stand: `state` is idle, live, wait or bad. */
function say(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

const seconds = s => `${s.toFixed(1)} s`;
const count = n => `${n} keyword${n === 1 ? "" : "s"}`;

async function start() {
  try {
    const answer = await fetch("/info"), info = await answer.json();
    if (!answer.ok) throw new Error(info.error.message);
    const used = info.models.find(one => one.name === info.model);
    $("model").textContent = `${used.name} ${used.version}`;
    keywords.show(used.keywords);
    timeline.resize();
  } catch (error) {
    say("bad", `No server: ${error.message} Trying again.`);
    setTimeout(start, TRY_AGAIN_MS);
    return;
  }
  file.disabled = false;
  button.disabled = !isSecureContext;
  if (isSecureContext) say("idle", "Ready. Press Listen and speak.");
  else say("bad", "Browsers give the microphone only to pages of this machine (localhost) and to encrypted ones " +
    "(https). Recordings can be opened all the same.");
}

// Live sound.

async function listen() {
  leave();
  const mine = turn;
  recording = null;
  press(true);
  $("player").hidden = $("cursor").hidden = true;
  $("plot").classList.remove("seekable");
  sound.pause();
  say("wait", "Waiting for the microphone: the browser may ask you.");
  const early = [];
  let opened;
  try {
    opened = await openMicrophone(block => (stream ? hear(block) : early.push(block)), () => {
      over("bad", "The microphone went away: connect it, then press Listen again.");
    });
  } catch (error) {
    if (mine === turn) over("bad", microphoneProblem(error));
    return;
  }
  if (mine !== turn) {
    opened.stop();
    return;
  }
  microphone = opened;
  timeline.begin(microphone.rate, null);
  list([]);
  say("wait", "Reaching the server…");
  stream = openStream(microphone.rate, keywords.changed, take);
  early.forEach(hear);
}

function hear(block) {
  timeline.addSamples(block);
  stream.audio(block);
  if (stream.behind > MOST_BEHIND_S) {
    leave();
    say("bad", "The network is too slow for live sound.");
  }
}

/** End what is heard; what is still decided comes. */
function stop() {
  microphone?.stop();
  microphone = null;
  stream?.end();
  press(false);
}

/** Leave whatever is under way. */
function leave() {
  turn++;
  clearTimeout(settling);
  microphone?.stop();
  stream?.leave();
  microphone = stream = null;
  press(false);
}

function take(event) {
  switch (event.event) {
    case "started":
      say("live", "Listening.");
      break;
    case "scores":
      timeline.addScores(event.offset_s, event.scores);
      break;
    case "detection":
      timeline.add(event);
      keywords.mark(event.keyword);
      prepend(event);
      break;
    case "reconnecting":
      say("wait", `Reconnecting: ${event.cause}. Keep speaking, nothing is lost.`);
      break;
    case "resumed":
      say("live", `Resumed after ${seconds(event.outage_s)}; nothing was lost. Listening.`);
      break;
    case "ended":
      over("idle", `Ended: ${seconds(event.audio_s)}, ${count(event.detections)}.`);
      break;
    default:
      over("bad", failure(event));
  }
}

function over(state, text) {
  leave();
  say(state, text);
}

function failure(event) {
  if (event.event === "lost") return "The connection to this page's server broke: is earmark web still running?";
  return event.reason ? `${event.message} (${event.reason})` : event.message;
}

function press(pressed) {
  button.dataset.on = pressed;
  button.querySelector("b").textContent = pressed ? "Stop" : "Listen";
}

// A recording.

async function open(chosen) {
  leave();
  const mine = turn;
  say("wait", `Reading ${chosen.name}…`);
  let samples;
  try {
    samples = await decode(chosen);
  } catch (error) {
    if (mine === turn) say("bad", error.message);
    return;
  }
  if (mine !== turn) return;
  recording = { name: chosen.name, samples, length: samples.length / RATE };
  URL.revokeObjectURL(sound.src);
  sound.src = URL.createObjectURL(chosen);
  $("player").hidden = false;
  $("plot").classList.add("seekable");
  timeline.begin(RATE, recording.length);
  timeline.addSamples(samples);
  timeline.point(0);
  list([]);
  analyse();
}

/** Ask for the whole recording's detections at the thresholds as they are. */
function analyse() {
  stream?.leave();
  const { samples, length, name } = recording, scores = [], detections = [];
  stream = openStream(RATE, keywords.changed, event => {
    switch (event.event) {
      case "started":
      case "resumed":
        say("wait", `Listening to ${name}…`);
        break;
      case "scores":
        scores.push({ offset: event.offset_s, scores: event.scores });
        break;
      case "detection":
        detections.push(event);
        break;
      case "reconnecting":
        say("wait", `Reconnecting: ${event.cause}.`);
        break;
      case "ended":
        timeline.scores = scores;
        timeline.show(detections);
        list(detections);
        over("idle", `${name}: ${seconds(length)}, ${count(detections.length)} heard.`);
        break;
      default:
        over("bad", failure(event));
    }
  });
  for (let i = 0; i < samples.length; i += PIECE) stream.audio(samples.subarray(i, i + PIECE));
  stream.end();
}

/** A threshold was moved. */
function settle() {
  timeline.redraw();
  clearTimeout(settling);
  settling = setTimeout(() => {
    if (recording) analyse();
    else if (microphone) stream?.thresholds(keywords.changed);
  }, SETTLED_MS);
}

function listenFrom(at) {
  sound.currentTime = Math.max(0, at);
  sound.play();
}

function follow() {
  if (!recording) return;
  timeline.point(sound.currentTime);
  if (!sound.paused) requestAnimationFrame(follow);
}

// The list of what was heard.

function item({ keyword, confidence, start_s }) {
  const line = document.createElement("li"), time = document.createElement("time");
  const word = document.createElement("b"), sure = document.createElement("span");
  time.textContent = `${start_s.toFixed(2)} s`;
  word.textContent = keyword;
  const spoken = document.createElement("span");
  spoken.className = "unseen";
  spoken.textContent = "confidence ";
  sure.className = "sure";
  sure.append(spoken, confidence.toFixed(2));
  line.append(time, word, sure);
  if (recording) {
    const play = document.createElement("button");
    play.type = "button";
    play.textContent = "Play";
    play.ariaLabel = `Play ${keyword} at ${start_s.toFixed(1)} seconds`;
    play.onclick = () => listenFrom(start_s - 0.3);
    line.append(play);
  }
  return line;
}

function prepend(detection) {
  $("nothing").hidden = true;
  heard.prepend(item(detection));
  if (heard.children.length > MOST_LISTED) heard.lastChild.remove();
}

function list(detections) {
  // All of a recording at once is for the reader to look at; the status tells of it.
  $("log").ariaLive = recording ? "off" : "polite";
  heard.replaceChildren(...detections.map(item));
  $("nothing").hidden = detections.length > 0;
}

button.onclick = () => {
  if (microphone) stop();
  else if (button.dataset.on === "true") over("idle", "Ready. Press Listen and speak."); // while the browser asks
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
sound.onplay = sound.onseeked = follow;
$("plot").onclick = event => {
  if (recording) listenFrom(timeline.seconds(event.clientX - $("plot").getBoundingClientRect().left));
};
$("closer").onclick = () => timeline.zoom(0.5, sound.currentTime);
$("farther").onclick = () => timeline.zoom(2, sound.currentTime);
$("whole").onclick = () => timeline.look(0, recording.length);

start();
