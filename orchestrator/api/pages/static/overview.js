// The chart of the overview: runs that started, completed and failed, per minute. The same stands in a table.
"use strict";

(() => {
  const MINUTE_S = 60;
  const SHOWN_AT_LEAST = 60; // minutes
  const APART_MS = 5000; // between two looks: the chart's smallest step is a minute
  const HEIGHT = 180;
  const SERIES = [["Started", "started", "--accent"], ["Completed", "completed", "--good"], ["Failed", "failed", "--bad"]];

  const place = document.getElementById("chart");
  let chart = null;
  let asked = -APART_MS;
  let waits = 0;

  // Colours are written as light-dark(): the browser says what that is, for a property that has a colour.
  function resolved(name) {
    const probe = place.appendChild(document.createElement("i"));
    probe.style.color = `var(${name})`;
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  const at = (time_s, form) => new Date(time_s * 1000).toLocaleString([], { hourCycle: "h23", ...form });

  function columns(minutes) {
    const last = Math.floor(Date.now() / 1000 / MINUTE_S);
    const known = new Map(minutes.map((one) => [one.time_ms / 1000 / MINUTE_S, one]));
    const first = Math.min(last - SHOWN_AT_LEAST + 1, ...known.keys());
    const numbers = Array.from({ length: last - first + 1 }, (_, at) => first + at);
    const values = SERIES.map(([, name]) => numbers.map((number) => known.get(number)?.[name] ?? 0));
    return [numbers.map((number) => number * MINUTE_S), ...values];
  }

  function draw(data) {
    chart?.destroy();
    const axis = { stroke: resolved("--muted"), grid: { stroke: resolved("--line"), width: 1 }, ticks: { show: false } };
    const series = SERIES.map(([label, , name]) => ({ label, stroke: resolved(name), width: 1.5, points: { show: false } }));
    const minute = { label: "Minute", value: (_, time) => (time ? at(time, { dateStyle: "medium", timeStyle: "short" }) : "") };
    const scales = { y: { range: (_, least, most) => [0, Math.max(most, 1)] } };
    const clock = (_, times) => times.map((time) => at(time, { hour: "2-digit", minute: "2-digit" }));
    const whole = { ...axis, size: 56, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 1e6] };
    chart = new uPlot(
      { width: place.clientWidth, height: HEIGHT, scales, axes: [{ ...axis, values: clock }, whole], series: [minute, ...series] },
      data,
      place,
    );
  }

  async function look() {
    if (document.hidden || waits) return;
    const rest = asked + APART_MS - performance.now();
    if (rest > 0) {
      waits = setTimeout(() => { waits = 0; look(); }, rest);
      return;
    }
    asked = performance.now();
    const answer = await fetch(place.dataset.source, { headers: { Accept: "application/json" } }).catch(() => null);
    if (!answer?.ok) return; // the next update asks again
    const data = columns((await answer.json()).minutes);
    if (chart) chart.setData(data);
    else draw(data);
  }

  document.addEventListener("htmx:after:swap", look); // an update came
  document.addEventListener("visibilitychange", look); // some may have come
  window.addEventListener("resize", () => chart?.setSize({ width: place.clientWidth, height: HEIGHT }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart && draw(chart.data));
  look();
})();
