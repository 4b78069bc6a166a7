/** Trials as accuracy over peak training memory, with the limit drawn in. */
import { ChartCanvas, axis, colour } from "./charts.js";
import { html } from "./dom.js";
import { Folded } from "./folded.js";
import { formatBytes, formatPeak, formatPercent, megabytes } from "./format.js";

const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5"];
const SHAPES = ["circle", "rectRot", "triangle", "rect", "star"];

export function Trials({ job, trials, best }) {
  if (trials.length === 0) return null;
  const limit = job.memory_limit_bytes;
  const isChosen = job.result !== null;
  const resolutions = [...new Set(trials.map(({ resolution }) => resolution))].sort(
    (a, b) => a - b,
  );
  const text =
    `${trials.length} trials: accuracy on the validation images over predicted peak training ` +
    `memory. The ${isChosen ? "chosen" : "best"} one has ` +
    `${formatPercent(best.validation_accuracy)} at ${formatBytes(best.predicted_peak_bytes)}, ` +
    `below the limit of ${formatBytes(limit)}.`;
  return html`
    <section class="card" aria-labelledby="trials-title">
      <h2 id="trials-title">Trials</h2>
      <p class="hint">
        Accuracy before training, over the memory that training will take. None above the limit is
        tried.
      </p>
      <${ChartCanvas}
        height="18rem"
        text=${text}
        inputs=${[trials, best, limit, isChosen]}
        configure=${() => configuration({ trials, best, limit, resolutions })}
      />
      <ul class="legend">
        ${resolutions.map(
          (resolution, index) => html`
            <li key=${resolution}>
              <span class=${`key shape-${shapeOf(index)} ${seriesOf(index)}`}></span>
              ${resolution}\u00a0px
            </li>
          `,
        )}
        <li><span class="key ring"></span>${isChosen ? "chosen" : "best so far"}</li>
      </ul>
      <${Folded} summary="As a table" label="Trials as a table">
        ${() => html`<${Table} trials=${trials} best=${best} />`}
      <//>
    </section>
  `;
}

const seriesOf = (index) => `series-${(index % COLOURS.length) + 1}`;

const shapeOf = (index) => SHAPES[index % SHAPES.length];

function configuration({ trials, best, limit, resolutions }) {
  const smallest = Math.min(...trials.map((trial) => trial.predicted_peak_bytes));
  const point = (trial) => ({
    x: megabytes(trial.predicted_peak_bytes),
    y: 100 * trial.validation_accuracy,
    trial,
  });
  const datasets = resolutions.map((resolution, index) => ({
    data: trials.filter((trial) => trial.resolution === resolution).map(point),
    backgroundColor: colour(COLOURS[index % COLOURS.length]),
    borderColor: colour("--surface"),
    pointStyle: shapeOf(index),
    radius: 6,
    hoverRadius: 8,
  }));
  const ring = {
    data: [point(best)],
    backgroundColor: "transparent",
    borderColor: colour("--text"),
    borderWidth: 2,
    radius: 11,
    hoverRadius: 11,
  };
  return {
    type: "scatter",
    data: { datasets: [ring, ...datasets] },
    options: {
      scales: {
        x: axis("Peak training memory, predicted (MB)", {
          min: megabytes(smallest) * 0.95,
          max: megabytes(limit) * 1.03,
          ticks: { includeBounds: false },
        }),
        y: axis("Validation accuracy (%)", { grace: "8%" }),
      },
    },
    plugins: {
      limit: { value: megabytes(limit), label: `limit ${formatBytes(limit)}` },
      tooltip: {
        displayColors: false,
        filter: ({ datasetIndex }) => datasetIndex > 0,
        callbacks: { label: ({ raw }) => tooltip(raw.trial) },
      },
    },
  };
}

const tooltip = (trial) => [
  `Trial ${trial.number + 1}, ${trial.resolution} px`,
  `${formatPercent(trial.validation_accuracy)} of the validation images`,
  `${formatPeak(trial.predicted_peak_bytes)} at its peak`,
];

function Table({ trials, best }) {
  return html`
    <table>
      <thead>
        <tr>
          <th scope="col">Trial</th>
          <th scope="col">Image side</th>
          <th scope="col">Peak, predicted</th>
          <th scope="col">Accuracy</th>
        </tr>
      </thead>
      <tbody>
        ${trials.map(
          (trial) => html`
            <tr key=${trial.number} class=${trial === best ? "best" : ""}>
              <th scope="row">${trial.number + 1}${trial === best ? " (best)" : ""}</th>
              <td>${trial.resolution}\u00a0px</td>
              <td>${formatPeak(trial.predicted_peak_bytes)}</td>
              <td>${formatPercent(trial.validation_accuracy)}</td>
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}
