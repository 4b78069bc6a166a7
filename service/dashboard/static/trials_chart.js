/** Trials as accuracy over peak training memory: the limit, the front, and its two ends. */
import { ChartCanvas, axis, colour, limitMark } from "./charts.js";
import { html } from "./dom.js";
import { Folded } from "./folded.js";
import { formatBytes, formatMacs, formatPercent, megabytes } from "./format.js";
import { staircase } from "./front.js";
import { isComplete, titleOf, tooltip } from "./trial_words.js";
import { TrialsTable } from "./trials_table.js";
import { isFinal } from "./words.js";

const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5"];
const SHAPES = ["circle", "rectRot", "triangle", "rect", "star"];

/** How far the axis goes: to the limit unless it is far beyond the largest network, and beyond
    the limit as much as shows that there are larger ones. */
const BEYOND_LARGEST = 2;
const BEYOND_LIMIT = 1.2;

export function Trials({ job, trials, best, front }) {
  if (trials.length === 0 && (!front || isFinal(job.status))) return null;
  const limit = job.memory_limit_bytes;
  const isChosen = job.result !== null;
  const resolutions = [...new Set(trials.map(({ resolution }) => resolution))].sort(
    (a, b) => a - b,
  );
  const seen = { trials, best, front, limit, resolutions };
  return html`
    <section class="card" aria-labelledby="trials-title">
      <h2 id="trials-title">Trials</h2>
      <p class="hint">
        Accuracy before training, over the least memory that training can take.
        ${front && ` ${describeEnds(front)}`} None above the limit is tried.
      </p>
      <${ChartCanvas}
        height="19rem"
        text=${describe(seen, isChosen)}
        inputs=${[trials, best, front, limit, isChosen]}
        configure=${() => configuration(seen)}
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
        ${
          best &&
          html`<li><span class="key ring"></span>${isChosen ? "chosen" : "best so far"}</li>`
        }
        ${front?.points.length > 0 && html`<li><span class="key line front"></span>front</li>`}
        ${
          !trials.every(isComplete) &&
          html`<li><span class="key given-up"></span>given up early</li>`
        }
        ${
          trials.some(({ reused }) => reused) &&
          html`<li><span class="key reused"></span>from an earlier job</li>`
        }
      </ul>
      ${
        trials.length > 0 &&
        html`<${Folded} summary="As a table" label="Trials as a table">
          ${() => html`<${TrialsTable} trials=${trials} best=${best} />`}
        <//>`
      }
    </section>
  `;
}

function describe({ trials, best, front, limit }, isChosen) {
  const told = [
    `${trials.length} trials: accuracy on the validation images over predicted peak training ` +
      `memory, below the limit of ${formatBytes(limit)}.`,
  ];
  if (best) {
    told.push(
      `The ${isChosen ? "chosen" : "best"} one has ${formatPercent(best.validation_accuracy)} ` +
        `from ${formatBytes(best.lean_peak_bytes)} on.`,
    );
  }
  if (front) told.push(`The smallest feasible network takes ${endText(front.smallest)}.`);
  return told.join(" ");
}

const describeEnds = ({ smallest, largest }) =>
  `Networks go from ${endText(smallest)} to ${endText(largest)}.`;

const endText = ({ peak_bytes: bytes, resolution, macs }) =>
  `${formatBytes(bytes)} (${resolution}\u00a0px, ${formatMacs(macs)}\u00a0MACs)`;

const seriesOf = (index) => `series-${(index % COLOURS.length) + 1}`;

const shapeOf = (index) => SHAPES[index % SHAPES.length];

function configuration({ trials, best, front, limit, resolutions }) {
  const range = rangeOf(trials, front, limit);
  const points = new Map(front?.points.map((point) => [point.trial, point]));
  const series = resolutions.map((resolution, index) =>
    seriesData(
      trials.filter((trial) => trial.resolution === resolution),
      index,
      radiusFor(trials.length),
    ),
  );
  const drawn = [...series];
  if (best) drawn.unshift(ringData(best));
  if (front) drawn.push(frontData(front, Math.min(limit, range.max)));
  return {
    type: "scatter",
    data: { datasets: drawn },
    options: {
      scales: {
        x: axis("Least training memory (MB)", {
          min: megabytes(range.min),
          max: megabytes(range.max),
          ticks: { includeBounds: false },
        }),
        y: axis(
          "Validation accuracy (%)",
          trials.length > 0 ? { grace: "8%" } : { min: 0, max: 100 },
        ),
      },
    },
    plugins: {
      marks: { lines: [limitMark(limit), ...endMarks(front)] },
      tooltip: {
        displayColors: false,
        filter: ({ raw }) => "trial" in raw,
        callbacks: {
          title: (items) => items.map(({ raw }) => titleOf(raw.trial)),
          label: ({ raw }) => tooltip(raw.trial, points.get(raw.trial.number)),
        },
      },
    },
  };
}

function rangeOf(trials, front, limit) {
  const tried = trials.map((trial) => trial.lean_peak_bytes);
  const least = front ? [front.smallest.peak_bytes, ...tried] : tried;
  const largest = Math.max(front?.largest.peak_bytes ?? limit, ...tried);
  const far = Math.max(limit, largest);
  const most = Math.min(far, limit * BEYOND_LIMIT, largest * BEYOND_LARGEST);
  return { min: Math.min(...least) * 0.95, max: most * 1.03 };
}

const place = (trial) => ({
  x: megabytes(trial.lean_peak_bytes),
  y: 100 * trial.validation_accuracy,
});

/** Many points are small, so that they don't hide each other. */
function radiusFor(count) {
  if (count > 200) return 3;
  return count > 40 ? 4.5 : 6;
}

/** The trials of one resolution: hollow where given up, with an edge where an earlier job's. */
function seriesData(trials, index, radius) {
  const own = colour(COLOURS[index % COLOURS.length]);
  const edge = (trial) => (trial.reused ? colour("--text") : colour("--surface"));
  return {
    data: trials.map((trial) => ({ ...place(trial), trial })),
    backgroundColor: trials.map((trial) => (isComplete(trial) ? own : "transparent")),
    borderColor: trials.map((trial) => (isComplete(trial) ? edge(trial) : `${own}99`)),
    borderWidth: trials.map((trial) => (isComplete(trial) && !trial.reused ? 1 : 1.5)),
    pointStyle: shapeOf(index),
    radius: trials.map((trial) => (isComplete(trial) ? radius : 0.75 * radius)),
    hoverRadius: radius + 2,
  };
}

function ringData(best) {
  return {
    data: [place(best)],
    backgroundColor: "transparent",
    borderColor: colour("--text"),
    borderWidth: 2,
    radius: 11,
    hoverRadius: 11,
  };
}

function frontData(front, endBytes) {
  return {
    data: staircase(front, endBytes).map(({ bytes, accuracy }) => ({
      x: megabytes(bytes),
      y: 100 * accuracy,
    })),
    showLine: true,
    stepped: "before",
    borderColor: colour("--muted"),
    borderWidth: 2,
    radius: 0,
    hitRadius: 0,
  };
}

function endMarks(front) {
  if (!front) return [];
  const mark = (name, short, { peak_bytes: bytes }) => ({
    value: megabytes(bytes),
    label: `${name} ${formatBytes(bytes)}`,
    short: `${short} ${formatBytes(bytes)}`,
    colour: colour("--muted"),
    isStrong: false,
  });
  return [
    mark("smallest feasible", "smallest", front.smallest),
    mark("largest", "largest", front.largest),
  ];
}
