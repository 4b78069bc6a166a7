/** The figures that tell whether it was worth it. */
import { html } from "./dom.js";
import { formatBytes, formatPeak, formatPercent, formatPoints } from "./format.js";

export function KeyFigures({ job, best, numTrials }) {
  const figures = job.result ? delivered(job) : underWay(job, best, numTrials);
  return html`
    <dl class="figures">
      ${figures.map(
        ({ name, value, note }) => html`
          <div key=${name}>
            <dt>${name}</dt>
            <dd class="value">${value}</dd>
            <dd class="hint">${note}</dd>
          </div>
        `,
      )}
    </dl>
  `;
}

function delivered({ result, memory_limit_bytes: limit }) {
  const share = result.measured_peak_bytes / limit;
  return [
    {
      name: "Test accuracy",
      value: formatPercent(result.test_accuracy),
      note: `${formatPercent(result.validation_accuracy)} on the validation images`,
    },
    {
      name: "Gain over head-only training",
      value: formatPoints(result.test_accuracy - result.head_only_test_accuracy),
      note: `${formatPercent(result.head_only_test_accuracy)} with the classifier alone`,
    },
    {
      name: "Measured peak",
      value: formatPeak(result.measured_peak_bytes),
      note: `${formatPercent(share)} of the limit of ${formatBytes(limit)}`,
    },
    {
      name: "Predicted peak",
      value: formatPeak(result.predicted_peak_bytes),
      note: "by formula, before training",
    },
  ];
}

function underWay(job, best, numTrials) {
  return [
    {
      name: "Memory limit",
      value: formatBytes(job.memory_limit_bytes),
      note: "for everything that training holds",
    },
    {
      name: "Trials",
      value: `${numTrials} of ${job.settings.trials}`,
      note: "candidates within the limit, scored",
    },
    {
      name: "Best so far",
      value: best ? formatPercent(best.validation_accuracy) : "–",
      note: best ? "of the validation images, before training" : "no trial yet",
    },
    {
      name: "Its predicted peak",
      value: best ? formatPeak(best.predicted_peak_bytes) : "–",
      note: best ? `trial ${best.number + 1}, ${best.resolution}\u00a0px` : "no trial yet",
    },
  ];
}
