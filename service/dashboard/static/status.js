/** A job's status as a badge. */
import { html } from "./dom.js";
import { capitalized, statusWord } from "./words.js";

export function StatusBadge({ job }) {
  return html`<span class="badge ${job.status}">${capitalized(statusWord(job))}</span>`;
}
