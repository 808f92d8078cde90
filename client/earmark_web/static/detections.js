// The list of detections, and its export as a file.

const MAX_LIST_ITEMS = 100;

const FORMATS = {
  /** Labels for Audacity, as `earmark listen --record` writes them. */
  txt: ({ detections }) => detections.map(one =>
    `${one.start_s.toFixed(3)}\t${one.end_s.toFixed(3)}\t${one.keyword} ${one.confidence.toFixed(2)}\n`).join(""),
  csv: ({ detections }) => "keyword,confidence,start_s,end_s\r\n" + detections.map(one =>
    `"${one.keyword.replaceAll('"', '""')}",${one.confidence.toFixed(4)},${one.start_s.toFixed(3)},${one.end_s.toFixed(3)}\r\n`).join(""),
  json: result => JSON.stringify(result, null, 2) + "\n",
};
const MEDIA_TYPES = { txt: "text/plain", csv: "text/csv", json: "application/json" };

export class Detections {
  /**
   * `parts`: the elements log, list, empty and exports. `onPlay` is called with a time in seconds. `describe`
   * returns what an export states besides the detections: its `name`, and the other keys of the JSON file.
   */
  constructor(parts, onPlay, describe) {
    Object.assign(this, parts);
    this.onPlay = onPlay;
    this.all = [];
    this.buttons = [...this.exports.querySelectorAll("button")];
    for (const button of this.buttons)
      button.onclick = () => {
        const { name, ...result } = describe(), format = button.dataset.format;
        const detections = this.all.map(({ keyword, confidence, start_s, end_s }) => ({ keyword, confidence, start_s, end_s }));
        save(`${name}-detections.${format}`, FORMATS[format]({ ...result, detections }), MEDIA_TYPES[format]);
      };
  }

  /** Replace all detections: of a recording in their order, of live audio the newest first. */
  show(detections, live) {
    this.all = detections;
    this.live = live;
    // A screen reader must not read out all detections of a recording at once. The status line announces their number.
    this.log.ariaLive = live ? "polite" : "off";
    this.list.replaceChildren(...detections.map(one => this.item(one)));
    this.update();
  }

  /** Add a detection in live audio. */
  add(detection) {
    this.all.push(detection);
    this.list.prepend(this.item(detection));
    if (this.list.children.length > MAX_LIST_ITEMS) this.list.lastChild.remove();
    this.update();
  }

  update() {
    this.empty.hidden = this.all.length > 0;
    for (const button of this.buttons) button.disabled = this.all.length === 0;
  }

  item({ keyword, confidence, start_s }) {
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
    if (!this.live) {
      const play = document.createElement("button");
      play.type = "button";
      play.className = "play";
      play.ariaLabel = `Play ${keyword} at ${start_s.toFixed(1)} seconds`;
      play.onclick = () => this.onPlay(start_s);
      item.append(play);
    }
    return item;
  }
}

function save(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // the browser may read it later
}
