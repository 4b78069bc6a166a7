/** What less memory would cost: a few points of the front, side by side. */
import { html } from "./dom.js";
import {
  formatBytes,
  formatMacs,
  formatPeak,
  formatPoints,
  formatShare,
  formatTimes,
} from "./format.js";
import { chosenPoint, cheaper, hopelessShare } from "./front.js";
import { formatEstimate } from "./trial_words.js";

export function LessMemory({ job, front }) {
  const rows = front ? cheaper(front) : [];
  if (rows.length < 2) return null;
  const chosen = chosenPoint(front);
  const hopeless = hopelessShare(front);
  const names = { chosen: job.result ? "chosen" : "best so far", leanest: "leanest" };
  return html`
    <section class="card" aria-labelledby="less-title">
      <h2 id="less-title">What less memory would cost</h2>
      <p class="hint">
        Each network with the training plan that takes the least memory, and how much longer a
        step takes than by its fastest plan.
        ${
          hopeless !== null &&
          ` Nothing fits in ${formatShare(hopeless)} of the limit: the smallest network takes ` +
            `${formatBytes(front.smallest.peak_bytes)}.`
        }
      </p>
      <table class="less">
        <caption class="hidden">The most accurate networks within less memory</caption>
        <thead>
          <tr>
            <th scope="col">Memory</th>
            <th scope="col">Accuracy</th>
            <th scope="col"><abbr title="multiply-accumulates of one image">MACs</abbr></th>
            <th scope="col">Step time</th>
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            ({ point, share }) => html`
              <tr key=${point.trial} class=${point === chosen ? "best" : ""}>
                <th scope="row">
                  ${formatPeak(point.peak_bytes)}
                  <span class="hint">${nameOf(point, share, chosen, names)}</span>
                </th>
                <td>
                  ${formatEstimate(point.validation_accuracy, point.standard_error)}
                  <span class="hint">${lost(point, chosen)}</span>
                </td>
                <td>
                  ${formatMacs(point.macs)}
                  <span class="hint">${point.resolution}\u00a0px</span>
                </td>
                <td>${formatTimes(point.slowdown)}</td>
              </tr>
            `,
          )}
        </tbody>
      </table>
    </section>
  `;
}

function nameOf(point, share, chosen, names) {
  if (share !== null) return `within ${formatShare(share)}`;
  return point === chosen ? names.chosen : names.leanest;
}

const lost = (point, chosen) =>
  point === chosen
    ? ""
    : formatPoints(point.validation_accuracy - chosen.validation_accuracy);
