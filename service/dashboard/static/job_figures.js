/** The figures that tell whether it was worth it, and how sure they are. */
import { html } from "./dom.js";
import {
  formatBytes,
  formatCount,
  formatMacs,
  formatNumber,
  formatPeak,
  formatPercent,
  formatSeconds,
  formatShare,
  formatSigned,
  formatSpread,
} from "./format.js";
import { peakOf } from "./words.js";

export function KeyFigures({ job, best, trials }) {
  const figures = job.result ? delivered(job) : underWay(job, best, trials);
  return html`
    ${job.result?.headline && html`<p class="headline">${job.result.headline}</p>`}
    <dl class="figures">
      ${figures.map(
        ({ name, value, spread, note }) => html`
          <div key=${name}>
            <dt>${name}</dt>
            <dd class="value">
              ${value}${spread && html` <span class="spread">${spread}</span>`}
            </dd>
            <dd class="hint">${note}</dd>
          </div>
        `,
      )}
    </dl>
    ${job.result && html`<${Certainty} result=${job.result} />`}
  `;
}

/** How sure gain and choice are. Results of an earlier version say nothing of it. */
function Certainty({ result }) {
  const { gain, choice, reused_trials: reused } = result;
  const told = [];
  if (choice) told.push(certaintyOf(choice));
  if (reused) {
    told.push(`${formatCount(reused, "score")} came from an earlier job.`);
  }
  return html`
    ${
      gain?.is_within_noise &&
      html`<p class="banner">
      The gain over head-only training is within noise: there may be none.
    </p>`
    }
    ${told.length > 0 && html`<p class="hint certainty">${told.join(" ")}</p>`}
  `;
}

/** num_compared: null in results of an earlier version. */
function certaintyOf({ num_compared: compared, num_rivals, probability_best: probability }) {
  if (compared === 1) return "The only one within the limits that was scored to the end.";
  return (
    `Best of ${compared === null ? "those" : compared} within the limits that were scored to ` +
    `the end; ${rivals(num_rivals)} within noise. It is the best with a probability of ` +
    `${formatShare(probability)}, as far as the validation images tell.`
  );
}

function rivals(count) {
  if (count === 0) return "no other is";
  return count === 1 ? "1 other is" : `${count} others are`;
}

function delivered({ result, memory_limit_bytes: limit, settings }) {
  const isMeasured = result.measured_peak_bytes !== null;
  const peak = result.measured_peak_bytes ?? result.predicted_peak_bytes;
  const share = peak / limit;
  const predicted = formatPeak(result.predicted_peak_bytes);
  const isCounted = result.macs !== null;
  const within = `${formatPercent(share)} of the limit of ${formatBytes(limit)}`;
  return [
    accuracyFigure(result, settings),
    gainFigure(result),
    {
      name: isMeasured ? "Measured peak" : "Predicted peak",
      value: formatPeak(peak),
      note: peakNote(result, isCounted && isMeasured ? `${within}; ${predicted} predicted` : within),
    },
    isCounted
      ? {
          name: "Multiply-accumulates",
          value: formatMacs(result.macs),
          note: macsNote(settings),
        }
      : { name: "Predicted peak", value: predicted, note: "by formula, before training" },
  ];
}

/** What the peak is that of; where that is the process, torch's beside. */
function peakNote({ peak_meaning: meaning, torch_measured_peak_bytes: torch }, within) {
  const beside = meaning === "process" ? `; torch's allocator ${formatPeak(torch)}` : "";
  return `${peakOf(meaning)}, ${within}${beside}`;
}

/** Where accuracy would hide small classes, the mean over the classes. shown: null in results of an
    earlier version. */
function accuracyFigure({ headline_accuracy: shown, ...result }, { refit: isRefit }) {
  const whole = formatPercent(result.test_accuracy);
  if (shown !== null && shown !== result.test_accuracy) {
    return {
      name: "Balanced test accuracy",
      value: formatPercent(shown),
      note: `every class counted alike; ${whole} of all test images`,
    };
  }
  return {
    name: "Test accuracy",
    value: whole,
    note:
      `${formatPercent(result.validation_accuracy)} on the validation images` +
      (isRefit ? ", before these were trained on, too" : ""),
  };
}

function gainFigure({ gain, test_accuracy: whole, head_only_test_accuracy: head }) {
  return {
    name: "Gain over head-only training",
    value: formatSigned(gain ? gain.points : whole - head),
    spread: gain ? `${formatSpread(gain.standard_error)} points` : "points",
    note: `${formatPercent(head)} with the classifier alone`,
  };
}

function underWay(job, best, trials) {
  const { settings } = job;
  return [
    {
      name: "Memory limit",
      value: formatBytes(job.memory_limit_bytes),
      note: `for ${job.peak_meaning === "process" ? peakOf("process") : "all that torch's allocator holds"}`,
    },
    trialsFigure(settings, trials),
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
    {
      name: "Its multiply-accumulates",
      value: formatMacs(best?.macs ?? null),
      note: best ? macsNote(settings) : "no trial yet",
    },
  ];
}

function trialsFigure({ trials: most, time_limit_seconds: seconds }, trials) {
  const numReused = trials.filter(({ reused }) => reused).length;
  const numOwn = trials.length - numReused;
  return {
    name: "Trials",
    value: seconds ? formatNumber(numOwn) : `${numOwn} of ${most}`,
    note:
      (seconds ? `scored, for ${formatSeconds(seconds)} at most` : "candidates scored") +
      (numReused ? `; ${formatNumber(numReused)} more by an earlier job` : ", within the limit"),
  };
}

const macsNote = ({ mac_limit: limit }) =>
  limit ? `for one image; limit ${formatMacs(limit)}` : "for one image, forward";
