// The keyword rows: a label, a slider for the threshold, and its value.

export class Keywords {
  /** `onChange` is called when a threshold changes. */
  constructor(rows, reset, onChange) {
    this.rows = rows;
    this.reset = reset;
    this.onChange = onChange;
    this.all = [];
    reset.onclick = () => {
      for (const one of this.all) this.set(one, one.calibrated, false);
      onChange();
    };
  }

  /** Show these keywords, each {keyword, key, threshold}, at their calibrated thresholds. `key`: for `changed`. */
  show(keywords) {
    for (const one of this.all) one.row.remove();
    this.all = keywords.map(({ keyword, key, threshold }) => {
      const row = document.createElement("div"), label = document.createElement("label");
      const slider = document.createElement("input"), value = document.createElement("output");
      row.className = "keyword";
      label.textContent = label.title = keyword;
      label.htmlFor = slider.id = value.htmlFor = `threshold-${key}`;
      slider.type = "range";
      [slider.min, slider.max, slider.step] = ["0.01", "0.999", "any"];
      slider.setAttribute("aria-label", `Threshold of ${keyword}`);
      row.append(label, value, slider);
      this.rows.append(row);
      const one = { keyword, key, calibrated: threshold, row, slider, value };
      slider.oninput = () => {
        this.set(one, slider.valueAsNumber, true);
        this.onChange();
      };
      // With step "any", browsers differ in how far an arrow key moves the slider.
      slider.onkeydown = event => {
        const by = { ArrowUp: 0.01, ArrowRight: 0.01, ArrowDown: -0.01, ArrowLeft: -0.01 }[event.key];
        if (!by) return;
        event.preventDefault();
        slider.valueAsNumber = Math.round(100 * (slider.valueAsNumber + by)) / 100;
        slider.oninput();
      };
      this.set(one, threshold, false);
      return one;
    });
  }

  set(one, threshold, changed) {
    Object.assign(one, { threshold, changed });
    one.slider.value = threshold;
    one.value.value = threshold.toFixed(2);
    one.slider.setAttribute("aria-valuetext", threshold.toFixed(2));
    one.row.classList.toggle("changed", changed);
    this.reset.disabled = !this.all.some(one => one.changed);
  }

  /** The thresholds that differ from the calibrated ones. */
  get changed() {
    return Object.fromEntries(this.all.filter(one => one.changed).map(one => [one.key, one.threshold]));
  }

  /** Highlight a keyword that was just detected, for a moment. */
  highlight(keyword) {
    const one = this.all.find(one => one.keyword === keyword);
    if (!one) return;
    one.row.classList.add("detected");
    clearTimeout(one.timer);
    one.timer = setTimeout(() => one.row.classList.remove("detected"), 1200);
  }
}
