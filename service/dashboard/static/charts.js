/** Chart.js in the page's colours: one canvas with a text that says what it shows. */
import "./vendor/chart.js";
import { html, useEffect, useRef, useState } from "./dom.js";

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

/** Draws a dashed line across the chart at `value` of the x axis, with a label. */
const limitLine = {
  id: "limit",
  afterDatasetsDraw({ ctx, chartArea, scales }, _, { value, label }) {
    if (value === undefined) return;
    const x = scales.x.getPixelForValue(value);
    if (x < chartArea.left || x > chartArea.right + 1) return;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = colour("--limit");
    ctx.lineWidth = 1.5;
    ctx.setLineDash([5, 4]);
    ctx.beginPath();
    ctx.moveTo(x, chartArea.top);
    ctx.lineTo(x, chartArea.bottom);
    ctx.stroke();
    ctx.font = `600 ${Chart.defaults.font.size}px ${Chart.defaults.font.family}`;
    ctx.textAlign = x > (chartArea.left + chartArea.right) / 2 ? "right" : "left";
    ctx.textBaseline = "bottom";
    ctx.fillText(label, x, chartArea.top - 5);
    ctx.restore();
  },
};

function configured({ options, plugins = {}, ...rest }) {
  return {
    ...rest,
    plugins: [limitLine],
    options: {
      animation: false,
      maintainAspectRatio: false,
      responsive: true,
      layout: { padding: { top: plugins.limit ? 22 : 6, right: 8 } },
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
