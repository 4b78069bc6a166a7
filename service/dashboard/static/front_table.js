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
import { cheaper, hopelessShare } from "./front.js";
import { formatEstimate } from "./trial_words.js";

export function LessMemory({ job, front }) {
  const rows = front ? cheaper(front) : [];
  if (rows.length < 2) return null;
  const best = rows[0].point;
  const hopeless = hopelessShare(front);
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
              <tr key=${point.trial} class=${point === best ? "best" : ""}>
                <th scope="row">
                  ${formatPeak(point.peak_bytes)}
                  <span class="hint">${nameOf(point, share, best, job)}</span>
                </th>
                <td>
                  ${formatEstimate(point)}
                  <span class="hint">${lost(point, best)}</span>
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

function nameOf(point, share, best, job) {
  if (share !== null) return `within ${formatShare(share)}`;
  if (point !== best) return "leanest";
  if (!job.result) return "best so far";
  return point.is_chosen ? "chosen" : "best";
}

function lost(point, best) {
  if (point === best) return "";
  const points = point.validation_accuracy - best.validation_accuracy;
  return points === 0 ? "as accurate" : formatPoints(points);
}
