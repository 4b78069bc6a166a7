/** What stands above every view: the server is away, or nobody would work on a job. */
import { connection, lastAnswerAt } from "./api.js";
import { html } from "./dom.js";
import { formatClock } from "./format.js";
import { usePolled } from "./polling.js";
import { useStore } from "./store.js";

const WORKERS_UP = /^[1-9]\d* up/;

export function Banners() {
  const { isReachable } = useStore(connection);
  const warnings = useWarnings();
  return html`
    <div role="status" class="banners">
      ${
        !isReachable &&
        html`<p class="banner bad">
        The server can't be reached; trying again.
        ${lastAnswerAt && ` What you see is from ${formatClock(lastAnswerAt)}.`}
      </p>`
      }
      ${isReachable && warnings.map((text) => html`<p class="banner" key=${text}>${text}</p>`)}
    </div>
  `;
}

/** Sentences on what keeps jobs from being worked on, as /readyz tells: it is 503 where the server
    can't work, and says so too where only a worker is missing. */
function useWarnings() {
  const { data, error } = usePolled("/readyz", { seconds: 5 });
  if (error?.document?.checks) {
    const failed = error.document.checks.filter(({ ok }) => !ok);
    return failed.map(({ name, detail }) => `The server is not ready. Its ${name}: ${detail}.`);
  }
  const workers = data?.checks.find(({ name }) => name === "workers");
  if (!workers || WORKERS_UP.test(workers.detail)) return [];
  return ["No worker is up: jobs wait until one starts."];
}
