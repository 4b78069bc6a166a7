/** Chart.js in the page's colours: one canvas with a text that says what it shows. */
import "./vendor/chart.js";
import { html, useEffect, useRef, useState } from "./dom.js";
import { formatBytes, megabytes } from "./format.js";

const { Chart } = globalThis;

const dark = matchMedia("(prefers-color-scheme: dark)");

/** The colour of a CSS property such as "--accent". */
export const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * A chart. configure: makes Chart.js' configuration, in the colours of the moment; it is asked
 * again when one of `inputs` has changed. text: what people who don't see it read.
 */
export function ChartCanvas({ configure, inputs, text, height }) {
  const canvas = useRef(null);
  const chart = useRef(null);
  const scheme = useColourScheme();
  useEffect(() => {
    chart.current = new Chart(canvas.current, configured(configure()));
    return () => chart.current.destroy();
  }, [scheme]);
  useEffect(() => {
    const { data, options } = configured(configure());
    chart.current.data = data;
    chart.current.options = options;
    chart.current.update("none");
  }, inputs);
  return html`
    <div class="chart" style=${{ height }}>
      <canvas ref=${canvas} role="img" aria-label=${text}></canvas>
    </div>
  `;
}

/** An axis with a quiet grid; `more` goes on top. */
export function axis(title, { ticks = {}, grid = {}, ...more } = {}) {
  return {
    title: { display: Boolean(title), text: title, color: colour("--muted") },
    ticks: { color: colour("--muted"), maxTicksLimit: 7, padding: 6, ...ticks },
    grid: { color: colour("--grid"), drawTicks: false, ...grid },
    border: { display: false },
    ...more,
  };
}

/** The limit as a line of a chart over MB. */
export const limitMark = (bytes) => ({
  value: megabytes(bytes),
  label: `limit ${formatBytes(bytes)}`,
  short: `limit ${formatBytes(bytes)}`,
  colour: colour("--limit"),
  isStrong: true,
});

/** Draws dashed lines across the chart at values of the x axis, with labels above, as far as two
    rows have room. A line beyond the axis is told at the axis' end.
    lines: { value, label, short (where there is little room), colour, isStrong }. */
const marks = {
  id: "marks",
  afterDatasetsDraw({ ctx, chartArea, scales }, _, { lines = [] }) {
    const { left, right, top, bottom } = chartArea;
    const taken = [];
    ctx.save();
    ctx.lineWidth = 1.5;
    ctx.textAlign = "left";
    ctx.textBaseline = "bottom";
    for (const line of lines) {
      const x = scales.x.getPixelForValue(line.value);
      const isBeyond = x > right + 1;
      ctx.strokeStyle = ctx.fillStyle = line.colour;
      if (!isBeyond) {
        ctx.setLineDash(line.isStrong ? [5, 4] : [2, 3]);
        ctx.beginPath();
        ctx.moveTo(x, top);
        ctx.lineTo(x, bottom);
        ctx.stroke();
      }
      const { size, family } = Chart.defaults.font;
      ctx.font = `${line.isStrong ? 600 : 400} ${size}px ${family}`;
      const told = right - left < NARROW_PIXELS ? line.short : line.label;
      const label = isBeyond ? `${told} →` : told;
      const { width } = ctx.measureText(label);
      const at = Math.min(x, right);
      const start = at > (left + right) / 2 ? at - width : at;
      const isTaken = (row) => taken.some((box) => overlaps(box, row, start, start + width));
      const row = ROWS.find((row) => !isTaken(row));
      if (row === undefined) continue;
      taken.push({ row, start, end: start + width });
      ctx.fillText(label, start, top - 5 - row * ROW_PIXELS);
    }
    ctx.restore();
  },
};

const ROWS = [0, 1];
const ROW_PIXELS = 17;
const NARROW_PIXELS = 340;

const overlaps = (box, row, start, end) =>
  box.row === row && start < box.end + 8 && end > box.start - 8;

function configured({ options, plugins = {}, ...rest }) {
  const rows = Math.min(ROWS.length, plugins.marks?.lines.length ?? 0);
  return {
    ...rest,
    plugins: [marks],
    options: {
      animation: false,
      maintainAspectRatio: false,
      responsive: true,
      layout: { padding: { top: 6 + rows * ROW_PIXELS, right: 8 } },
      ...options,
      plugins: { legend: { display: false }, ...plugins },
    },
  };
}

function useColourScheme() {
  const [isDark, setIsDark] = useState(dark.matches);
  useEffect(() => {
    const onChange = () => setIsDark(dark.matches);
    dark.addEventListener("change", onChange);
    return () => dark.removeEventListener("change", onChange);
  }, []);
  return isDark;
}

Chart.defaults.font.family = getComputedStyle(document.documentElement).fontFamily;
Chart.defaults.font.size = 12;
