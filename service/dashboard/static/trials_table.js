/** The trials of a search as a table. */
import { html } from "./dom.js";
import { formatMacs, formatPeak } from "./format.js";
import { formatEstimate, noteOf } from "./trial_words.js";

export function TrialsTable({ trials, best }) {
  return html`
    <table>
      <thead>
        <tr>
          <th scope="col">Trial</th>
          <th scope="col">Image side</th>
          <th scope="col">Memory</th>
          <th scope="col">Accuracy</th>
          <th scope="col"><abbr title="multiply-accumulates of one image">MACs</abbr></th>
        </tr>
      </thead>
      <tbody>
        ${trials.map(
          (trial) => html`
            <tr key=${trial.number} class=${trial === best ? "best" : ""}>
              <th scope="row">${trial.number + 1}${trial === best ? " (best)" : ""}</th>
              <td>${trial.resolution}\u00a0px</td>
              <td>${formatPeak(trial.lean_peak_bytes)}</td>
              <td>
                ${formatEstimate(trial)}
                ${noteOf(trial) && html`<span class="hint under">${noteOf(trial)}</span>`}
              </td>
              <td>${formatMacs(trial.macs)}</td>
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}
